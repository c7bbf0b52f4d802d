//! A small made-up host for the tests of this folder.

use std::time::SystemTime;

use crate::bytes::Bytes;
use crate::devices::{Device, DeviceFacts, DeviceKind, Snapshot};

/// Idle devices of so many GiB.
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
