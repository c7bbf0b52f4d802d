//! A small fake host for the tests of this folder.

use std::time::SystemTime;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{Device, DeviceFacts, DeviceKind, Process, ProcessKind, Snapshot};

/// Idle devices, each with its size in GiB.
pub(crate) fn snapshot(devices: &[(&str, u64)]) -> Snapshot {
    let device = |(uuid, gib): &(&str, u64)| {
        Device::idle(DeviceFacts {
            uuid: (*uuid).to_owned(),
            index: 0,
            name: "test".to_owned(),
            kind: DeviceKind::Gpu,
            total_bytes: Bytes::gib(*gib),
            reserved_bytes: Some(Bytes::ZERO),
            compute_capability: None,
            multiprocessors: None,
            parent_uuid: None,
            pci_bus_id: None,
            numa_node: None,
        })
    };

    Snapshot {
        source: "declared".to_owned(),
        sampled_at: SystemTime::UNIX_EPOCH,
        stale: false,
        driver_version: None,
        devices: devices.iter().map(device).collect(),
        links: Vec::new(),
        host: None,
    }
}

/// A process of user 2 that holds `used_mib` MiB.
pub(crate) fn process(pid: u32, used_mib: u64) -> Process {
    Process {
        pid,
        used_bytes: Some(Bytes::mib(used_mib)),
        kind: ProcessKind::Compute,
        name: None,
        uid: Some(2),
        user: None,
        unit: None,
        container: None,
        cgroup: None,
        start_ticks: None,
    }
}
