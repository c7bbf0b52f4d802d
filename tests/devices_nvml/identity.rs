//! The names, UUIDs and processes of devices.

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{ProcessKind, WarningReason};
use simulated_nvml::{Fault, Gpu, HolderKind, Process, Scenario, codes, profiles};

use super::{Machine, reason, reason_of, reasons};

#[test]
fn unreadable_name_costs_only_name() {
    for gpu in [
        Gpu {
            name: "x".repeat(5000),
            ..profiles::l40s()
        },
        profiles::l40s().fault("nvmlDeviceGetName", Fault::code(codes::UNKNOWN)),
    ] {
        let device = Machine::new(&Scenario::of([gpu])).read_device();
        assert_eq!(
            (reason(&device), device.facts.name.as_str()),
            ("usable", "GPU 0 (unreadable)")
        );
        assert!(device.free_bytes.is_some());
        assert_eq!(device.warnings[0].reason, WarningReason::NameUnreadable);
    }

    let lost = profiles::l40s().fault("nvmlDeviceGetName", Fault::code(codes::GPU_IS_LOST));
    assert_eq!(reason_of(lost), "gpu_lost");

    // The UUID is the key of everything, so a device without one is unusable.
    let uuid = Gpu {
        uuid: format!("GPU-{}", "x".repeat(5000)),
        ..profiles::l40s()
    };

    assert_ne!(reason_of(uuid), "usable");
}

#[test]
fn second_device_with_uuid_is_unusable() {
    let with_same_uuid = || Gpu {
        uuid: "GPU-same".to_owned(),
        ..profiles::l40s()
    };

    let devices = Machine::new(&Scenario::of([with_same_uuid(), with_same_uuid()]))
        .read()
        .devices;
    assert_eq!(reasons(&devices), ["usable", "duplicate_uuid"]);
    assert_eq!(devices[1].warnings[0].reason, WarningReason::DuplicateUuid);

    assert_ne!(
        devices[0].facts.uuid, devices[1].facts.uuid,
        "each key belongs to one device"
    );

    let with_mig = || profiles::h100_80().mig([Some(profiles::h100_mig("3g.40gb", 1, 0))]);
    let devices = Machine::new(&Scenario::of([with_mig(), with_mig()]))
        .read()
        .devices;
    assert_eq!(
        reasons(&devices),
        ["mig_parent", "usable", "mig_parent", "duplicate_uuid"]
    );
}

#[test]
fn process_list_uses_buffer() {
    let gpu = profiles::l40s().process(4321, 1 << 30, HolderKind::Compute);
    let device = Machine::new(&Scenario::of([Gpu {
        empty_buffer_succeeds: true,
        ..gpu
    }]))
    .read_device();

    assert_eq!(
        device
            .processes
            .iter()
            .map(|process| process.pid)
            .collect::<Vec<_>>(),
        [4321]
    );

    // The list is longer than the first buffer.
    let many = (1..=200).fold(profiles::h200(), |gpu, pid| {
        gpu.process(pid, 1 << 20, HolderKind::Compute)
    });
    assert_eq!(
        Machine::new(&Scenario::of([many]))
            .read_device()
            .processes
            .len(),
        200
    );
}

#[test]
fn processes_are_merged_and_described() {
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
    let processes = machine.read_device().processes;
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
