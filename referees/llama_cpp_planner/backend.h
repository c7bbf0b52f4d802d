#pragma once

#include <cstddef>

// CUDA devices to simulate; all are equal.
struct simulated_devices {
    int    count              = 1;
    int    compute_capability = 890; // as CUDA counts it: 8.9 is 890
    size_t free_bytes         = 0;
    size_t total_bytes        = 0;
};

// Adds the devices to ggml's registry. Call it once, before a model is loaded.
void register_simulated_devices(const simulated_devices & wanted);
