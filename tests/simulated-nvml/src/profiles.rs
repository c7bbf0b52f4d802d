//! Real cards, with the figures that NVML was seen to report for them.
//!
//! The figures are in MiB. Each card names its source.

use crate::scenario::{Fabric, Fault, Gpu, Memory, Mig, MigInstance, RemappedRows, codes};

const MIB: u64 = 1 << 20;

fn card(
    name: &str,
    total_mib: u64,
    reserved_mib: u64,
    compute_capability: (i32, i32),
    cores: u32,
) -> Gpu {
    Gpu {
        name: name.to_owned(),
        memory: Memory {
            total_bytes: total_mib * MIB,
            reserved_bytes: reserved_mib * MIB,
            ..Memory::default()
        },
        compute_capability,
        cores: Some(cores),
        ..Gpu::default()
    }
}

/// H100 80GB SXM: total 85520809984 B, reserved 479 MiB, used 0 (R590).
///
/// Source: captures of utkuozdemir/nvidia_gpu_exporter.
pub fn h100_80() -> Gpu {
    Gpu {
        mig: Some(Mig::default()),
        fabric: Some(Fabric {
            state: 3,
            status: 0,
        }),
        remapped_rows: Some(RemappedRows::default()),
        recovery_action: Some(0),
        ..card("NVIDIA H100 80GB HBM3", 81_559, 479, (9, 0), 16_896)
    }
}

/// A MIG device of an H100 80GB: `3g.40gb` 40448, `2g.20gb` 20096, `1g.10gb` 9984 MiB, reserve 0.
///
/// Source: the captures of [`h100_80`].
pub fn h100_mig(profile: &str, gpu_instance: u32, compute_instance: u32) -> MigInstance {
    let (total_mib, multiprocessors) = match profile {
        "3g.40gb" => (40_448, 60),
        "2g.20gb" => (20_096, 32),
        _ => (9_984, 16),
    };

    MigInstance {
        uuid: format!("MIG-00000000-0000-4000-8000-{gpu_instance:06x}{compute_instance:06x}"),
        name: format!("NVIDIA H100 80GB HBM3 MIG {profile}"),
        gpu_instance,
        compute_instance,
        memory: Memory {
            total_bytes: total_mib * MIB,
            ..Memory::default()
        },
        multiprocessors,
        processes: Vec::new(),
    }
}

/// A100 80GB: 81920 MiB, reserve about 900 MB.
///
/// v1 reported 912 MB used, v2 7.8 MB (rust-nvml/nvml-wrapper#57).
pub fn a100_80() -> Gpu {
    Gpu {
        mig: Some(Mig::default()),
        ..card("NVIDIA A100-SXM4-80GB", 81_920, 862, (8, 0), 6_912)
    }
}

/// H200: 143771 MiB, reserved 614 (R590).
pub fn h200() -> Gpu {
    Gpu {
        mig: Some(Mig::default()),
        ..card("NVIDIA H200", 143_771, 614, (9, 0), 16_896)
    }
}

/// L40S: 46068 MiB, reserved 609 (R595).
pub fn l40s() -> Gpu {
    card("NVIDIA L40S", 46_068, 609, (8, 9), 18_176)
}

/// RTX 4090: 24564 MiB (RLinf/RLinf#255).
///
/// Its reserve is unknown; this is the reserve of a 4080 SUPER.
pub fn rtx_4090() -> Gpu {
    card("NVIDIA GeForce RTX 4090", 24_564, 434, (8, 9), 16_384)
}

/// RTX 2080 SUPER: 8192 MiB, reserved 408 (R595).
pub fn rtx_2080_super() -> Gpu {
    card("NVIDIA GeForce RTX 2080 SUPER", 8_192, 408, (7, 5), 3_072)
}

/// Tesla T4: 15360 MiB; its reserve is unknown, this one is invented.
pub fn t4() -> Gpu {
    card("Tesla T4", 15_360, 453, (7, 5), 2_560)
}

/// GB10 (DGX Spark): both memory calls answer NOT_SUPPORTED (XuehaiPan/nvitop#208).
pub fn gb10() -> Gpu {
    let mut gpu = card("NVIDIA GB10", 0, 0, (12, 1), 6_144);
    gpu.memory.v1_code = Some(codes::NOT_SUPPORTED);
    gpu.memory.v2_code = Some(codes::NOT_SUPPORTED);
    gpu
}

/// B200: 183359 MiB; CUDA sees 717 MiB less (modal.com/gpu-glossary).
pub fn b200() -> Gpu {
    Gpu {
        mig: Some(Mig::default()),
        ..card("NVIDIA B200", 183_359, 717, (10, 0), 18_944)
    }
}

/// RTX PRO 6000 Blackwell: 97887 MiB, of which CUDA sees 97247 (ggml-org/llama.cpp#23604).
pub fn rtx_pro_6000() -> Gpu {
    card(
        "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
        97_887,
        640,
        (12, 0),
        24_064,
    )
}

/// L4: 23034 MiB; its reserve is unknown, this is the reserve of an A10G.
pub fn l4() -> Gpu {
    card("NVIDIA L4", 23_034, 513, (8, 9), 7_424)
}

/// GH200 in NUMA mode: 97871 MiB, its memory is a NUMA node of the host.
pub fn gh200() -> Gpu {
    Gpu {
        numa_node: Some(4),
        ..card("NVIDIA GH200 480GB", 97_871, 600, (9, 0), 16_896)
    }
}

/// The view of a vGPU guest: the profile's frame buffer; most calls answer NOT_SUPPORTED.
pub fn vgpu_8() -> Gpu {
    let mut gpu = card("GRID V100D-8C", 8_192, 560, (7, 0), 5_120);
    gpu.cores = None;

    for symbol in [
        "nvmlDeviceGetComputeMode",
        "nvmlDeviceGetDisplayActive",
        "nvmlDeviceQueryDrainState",
    ] {
        gpu = gpu.fault(symbol, Fault::code(codes::NOT_SUPPORTED));
    }

    gpu
}
