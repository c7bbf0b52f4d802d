//! MIG instances as devices.

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::DeviceKind;
use simulated_nvml::{Gpu, HolderKind, Process, Scenario, codes, profiles};

use super::{Machine, reason_of, reasons};

#[test]
fn mig_instances_replace_parent() {
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
    assert_eq!(
        reasons(&snapshot.devices),
        ["mig_parent", "usable", "usable", "usable"]
    );
    let instance = &snapshot.devices[1];
    assert_eq!(instance.facts.kind, DeviceKind::MigInstance);

    assert_eq!(
        instance.facts.parent_uuid.as_ref(),
        Some(&snapshot.devices[0].facts.uuid)
    );
    assert_eq!(instance.facts.total_bytes, Bytes::mib(40_448));
    assert_eq!(instance.free_bytes, Some(Bytes::mib(40_448 - 16_925)));
    assert_eq!(instance.facts.multiprocessors, Some(60));
    assert_eq!(instance.processes.len(), 2);

    assert!(
        snapshot.devices[0].processes.is_empty(),
        "its instances list the processes"
    );
    assert_eq!(snapshot.devices[2].facts.total_bytes, Bytes::mib(9_984));

    let denied = profiles::h100_80().mig([Some(profiles::h100_mig("2g.20gb", 3, 0))]);
    let mut denied = Scenario::of([denied]);
    denied.devices[0].memory.v2_code = Some(codes::NO_PERMISSION);
    let devices = Machine::new(&denied).read().devices;
    assert_eq!(reasons(&devices), ["mig_parent", "usable"]);

    assert_eq!(
        reason_of(profiles::h100_80().mig([None, None])),
        "mig_without_instances"
    );
}

#[test]
fn exclusive_mode_blocks_held_instances() {
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
        reasons(&devices),
        ["mig_parent", "exclusive_process", "usable"]
    );
}

#[test]
fn due_reset_blocks_mig_instances() {
    // The process may not read the memory of the parent.
    let gpu = Gpu {
        recovery_action: Some(1),
        ..profiles::h100_80()
    };

    let mut scenario = Scenario::of([gpu.mig([Some(profiles::h100_mig("2g.20gb", 3, 0))])]);
    scenario.devices[0].memory.v2_code = Some(codes::NO_PERMISSION);
    let devices = Machine::new(&scenario).read().devices;
    assert_eq!(reasons(&devices), ["mig_parent", "reset_required"]);
}
