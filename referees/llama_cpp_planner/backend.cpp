// CUDA devices that allocate nothing, for ggml. The rules come from llama.cpp's own CUDA backend:
// rules.py copies them to rules.inc when the referee is built. This file gives the rules the
// devices that they ask about, and answers what would need a driver.

#include "backend.h"

#include "ggml-backend-impl.h"
#include "ggml-cpu.h"
#include "ggml-cuda.h"
#include "ggml-impl.h"

#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"

#include <algorithm>
#include <array>
#include <climits>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>
#include <unordered_map>
#include <vector>

// The rules are written for nvcc, with the CUDA toolkit of the project's own releases.
#define __host__
#define __device__
#define __forceinline__ inline
#define CUDART_VERSION 12080

// Properties of a device that the rules read (ggml-cuda/common.cuh: ggml_cuda_device_info).
struct device_properties {
    int    cc         = 890;
    bool   integrated = false;
    size_t smpb       = 48 * 1024;
};

struct device_table {
    std::vector<device_properties> devices;
};

static simulated_devices settings;
static device_table      table;

static const device_table & ggml_cuda_info() {
    return table;
}

static void ggml_cuda_set_device(int) {}

static int ggml_cuda_get_device() {
    return 0;
}

// The streams are only used with GGML_CUDA_GRAPH_OPT=1, which this process never sets.
struct ggml_cuda_concurrent_event {
    const ggml_tensor * join_node = nullptr;
    std::unordered_map<const ggml_tensor *, int> stream_mapping;
    std::vector<const ggml_tensor *> original_order;

    explicit ggml_cuda_concurrent_event(int) {}
};

struct ggml_cuda_stream_context {
    std::unordered_map<const ggml_tensor *, ggml_cuda_concurrent_event> concurrent_events;

    void reset() {}
};

struct ggml_backend_cuda_context {
    int device = 0;
    ggml_cuda_stream_context streams;

    ggml_cuda_stream_context & stream_context() {
        return streams;
    }
};

// A kernel of flash attention: the rules only ask whether it was compiled.
template <int D, ggml_type type_K, ggml_type type_V>
static void ggml_cuda_flash_attn_ext_vec_case(ggml_backend_cuda_context &, ggml_tensor *) {}

static const char * host_buffer_name(ggml_backend_buffer_type_t) {
    return GGML_CUDA_NAME "_Host";
}

static bool ggml_backend_buft_is_cuda_host(ggml_backend_buffer_type_t type) {
    return type->iface.get_name == host_buffer_name;
}

#include "rules.inc"

// Buffers have a size and an address, and no memory.

static void free_buffer(ggml_backend_buffer_t) {}

static void * buffer_base(ggml_backend_buffer_t) {
    return (void *) 0x1000;
}

static void set_tensor(ggml_backend_buffer_t, ggml_tensor *, const void *, size_t, size_t) {}

static void get_tensor(ggml_backend_buffer_t, const ggml_tensor *, void *, size_t, size_t) {}

static void clear_buffer(ggml_backend_buffer_t, uint8_t) {}

static ggml_backend_buffer_t allocate_nothing(ggml_backend_buffer_type_t type, size_t size) {
    ggml_backend_buffer_i interface = {};
    interface.free_buffer = free_buffer;
    interface.get_base    = buffer_base;
    interface.set_tensor  = set_tensor;
    interface.get_tensor  = get_tensor;
    interface.clear       = clear_buffer;
    return ggml_backend_buffer_init(type, interface, nullptr, size);
}

// The context writes its outputs' initial values to the host, a few megabytes.
static ggml_backend_buffer_t allocate_on_host(ggml_backend_buffer_type_t type, size_t size) {
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), size);
    buffer->buft = type;
    return buffer;
}

// A device, its buffer type and the type of pinned host buffers.

static ggml_backend_dev_t device_at(int index);

static ggml_backend_buffer_type_t device_buffer_type(ggml_backend_dev_t device) {
    static std::unordered_map<int, ggml_backend_buffer_type> types;
    const int index = ((ggml_backend_cuda_device_context *) device->context)->device;

    if (types.find(index) == types.end()) {
        ggml_backend_buffer_type type = {};
        type.iface.get_name       = ggml_backend_cuda_buffer_type_get_name;
        type.iface.alloc_buffer   = allocate_nothing;
        type.iface.get_alignment  = ggml_backend_cuda_buffer_type_get_alignment;
        type.iface.get_alloc_size = ggml_backend_cuda_buffer_type_get_alloc_size;
        type.device  = device;
        type.context = new ggml_backend_cuda_buffer_type_context{index, GGML_CUDA_NAME + std::to_string(index)};
        types[index] = type;
    }
    return &types[index];
}

static ggml_backend_buffer_type_t host_buffer_type(ggml_backend_dev_t) {
    static ggml_backend_buffer_type type = [] {
        ggml_backend_buffer_type host = {};
        const ggml_backend_buffer_type_i & cpu = ggml_backend_cpu_buffer_type()->iface;
        host.iface.get_name       = host_buffer_name;
        host.iface.alloc_buffer   = allocate_on_host;
        host.iface.get_alignment  = cpu.get_alignment;
        host.iface.get_max_size   = ggml_backend_cuda_host_buffer_type_get_max_size;
        host.iface.get_alloc_size = cpu.get_alloc_size;
        host.iface.is_host        = cpu.is_host;
        host.device = device_at(0);
        return host;
    }();
    return &type;
}

static const char * device_name(ggml_backend_dev_t device) {
    return ((ggml_backend_cuda_device_context *) device->context)->name.c_str();
}

static void device_memory(ggml_backend_dev_t, size_t * free, size_t * total) {
    *free  = settings.free_bytes;
    *total = settings.total_bytes;
}

static enum ggml_backend_dev_type device_type(ggml_backend_dev_t) {
    return GGML_BACKEND_DEVICE_TYPE_GPU;
}

static void device_props(ggml_backend_dev_t device, ggml_backend_dev_props * props) {
    auto * context = (ggml_backend_cuda_device_context *) device->context;
    props->name        = context->name.c_str();
    props->description = context->description.c_str();
    props->type        = GGML_BACKEND_DEVICE_TYPE_GPU;
    props->device_id   = context->pci_bus_id.c_str();
    device_memory(device, &props->memory_free, &props->memory_total);

    // ggml-cuda.cu: ggml_backend_cuda_device_get_props, with peer copies and pinned memory.
    props->caps.async       = true;
    props->caps.host_buffer = true;
    props->caps.events      = true;
}

// A stream of work on a device. The no_alloc pass computes nothing, so most calls are never made.

static ggml_guid_t backend_guid() {
    static ggml_guid guid = {0x72, 0x65, 0x66, 0x65, 0x72, 0x65, 0x65, 0x2d, 0x63, 0x75, 0x64, 0x61, 0x2d, 0x30, 0x30, 0x31};
    return &guid;
}

static const char * backend_name(ggml_backend_t backend) {
    return device_name(backend->device);
}

static void free_backend(ggml_backend_t backend) {
    delete (ggml_backend_cuda_context *) backend->context;
    delete backend;
}

static bool copy_tensor(ggml_backend_t, ggml_backend_t, const ggml_tensor *, ggml_tensor *) {
    return true;
}

static void synchronize(ggml_backend_t) {}

static ggml_status compute(ggml_backend_t, ggml_cgraph *) {
    return GGML_STATUS_FAILED;
}

static void use_event(ggml_backend_t, ggml_backend_event_t) {}

static ggml_backend_t init_backend(ggml_backend_dev_t device, const char *) {
    ggml_backend_i interface = {};
    interface.get_name         = backend_name;
    interface.free             = free_backend;
    interface.cpy_tensor_async = copy_tensor;
    interface.synchronize      = synchronize;
    interface.graph_compute    = compute;
    interface.event_record     = use_event;
    interface.event_wait       = use_event;
    interface.graph_optimize   = ggml_backend_cuda_graph_optimize;

    auto * context = new ggml_backend_cuda_context;
    context->device = ((ggml_backend_cuda_device_context *) device->context)->device;
    return new ggml_backend{backend_guid(), interface, device, context};
}

static ggml_backend_event_t new_event(ggml_backend_dev_t device) {
    return new ggml_backend_event{device, nullptr};
}

static void free_event(ggml_backend_dev_t, ggml_backend_event_t event) {
    delete event;
}

static void wait_for_event(ggml_backend_dev_t, ggml_backend_event_t) {}

// The registry's entry.

static std::vector<ggml_backend_dev_t> devices;

static ggml_backend_dev_t device_at(int index) {
    return devices.at(index);
}

static const char * registry_name(ggml_backend_reg_t) {
    return GGML_CUDA_NAME;
}

static size_t registry_devices(ggml_backend_reg_t) {
    return devices.size();
}

static ggml_backend_dev_t registry_device(ggml_backend_reg_t, size_t index) {
    return devices.at(index);
}

static void * registry_function(ggml_backend_reg_t, const char *) {
    return nullptr;
}

static ggml_backend_device_i device_interface() {
    ggml_backend_device_i interface = {};
    interface.get_name             = device_name;
    interface.get_description      = device_name;
    interface.get_memory           = device_memory;
    interface.get_type             = device_type;
    interface.get_props            = device_props;
    interface.init_backend         = init_backend;
    interface.get_buffer_type      = device_buffer_type;
    interface.get_host_buffer_type = host_buffer_type;
    interface.supports_op          = ggml_backend_cuda_device_supports_op;
    interface.supports_buft        = ggml_backend_cuda_device_supports_buft;
    interface.offload_op           = ggml_backend_cuda_device_offload_op;
    interface.event_new            = new_event;
    interface.event_free           = free_event;
    interface.event_synchronize    = wait_for_event;
    return interface;
}

void register_simulated_devices(const simulated_devices & wanted) {
    static ggml_backend_reg registry = {};
    settings = wanted;

    registry.api_version            = GGML_BACKEND_API_VERSION;
    registry.iface.get_name         = registry_name;
    registry.iface.get_device_count = registry_devices;
    registry.iface.get_device       = registry_device;
    registry.iface.get_proc_address = registry_function;

    for (int index = 0; index < wanted.count; index++) {
        device_properties properties;
        properties.cc = wanted.compute_capability;
        table.devices.push_back(properties);

        auto * context = new ggml_backend_cuda_device_context;
        context->device                    = index;
        context->name                      = GGML_CUDA_NAME + std::to_string(index);
        context->description               = "simulated";
        context->pci_bus_id                = "0000:0" + std::to_string(index) + ":00.0";
        context->op_offload_min_batch_size = ggml_cuda_op_offload_min_batch();
        devices.push_back(new ggml_backend_device{device_interface(), &registry, context});
    }
    ggml_backend_register(&registry);
}
