//! The figures of device memory.

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{DeviceKind, LinkKind, WarningReason, declared};
use simulated_nvml::{Gpu, HolderKind, Process, Scenario, codes, profiles};

use super::{Machine, reason, reasons};

#[test]
fn idle_h100_figures_are_exact() {
    let machine = Machine::new(&Scenario::of([profiles::h100_80()]));
    machine
        .host
        .gpu("0000:01:00.0", "NVIDIA H100 80GB HBM3", "GPU-x", "active")
        .unwrap();
    let snapshot = machine.read();
    assert_eq!(snapshot.source, "nvml");
    assert_eq!(snapshot.driver_version.as_deref(), Some("590.44.01"));
    assert_eq!(snapshot.host.unwrap().total_bytes, Bytes::gib(128));
    let device = &snapshot.devices[0];
    assert_eq!(device.facts.total_bytes, Bytes::new(85_520_809_984));
    assert_eq!(device.facts.reserved_bytes, Some(Bytes::mib(479)));
    assert_eq!(device.free_bytes, Some(Bytes::mib(81_559 - 479)));
    assert_eq!(device.used_bytes, Some(Bytes::ZERO));
    assert_eq!(device.facts.capability(), Some(90));
    assert_eq!(device.facts.multiprocessors, Some(132));
    assert_eq!(device.facts.pci_bus_id.as_deref(), Some("0000:01:00.0"));
    assert_eq!(device.facts.numa_node, Some(1));
    assert_eq!(reason(device), "usable");
    let written = serde_json::to_string(&snapshot).unwrap();
    assert_eq!(
        serde_json::to_string(&declared::from_json(&written).unwrap().snapshot).unwrap(),
        written
    );
}

#[test]
fn v1_free_equals_v2_free() {
    let mut gpu = profiles::a100_80().used(8 << 20);
    let by_v2 = Machine::new(&Scenario::of([gpu.clone()])).read_device();

    for code in [
        codes::FUNCTION_NOT_FOUND,
        codes::ARGUMENT_VERSION_MISMATCH,
        codes::UNKNOWN,
    ] {
        gpu.memory.v2_code = Some(code);
        let by_v1 = Machine::new(&Scenario::of([gpu.clone()])).read_device();
        assert_eq!(by_v1.free_bytes, by_v2.free_bytes);
        assert_eq!(by_v1.facts.reserved_bytes, None);
        assert_eq!(by_v1.facts.total_bytes, by_v2.facts.total_bytes);
    }
}

/// A pass either sees an allocation both in the process and in the free memory, or in neither.
#[test]
fn allocation_during_pass_counts_once() {
    let mut gpu = profiles::a100_80();
    gpu.processes.push(Process {
        pid: 7,
        used_bytes: Some(8 << 30),
        kinds: vec![HolderKind::Compute],
    });

    gpu.memory.taken_at_listing_bytes = 8 << 30;
    let device = Machine::new(&Scenario::of([gpu])).read_device();
    assert_eq!(device.processes.len(), 1);
    assert_eq!(device.free_bytes, Some(Bytes::mib(81_920 - 862 - 8192)));
}

#[test]
fn library_without_newer_symbols_works() {
    let gpu = profiles::a100_80().process(7, 1 << 30, HolderKind::Compute);
    let missing = [
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetGpuFabricInfo",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetNumGpuCores",
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetNvLinkState",
    ];

    let machine = Machine::without(&Scenario::repeated(2, &gpu), &missing);
    let snapshot = machine.read();
    assert_eq!(
        snapshot.devices[1].free_bytes,
        Some(Bytes::mib(81_920 - 862 - 1024))
    );
    assert_eq!(snapshot.devices[1].facts.multiprocessors, None);
    assert!(snapshot.devices[1].processes.is_empty());
    assert_eq!(snapshot.links[0].kind, LinkKind::System);

    // The mode is exclusive and the holder is unknown, so the device is unusable.
    let machine = Machine::without(
        &Scenario::of([profiles::t4().compute_mode(3)]),
        &missing[1..2],
    );
    assert_eq!(reason(&machine.read_device()), "exclusive_process");
}

#[test]
fn unified_memory_needs_evidence() {
    let device = Machine::new(&Scenario::of([profiles::gb10()])).read_device();
    assert_eq!(device.facts.kind, DeviceKind::UnifiedMemory);
    assert_eq!(device.facts.total_bytes, Bytes::gib(128));
    assert_eq!(device.free_bytes, Some(Bytes::gib(120)));
    assert_eq!(device.margin_bytes, Bytes::gib(2));
    let mut zeroes = profiles::gb10();
    (zeroes.memory.v1_code, zeroes.memory.v2_code) = (None, None);

    assert_eq!(
        Machine::new(&Scenario::of([zeroes]))
            .read_device()
            .facts
            .kind,
        DeviceKind::UnifiedMemory
    );

    let mut discrete = profiles::l40s();
    discrete.memory.v1_code = Some(codes::NOT_SUPPORTED);
    discrete.memory.v2_code = Some(codes::NOT_SUPPORTED);
    let device = Machine::new(&Scenario::of([discrete])).read_device();
    assert_eq!(
        (reason(&device), device.free_bytes),
        ("memory_unreadable", None)
    );
    let mut faulty = profiles::gb10();
    faulty.memory.v1_code = Some(codes::UNKNOWN);
    assert_eq!(
        Machine::new(&Scenario::of([faulty]))
            .read_device()
            .free_bytes,
        None
    );
}

/// Returns the warning about page cache on a host whose NUMA node 4 has these files.
fn page_cache_warning(gpu: Gpu, files: &[(&str, &str)]) -> Option<String> {
    let machine = Machine::new(&Scenario::of([Gpu {
        numa_node: Some(4),
        ..gpu
    }
    .used(5 << 30)]));
    for (name, text) in files {
        machine
            .host
            .write(&format!("sys/devices/system/node/node4/{name}"), text)
            .unwrap();
    }

    let device = machine.read_device();
    assert_eq!(
        device.used_bytes,
        Some(Bytes::gib(5)),
        "page cache counts as used"
    );

    device
        .warnings
        .into_iter()
        .find(|warning| warning.reason == WarningReason::PageCache)
        .map(|warning| warning.message)
}

#[test]
fn page_cache_warns_on_grace_only() {
    let meminfo_line = |name: &str, gib: u64| format!("Node 4 {name}:  {} kB\n", gib << 20);
    let (three, six) = (meminfo_line("FilePages", 3), meminfo_line("FilePages", 6));
    let grace = [
        ("cpulist", "\n"),
        ("meminfo", &*(meminfo_line("MemTotal", 94) + &three)),
    ];
    let message = page_cache_warning(profiles::gh200(), &grace).unwrap();
    assert!(message.starts_with("3.00 GiB"), "{message}");
    assert!(page_cache_warning(profiles::h200(), &[("meminfo", &*three)]).is_some());
    assert_eq!(page_cache_warning(profiles::gh200(), &[]), None);

    // Some drivers report the node of the host's own memory.
    for gpu in [profiles::t4(), profiles::a100_80()] {
        assert_eq!(
            page_cache_warning(gpu, &[("meminfo", &*three)]),
            None,
            "Grace has no GPU before Hopper"
        );
    }

    assert_eq!(
        page_cache_warning(
            profiles::h200(),
            &[("cpulist", "0-71\n"), ("meminfo", &*three)]
        ),
        None
    );

    assert_eq!(
        page_cache_warning(
            profiles::h200(),
            &[("meminfo", &*(meminfo_line("MemTotal", 512) + &three))]
        ),
        None
    );

    assert_eq!(
        page_cache_warning(profiles::h200(), &[("meminfo", &*six)]),
        None,
        "more page cache than used memory"
    );
}

#[test]
fn impossible_figures_are_rejected() {
    let mut gpu = profiles::l40s();
    gpu.memory.used_bytes = u64::MAX / 2;
    let device = Machine::new(&Scenario::of([gpu])).read_device();
    assert_eq!(
        (reason(&device), device.free_bytes),
        ("memory_unreadable", None)
    );

    // Early R535 drivers returned process entries of another layout, with impossible PIDs.
    let shuffled =
        profiles::t4()
            .compute_mode(3)
            .process(u32::MAX - 1, 1 << 20, HolderKind::Compute);
    let device = Machine::new(&Scenario::of([shuffled])).read_device();

    assert!(device.processes.is_empty());
    assert_eq!(reason(&device), "exclusive_process");
    assert!(device.unusable.unwrap().message.contains("unreadable"));
}

#[test]
fn host_memory_counts_once() {
    let devices = Machine::new(&Scenario::of([profiles::gb10(), profiles::gb10()]))
        .read()
        .devices;
    assert_eq!(reasons(&devices), ["usable", "shared_pool"]);

    // An instance of an integrated GPU does not report the memory of the whole host.
    let mut part = profiles::h100_mig("1g.10gb", 1, 0);
    (part.memory.v1_code, part.memory.v2_code) =
        (Some(codes::NOT_SUPPORTED), Some(codes::NOT_SUPPORTED));

    let thor = Gpu {
        name: "NVIDIA Thor".to_owned(),
        ..profiles::gb10()
    }
    .mig([Some(part)]);
    let machine = Machine::new(&Scenario::of([thor]));
    machine
        .host
        .write(
            "proc/device-tree/compatible",
            "nvidia,p3834\0nvidia,tegra264\0",
        )
        .unwrap();

    let devices = machine.read().devices;
    assert_eq!(reasons(&devices), ["mig_parent", "memory_unreadable"]);
    assert_eq!(devices[1].free_bytes, None);
}

#[test]
fn display_gpu_gets_margin() {
    let device = Machine::new(&Scenario::of([Gpu {
        display_active: true,
        ..profiles::rtx_4090()
    }]))
    .read_device();
    assert_eq!(device.margin_bytes, Bytes::mib(512));
}
