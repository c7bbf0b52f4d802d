//! Device identity: unique UUIDs, and names of bounded length, for every source of devices.
//!
//! Leases, links, metrics and the launch line are keyed by UUID. If two devices with one UUID were
//! both used, the same bytes could be granted twice.

use std::collections::BTreeMap;

use super::{Device, Unusable, UnusableReason, Warning, WarningReason};

/// Maximum bytes of a product name. It is far above any product's name, and above NVML's own
/// buffer.
const MAX_NAME_BYTES: usize = 256;

/// Makes the UUIDs of `devices` unique and bounds the length of their names.
///
/// The first of several devices with one UUID keeps it. The others get a numbered UUID and are
/// unusable.
pub fn normalize(devices: &mut [Device]) {
    // The number of devices with each UUID so far.
    let mut known: BTreeMap<String, u32> = BTreeMap::new();
    for device in devices.iter_mut() {
        if device.facts.name.len() > MAX_NAME_BYTES {
            device.facts.name = placeholder(device.facts.index);
            device.warnings.push(unread_name(&format!(
                "is longer than {MAX_NAME_BYTES} bytes"
            )));
        }

        let uuid = device.facts.uuid.clone();
        let Some(mut number) = known.get(&uuid).copied() else {
            known.insert(uuid, 1);
            continue;
        };

        while known.contains_key(&device.facts.uuid) {
            number += 1;
            device.facts.uuid = format!("{uuid}#{number}");
        }

        known.insert(device.facts.uuid.clone(), 1);
        known.insert(uuid.clone(), number);

        let message =
            format!("it reports the UUID {uuid} of an earlier device; nothing is placed on it");
        device.warnings.push(Warning {
            reason: WarningReason::DuplicateUuid.into(),
            message: message.clone(),
        });

        device.unusable = Some(Unusable {
            reason: UnusableReason::DuplicateUuid.into(),
            message,
        });
    }
}

/// Returns the placeholder for a product name that cannot be read.
pub fn placeholder(index: u32) -> String {
    format!("GPU {index} (unreadable)")
}

/// Returns the warning that goes with [`placeholder`].
pub fn unread_name(why: &str) -> Warning {
    Warning {
        reason: WarningReason::NameUnreadable.into(),
        message: format!("its product name {why}; a placeholder is shown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Bytes;
    use crate::device::{DeviceFacts, DeviceKind};

    fn device(uuid: &str, index: u32, name: &str) -> Device {
        Device::idle(DeviceFacts {
            uuid: uuid.into(),
            index,
            name: name.into(),
            kind: DeviceKind::Gpu,
            total_bytes: Bytes::gib(24),
            reserved_bytes: None,
            compute_capability: None,
            multiprocessors: None,
            parent_uuid: None,
            pci_bus_id: None,
            numa_node: None,
        })
    }

    #[test]
    fn duplicate_uuid_is_unusable() {
        let mut devices =
            ["GPU-a", "GPU-b", "GPU-a", "GPU-a#2", "GPU-a"].map(|uuid| device(uuid, 0, "card"));
        normalize(&mut devices);
        let uuids: Vec<&str> = devices.iter().map(|device| &*device.facts.uuid).collect();
        assert_eq!(
            uuids,
            ["GPU-a", "GPU-b", "GPU-a#2", "GPU-a#2#2", "GPU-a#3"],
            "each is the key of one device"
        );

        let usable: Vec<bool> = devices
            .iter()
            .map(|device| device.unusable.is_none())
            .collect();
        assert_eq!(usable, [true, true, false, false, false]);
        assert_eq!(devices[2].warnings[0].reason, WarningReason::DuplicateUuid);
    }

    #[test]
    fn long_name_becomes_placeholder() {
        let mut devices = [
            device("GPU-a", 3, &"x".repeat(5000)),
            device("GPU-b", 4, &"x".repeat(MAX_NAME_BYTES)),
        ];
        normalize(&mut devices);

        assert_eq!(
            (devices[0].facts.name.as_str(), &devices[0].unusable),
            ("GPU 3 (unreadable)", &None)
        );
        assert_eq!(devices[0].warnings[0].reason, WarningReason::NameUnreadable);
        assert!(devices[1].warnings.is_empty());
    }
}
