//! What the reader makes of each kind of machine, through the real nvml-wrapper on the simulated
//! library.
#![expect(clippy::unwrap_used, reason = "the helpers of tests may fail them")]

use std::time::Duration;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{
    Device, DeviceKind, LinkKind, ProcessKind, Snapshot, WarningReason, declared,
};
use hf_mem_probe::devices::holders::HostRoots;
use hf_mem_probe::devices::nvml::NvmlOptions;
use hf_mem_probe::devices::sampler::read_once;
use simulated_nvml::{
    Fabric, FakeHost, Fault, Gpu, HolderKind, NvLink, Process, RemappedRows, Scenario,
    SimulatedDriver, codes, profiles,
};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(20);

/// A directory with a driver and a host in it.
struct Machine {
    directory: TempDir,
    driver: SimulatedDriver,
    host: FakeHost,
}

impl Machine {
    fn new(scenario: &Scenario) -> Self {
        Self::without(scenario, &[])
    }

    fn without(scenario: &Scenario, symbols: &[&str]) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let driver = SimulatedDriver::install_without(directory.path(), scenario, symbols).unwrap();
        let host = FakeHost::new(&directory.path().join("host")).unwrap();

        Self {
            directory,
            driver,
            host,
        }
    }

    fn options(&self) -> NvmlOptions {
        NvmlOptions {
            library: Some(self.driver.library().to_owned()),
            roots: HostRoots::under(self.host.root()),
            ..NvmlOptions::default()
        }
    }

    fn read(&self) -> Snapshot {
        read_once(&self.options(), DEADLINE).unwrap()
    }

    fn only(&self) -> Device {
        let mut devices = self.read().devices;
        assert_eq!(devices.len(), 1);
        devices.remove(0)
    }
}

fn reason(device: &Device) -> &str {
    device
        .unusable
        .as_ref()
        .map_or("usable", |why| why.reason.as_str())
}

fn reason_of(gpu: Gpu) -> String {
    reason(&Machine::new(&Scenario::of([gpu])).only()).to_owned()
}

#[test]
fn an_idle_h100_is_read_to_the_byte() {
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
fn v1_gives_the_same_free_and_an_unknown_reserve() {
    let mut gpu = profiles::a100_80().used(8 << 20);
    let second = Machine::new(&Scenario::of([gpu.clone()])).only();

    for code in [
        codes::FUNCTION_NOT_FOUND,
        codes::ARGUMENT_VERSION_MISMATCH,
        codes::UNKNOWN,
    ] {
        gpu.memory.v2_code = Some(code);
        let first = Machine::new(&Scenario::of([gpu.clone()])).only();
        assert_eq!(first.free_bytes, second.free_bytes);
        assert_eq!(first.facts.reserved_bytes, None);
        assert_eq!(first.facts.total_bytes, second.facts.total_bytes);
    }
}

/// What a process takes while a pass goes on is either seen with it and gone from the free memory,
/// or neither.
#[test]
fn memory_that_is_taken_during_a_pass_is_never_both_free_and_held() {
    let mut gpu = profiles::a100_80();
    gpu.processes.push(Process {
        pid: 7,
        used_bytes: Some(8 << 30),
        kinds: vec![HolderKind::Compute],
    });

    gpu.memory.taken_at_listing_bytes = 8 << 30;
    let device = Machine::new(&Scenario::of([gpu])).only();
    assert_eq!(device.processes.len(), 1);
    assert_eq!(device.free_bytes, Some(Bytes::mib(81_920 - 862 - 8192)));
}

#[test]
fn a_library_without_newer_symbols_still_works() {
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

    // Exclusive, and who holds it cannot be told: not to be used.
    let machine = Machine::without(
        &Scenario::of([profiles::t4().compute_mode(3)]),
        &missing[1..2],
    );
    assert_eq!(reason(&machine.only()), "exclusive_process");
}

#[test]
fn unified_memory_only_where_there_is_evidence() {
    let device = Machine::new(&Scenario::of([profiles::gb10()])).only();
    assert_eq!(device.facts.kind, DeviceKind::UnifiedMemory);
    assert_eq!(device.facts.total_bytes, Bytes::gib(128));
    assert_eq!(device.free_bytes, Some(Bytes::gib(120)));
    assert_eq!(device.margin_bytes, Bytes::gib(2));
    let mut zeroes = profiles::gb10();
    (zeroes.memory.v1_code, zeroes.memory.v2_code) = (None, None);

    assert_eq!(
        Machine::new(&Scenario::of([zeroes])).only().facts.kind,
        DeviceKind::UnifiedMemory
    );

    let mut discrete = profiles::l40s();
    discrete.memory.v1_code = Some(codes::NOT_SUPPORTED);
    discrete.memory.v2_code = Some(codes::NOT_SUPPORTED);
    let device = Machine::new(&Scenario::of([discrete])).only();
    assert_eq!(
        (reason(&device), device.free_bytes),
        ("memory_unreadable", None)
    );
    let mut sick = profiles::gb10();
    sick.memory.v1_code = Some(codes::UNKNOWN);
    assert_eq!(Machine::new(&Scenario::of([sick])).only().free_bytes, None);
}

#[test]
fn mig_instances_stand_for_their_card() {
    let mut shared = profiles::h100_mig("3g.40gb", 1, 0);
    shared.memory.used_bytes = 16_925 << 20;

    shared.processes = vec![Process {
        pid: 7,
        used_bytes: Some(1 << 30),
        kinds: vec![HolderKind::Compute],
    }];

    let mut other = profiles::h100_mig("3g.40gb", 1, 1);
    other.memory.used_bytes = 16_925 << 20;
    other.multiprocessors = 16;

    other.processes = vec![Process {
        pid: 8,
        used_bytes: Some(1 << 30),
        kinds: vec![HolderKind::Compute],
    }];

    let slots = [
        None,
        Some(other),
        None,
        Some(shared),
        None,
        Some(profiles::h100_mig("1g.10gb", 9, 0)),
    ];
    let machine = Machine::new(&Scenario::of([
        profiles::h100_80().mig(slots),
        profiles::h100_80(),
    ]));
    let snapshot = machine.read();
    let reasons: Vec<_> = snapshot.devices.iter().map(reason).collect();
    assert_eq!(reasons, ["mig_parent", "usable", "usable", "usable"]);
    let three = &snapshot.devices[1];
    assert_eq!(three.facts.kind, DeviceKind::MigInstance);

    assert_eq!(
        three.facts.parent_uuid.as_ref(),
        Some(&snapshot.devices[0].facts.uuid)
    );
    assert_eq!(three.facts.total_bytes, Bytes::mib(40_448));
    assert_eq!(three.free_bytes, Some(Bytes::mib(40_448 - 16_925)));
    assert_eq!(three.facts.multiprocessors, Some(60));
    assert_eq!(three.processes.len(), 2);

    assert!(
        snapshot.devices[0].processes.is_empty(),
        "its instances list them"
    );
    assert_eq!(snapshot.devices[2].facts.total_bytes, Bytes::mib(9_984));

    let refused = profiles::h100_80().mig([Some(profiles::h100_mig("2g.20gb", 3, 0))]);
    let mut refused = Scenario::of([refused]);
    refused.devices[0].memory.v2_code = Some(codes::NO_PERMISSION);
    let devices = Machine::new(&refused).read().devices;
    assert_eq!(
        devices.iter().map(reason).collect::<Vec<_>>(),
        ["mig_parent", "usable"]
    );

    assert_eq!(
        reason_of(profiles::h100_80().mig([None, None])),
        "mig_without_instances"
    );
}

#[test]
fn a_device_may_be_free_and_yet_not_usable() {
    assert_eq!(reason_of(profiles::t4().compute_mode(2)), "prohibited");
    assert_eq!(reason_of(profiles::t4().compute_mode(3)), "usable");
    let held = profiles::t4()
        .compute_mode(3)
        .process(9, 100 << 20, HolderKind::Compute);
    assert_eq!(reason_of(held), "exclusive_process");

    assert_eq!(
        reason_of(profiles::t4().compute_mode(3).used(200 << 20)),
        "exclusive_process"
    );
    let desktop = profiles::t4()
        .compute_mode(3)
        .process(9, 200 << 20, HolderKind::Graphics);
    assert_eq!(reason_of(desktop), "usable");

    for (state, status, expected) in [
        (0, 0, "usable"),
        (1, 0, "fabric_not_ready"),
        (2, 0, "fabric_not_ready"),
        (3, 0, "usable"),
        (3, 999, "fabric_not_ready"),
    ] {
        assert_eq!(
            reason_of(Gpu {
                fabric: Some(Fabric { state, status }),
                ..profiles::h100_80()
            }),
            expected
        );
    }

    let rows = |pending, failure| Gpu {
        remapped_rows: Some(RemappedRows { pending, failure }),
        ..profiles::h100_80()
    };

    assert_eq!(reason_of(rows(true, false)), "usable");
    assert_eq!(reason_of(rows(true, true)), "row_remap_failure");

    assert_eq!(
        reason_of(Gpu {
            drained: true,
            ..profiles::h100_80()
        }),
        "drain"
    );

    assert_eq!(
        reason_of(Gpu {
            recovery_action: Some(1),
            ..profiles::h100_80()
        }),
        "reset_required"
    );
}

#[test]
fn what_forbids_nothing_is_said() {
    let warnings = |machine: &Machine| -> Vec<String> {
        machine
            .only()
            .warnings
            .iter()
            .map(|warning| warning.reason.to_string())
            .collect()
    };

    let pending = Gpu {
        remapped_rows: Some(RemappedRows {
            pending: true,
            failure: false,
        }),
        ..profiles::h100_80()
    };

    assert_eq!(
        warnings(&Machine::new(&Scenario::of([pending]))),
        ["row_remap_pending"]
    );
    let mut mig = profiles::h100_80();
    mig.mig.as_mut().unwrap().pending = true;

    assert_eq!(
        warnings(&Machine::new(&Scenario::of([mig]))),
        ["mig_pending"]
    );

    // A GeForce may answer the question for remapped rows, and mean nothing by it.
    let geforce = Gpu {
        remapped_rows: Some(RemappedRows {
            pending: true,
            failure: true,
        }),
        ..profiles::rtx_4090()
    };

    let machine = Machine::new(&Scenario::of([geforce]));
    assert_eq!(
        (warnings(&machine), reason(&machine.only())),
        (vec![], "usable")
    );
}

/// The page cache that a device's warning names, on a host whose node 4 has these files.
fn page_cache(gpu: Gpu, files: &[(&str, &str)]) -> Option<String> {
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

    let device = machine.only();
    assert_eq!(
        device.used_bytes,
        Some(Bytes::gib(5)),
        "page cache counts as in use"
    );

    device
        .warnings
        .into_iter()
        .find(|warning| warning.reason == WarningReason::PageCache)
        .map(|warning| warning.message)
}

#[test]
fn page_cache_is_claimed_of_grace_only() {
    let gib = |name: &str, gib: u64| format!("Node 4 {name}:  {} kB\n", gib << 20);
    let (three, six) = (gib("FilePages", 3), gib("FilePages", 6));
    let grace = [
        ("cpulist", "\n"),
        ("meminfo", &*(gib("MemTotal", 94) + &three)),
    ];
    let message = page_cache(profiles::gh200(), &grace).unwrap();
    assert!(message.starts_with("3.00 GiB"), "{message}");
    assert!(page_cache(profiles::h200(), &[("meminfo", &*three)]).is_some());
    assert_eq!(page_cache(profiles::gh200(), &[]), None);

    // The node of the host's own memory, which some drivers answer with.
    for gpu in [profiles::t4(), profiles::a100_80()] {
        assert_eq!(
            page_cache(gpu, &[("meminfo", &*three)]),
            None,
            "no card before Hopper is on Grace"
        );
    }

    assert_eq!(
        page_cache(
            profiles::h200(),
            &[("cpulist", "0-71\n"), ("meminfo", &*three)]
        ),
        None
    );

    assert_eq!(
        page_cache(
            profiles::h200(),
            &[("meminfo", &*(gib("MemTotal", 512) + &three))]
        ),
        None
    );

    assert_eq!(
        page_cache(profiles::h200(), &[("meminfo", &*six)]),
        None,
        "more than is in use"
    );
}

#[test]
fn unreadable_name_costs_only_name() {
    for gpu in [
        Gpu {
            name: "x".repeat(5000),
            ..profiles::l40s()
        },
        profiles::l40s().fault("nvmlDeviceGetName", Fault::code(codes::UNKNOWN)),
    ] {
        let device = Machine::new(&Scenario::of([gpu])).only();
        assert_eq!(
            (reason(&device), device.facts.name.as_str()),
            ("usable", "GPU 0 (unreadable)")
        );
        assert!(device.free_bytes.is_some());
        assert_eq!(device.warnings[0].reason, WarningReason::NameUnreadable);
    }

    let lost = profiles::l40s().fault("nvmlDeviceGetName", Fault::code(codes::GPU_IS_LOST));
    assert_eq!(reason_of(lost), "gpu_lost");

    // A UUID is the key of everything: without one there is no device.
    let uuid = Gpu {
        uuid: format!("GPU-{}", "x".repeat(5000)),
        ..profiles::l40s()
    };

    assert_ne!(reason_of(uuid), "usable");
}

#[test]
fn second_device_of_uuid_is_unusable() {
    let same = || Gpu {
        uuid: "GPU-same".to_owned(),
        ..profiles::l40s()
    };

    let devices = Machine::new(&Scenario::of([same(), same()])).read().devices;
    assert_eq!(
        devices.iter().map(reason).collect::<Vec<_>>(),
        ["usable", "duplicate_uuid"]
    );
    assert_eq!(devices[1].warnings[0].reason, WarningReason::DuplicateUuid);

    assert_ne!(
        devices[0].facts.uuid, devices[1].facts.uuid,
        "every key is one device's"
    );

    let split = || profiles::h100_80().mig([Some(profiles::h100_mig("3g.40gb", 1, 0))]);
    let devices = Machine::new(&Scenario::of([split(), split()]))
        .read()
        .devices;
    let reasons: Vec<_> = devices.iter().map(reason).collect();
    assert_eq!(
        reasons,
        ["mig_parent", "usable", "mig_parent", "duplicate_uuid"]
    );
}

#[test]
fn processes_are_asked_with_buffer() {
    let gpu = profiles::l40s().process(4321, 1 << 30, HolderKind::Compute);
    let device = Machine::new(&Scenario::of([Gpu {
        empty_buffer_succeeds: true,
        ..gpu
    }]))
    .only();

    assert_eq!(
        device
            .processes
            .iter()
            .map(|process| process.pid)
            .collect::<Vec<_>>(),
        [4321]
    );

    // More than the first buffer holds.
    let many = (1..=200).fold(profiles::h200(), |gpu, pid| {
        gpu.process(pid, 1 << 20, HolderKind::Compute)
    });
    assert_eq!(
        Machine::new(&Scenario::of([many])).only().processes.len(),
        200
    );
}

#[test]
fn what_cannot_be_is_not_believed() {
    let mut gpu = profiles::l40s();
    gpu.memory.used_bytes = u64::MAX / 2;
    let device = Machine::new(&Scenario::of([gpu])).only();
    assert_eq!(
        (reason(&device), device.free_bytes),
        ("memory_unreadable", None)
    );

    // Process entries of another layout, as early R535 drivers gave them: no such PID can be.
    let shuffled =
        profiles::t4()
            .compute_mode(3)
            .process(u32::MAX - 1, 1 << 20, HolderKind::Compute);
    let device = Machine::new(&Scenario::of([shuffled])).only();

    assert!(device.processes.is_empty());
    assert_eq!(reason(&device), "exclusive_process");
    assert!(device.unusable.unwrap().message.contains("unreadable"));
}

#[test]
fn a_list_that_outgrows_every_buffer_is_unknown_and_not_empty() {
    let burst = Gpu {
        process_burst: true,
        ..profiles::l40s()
    };
    assert_eq!(reason_of(burst.clone()), "usable");
    assert_eq!(reason_of(burst.compute_mode(3)), "exclusive_process");
}

#[test]
fn an_exclusive_mode_closes_instances_that_are_held_and_no_others() {
    let mut held = profiles::h100_mig("3g.40gb", 1, 0);
    held.processes = vec![Process {
        pid: 7,
        used_bytes: Some(1 << 30),
        kinds: vec![HolderKind::Compute],
    }];

    let gpu = profiles::h100_80()
        .mig([Some(held), Some(profiles::h100_mig("2g.20gb", 3, 0))])
        .compute_mode(3);
    let devices = Machine::new(&Scenario::of([gpu])).read().devices;
    assert_eq!(
        devices.iter().map(reason).collect::<Vec<_>>(),
        ["mig_parent", "exclusive_process", "usable"]
    );
}

#[test]
fn the_hosts_memory_is_counted_once() {
    let devices = Machine::new(&Scenario::of([profiles::gb10(), profiles::gb10()]))
        .read()
        .devices;
    assert_eq!(
        devices.iter().map(reason).collect::<Vec<_>>(),
        ["usable", "shared_pool"]
    );

    // Instances of an integrated GPU are not each the whole of it.
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
    assert_eq!(
        devices.iter().map(reason).collect::<Vec<_>>(),
        ["mig_parent", "memory_unreadable"]
    );
    assert_eq!(devices[1].free_bytes, None);
}

#[test]
fn a_reset_that_is_due_forbids_the_instances_of_a_parent_that_may_not_be_read() {
    let gpu = Gpu {
        recovery_action: Some(1),
        ..profiles::h100_80()
    };

    let mut scenario = Scenario::of([gpu.mig([Some(profiles::h100_mig("2g.20gb", 3, 0))])]);
    scenario.devices[0].memory.v2_code = Some(codes::NO_PERMISSION);
    let devices = Machine::new(&scenario).read().devices;
    assert_eq!(
        devices.iter().map(reason).collect::<Vec<_>>(),
        ["mig_parent", "reset_required"]
    );
}

#[test]
fn an_mps_server_lets_others_in() {
    let gpu = profiles::t4()
        .compute_mode(3)
        .process(11, 30 << 20, HolderKind::Compute);
    let machine = Machine::new(&Scenario::of([gpu]));
    machine
        .host
        .process(11, "nvidia-cuda-mps", 0, "/system.slice/mps.service")
        .unwrap();
    assert_eq!(reason(&machine.only()), "usable");
}

#[test]
fn a_desktop_gets_its_margin() {
    let device = Machine::new(&Scenario::of([Gpu {
        display_active: true,
        ..profiles::rtx_4090()
    }]))
    .only();
    assert_eq!(device.margin_bytes, Bytes::mib(512));
}

#[test]
fn processes_are_named_once_and_believed_in_reason() {
    let mut gpu = profiles::l40s()
        .process(4121, 8 << 30, HolderKind::Compute)
        .used(9 << 30);
    gpu.processes[0].kinds.push(HolderKind::Graphics);

    gpu.processes.push(Process {
        pid: 50,
        used_bytes: None,
        kinds: vec![HolderKind::Mps],
    });

    gpu.processes.push(Process {
        pid: 51,
        used_bytes: Some(1 << 60),
        kinds: vec![HolderKind::Compute],
    });

    let machine = Machine::new(&Scenario::of([gpu]));
    let id = "ab".repeat(32);
    let cgroup = format!("/system.slice/docker-{id}.scope");
    machine.host.process(4121, "vllm", 1000, &cgroup).unwrap();
    let processes = machine.only().processes;
    assert_eq!(
        processes
            .iter()
            .map(|process| process.pid)
            .collect::<Vec<_>>(),
        [50, 51, 4121]
    );

    let vllm = &processes[2];
    assert_eq!(vllm.used_bytes, Some(Bytes::gib(8)));

    assert_eq!(
        (vllm.name.as_deref(), vllm.uid, vllm.user.as_deref()),
        (Some("vllm"), Some(1000), Some("ann"))
    );
    assert_eq!(vllm.container.as_deref(), Some("abababababab"));
    assert_eq!(vllm.cgroup.as_deref(), Some(cgroup.as_str()));

    assert_eq!(
        (vllm.start_ticks, vllm.kind),
        (Some(41_210), ProcessKind::Compute)
    );
    assert_eq!(
        (processes[0].used_bytes, processes[0].kind),
        (None, ProcessKind::Mps)
    );
    assert_eq!((processes[1].used_bytes, &processes[1].name), (None, &None));
}

#[test]
fn one_bad_gpu_never_voids_the_others() {
    let handle = "nvmlDeviceGetHandleByIndex_v2";
    let bad = [
        (profiles::l40s().lost(), "gpu_lost"),
        (
            profiles::l40s().fault(handle, Fault::code(codes::UNKNOWN)),
            "gpu_lost",
        ),
        (
            profiles::l40s().fault(handle, Fault::code(codes::NO_PERMISSION)),
            "no_permission",
        ),
        (
            profiles::l40s().fault(handle, Fault::code(codes::OPERATING_SYSTEM)),
            "no_permission",
        ),
        (
            profiles::l40s().fault("*", Fault::code(codes::RESET_REQUIRED)),
            "reset_required",
        ),
        (
            profiles::l40s().fault(
                "nvmlDeviceGetMemoryInfo_v2",
                Fault::code(codes::GPU_IS_LOST),
            ),
            "gpu_lost",
        ),
        (
            profiles::l40s().fault("nvmlDeviceGetComputeMode", Fault::code(codes::UNKNOWN)),
            "memory_unreadable",
        ),
    ];

    for (gpu, expected) in bad {
        let devices = Machine::new(&Scenario::of([profiles::l40s(), gpu, profiles::l40s()]))
            .read()
            .devices;
        assert_eq!(
            devices.iter().map(reason).collect::<Vec<_>>(),
            ["usable", expected, "usable"]
        );
        assert!(devices[2].free_bytes.is_some());
    }
}

#[test]
fn wiring() {
    let switched = Machine::new(&Scenario::repeated(8, &profiles::h100_80()).nvswitch(18)).read();
    assert_eq!(switched.links.len(), 28);

    assert!(
        switched
            .links
            .iter()
            .all(|link| link.kind == LinkKind::Fabric && link.lanes == Some(18))
    );

    assert!(
        switched
            .links
            .iter()
            .all(|link| link.peer_access == Some(true))
    );

    let mut pairs = Scenario::repeated(3, &profiles::a100_80());
    let bus_ids: Vec<_> = pairs
        .devices
        .iter()
        .map(|gpu| gpu.pci_bus_id.clone())
        .collect();

    let bridge = |to: &str| NvLink {
        remote_type: 0,
        remote_pci_bus_id: to.to_owned(),
    };

    pairs.devices[0].links = vec![bridge(&bus_ids[1]); 4];
    pairs.devices[1].links = vec![bridge(&bus_ids[0]); 4];
    pairs.ancestors = vec![(0, 2, 30), (1, 2, 40)];
    let links = Machine::new(&pairs).read().links;
    let kinds: Vec<_> = links
        .iter()
        .map(|link| (link.kind, link.lanes, link.peer_access))
        .collect();

    let expected = [
        (LinkKind::Fabric, Some(4), Some(false)),
        (LinkKind::HostBridge, None, Some(false)),
        (LinkKind::NumaNode, None, Some(false)),
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn a_sleeping_gpu_is_not_woken() {
    let machine = Machine::new(&Scenario::of([profiles::rtx_4090(), profiles::l40s()]));
    machine
        .host
        .gpu(
            "0000:01:00.0",
            "NVIDIA GeForce RTX 4090",
            "GPU-00000000-0000-4000-8000-000000000000",
            "suspended",
        )
        .unwrap();

    let device = machine.only();
    assert_eq!(
        (reason(&device), device.facts.name.as_str()),
        ("asleep", "NVIDIA GeForce RTX 4090")
    );

    assert_eq!(
        machine.driver.statistics().unwrap().inits,
        0,
        "the library must not even be opened"
    );

    machine
        .host
        .gpu("0000:02:00.0", "NVIDIA L40S", "GPU-x", "active")
        .unwrap();
    let devices = machine.read().devices;
    assert_eq!(
        devices.iter().map(reason).collect::<Vec<_>>(),
        ["asleep", "usable"]
    );

    assert_eq!(
        machine
            .driver
            .statistics()
            .unwrap()
            .calls
            .get("nvmlDeviceGetHandleByIndex_v2"),
        None
    );
}

#[test]
fn sixty_four_gpus_and_a_future_architecture() {
    let gpu = Gpu {
        compute_capability: (13, 0),
        ..profiles::h200()
    };

    let snapshot = Machine::new(&Scenario::repeated(64, &gpu)).read();
    assert_eq!(snapshot.devices.len(), 64);
    assert_eq!(snapshot.devices[63].facts.compute_capability, Some((13, 0)));
    assert_eq!(snapshot.devices[63].facts.multiprocessors, None);
    assert_eq!(snapshot.links.len(), 64 * 63 / 2);
}

#[test]
fn whole_failures_have_their_reasons() {
    let init = |code| Scenario::of([profiles::t4()]).fault("nvmlInit_v2", Fault::code(code));
    let cases = [
        (init(codes::DRIVER_NOT_LOADED), "nvml_unavailable"),
        (
            init(codes::LIB_RM_VERSION_MISMATCH),
            "driver_version_mismatch",
        ),
        (init(codes::NO_PERMISSION), "no_permission"),
        (init(codes::UNKNOWN), "nvml_unavailable"),
        (Scenario::default(), "no_devices"),
    ];

    for (scenario, expected) in cases {
        let machine = Machine::new(&scenario);
        let error = read_once(&machine.options(), DEADLINE).unwrap_err();
        assert_eq!(error.reason(), expected, "{error}");
        let counted = machine.driver.statistics().unwrap();
        assert_eq!(counted.inits, counted.shutdowns);
    }

    let machine = Machine::new(&Scenario::default());
    for wrong in ["absent.so", "scenario.json"] {
        let library = Some(machine.directory.path().join(wrong));
        let error = read_once(
            &NvmlOptions {
                library,
                ..machine.options()
            },
            DEADLINE,
        )
        .unwrap_err();

        assert_eq!(error.reason(), "nvml_unavailable");
        assert!(error.to_string().contains(wrong), "{error}");
    }

    let machine = Machine::without(&Scenario::of([profiles::t4()]), &["nvmlShutdown"]);
    assert_eq!(
        read_once(&machine.options(), DEADLINE)
            .unwrap_err()
            .reason(),
        "nvml_unavailable"
    );
}

#[test]
fn a_hung_driver_holds_a_one_shot_no_longer_than_its_deadline() {
    let hung = Scenario::of([profiles::t4()]).fault("nvmlDeviceGetCount_v2", Fault::hang());
    let machine = Machine::new(&hung);
    let error = read_once(&machine.options(), Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.reason(), "nvml_overdue");
    machine.driver.set(&Scenario::of([profiles::t4()])).unwrap();
}
