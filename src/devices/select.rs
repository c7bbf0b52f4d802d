//! Selection of devices from a snapshot, by the names that `--on` and `CUDA_VISIBLE_DEVICES` use.

use hf_mem_core::device::{Device, DeviceKind, Snapshot};
use thiserror::Error;

/// An error in a list of devices.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SelectError {
    /// The name matches no device.
    #[error("no device matches `{name}`; available devices: {known}")]
    Unknown {
        /// The name in the list.
        name: String,
        /// The UUIDs of all devices.
        known: String,
    },
    /// The name is a prefix of several UUIDs.
    #[error("`{name}` matches {candidates}; use a longer part of the UUID")]
    Ambiguous {
        /// The name in the list.
        name: String,
        /// The UUIDs that the name matches.
        candidates: String,
    },
    /// The list names a device twice.
    #[error("`{name}` names a device that is already in the list; remove one of the two")]
    Duplicate {
        /// The name in the list.
        name: String,
    },
}

/// Returns the devices that a comma-separated list names.
///
/// You can name a device by its UUID (`GPU-…`, `MIG-…`, `MIG-GPU-…/gi/ci`) or by a unique prefix of
/// the UUID, as in CUDA. You can also use the driver's index, which differs from CUDA's index and
/// is not stable over reboots.
pub fn select<'a>(list: &str, snapshot: &'a Snapshot) -> Result<Vec<&'a Device>, SelectError> {
    let mut chosen: Vec<&Device> = Vec::new();
    for name in list
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
    {
        let device = find_device(name, snapshot)?;
        if chosen
            .iter()
            .any(|other| other.facts.uuid == device.facts.uuid)
        {
            return Err(SelectError::Duplicate {
                name: name.to_owned(),
            });
        }

        chosen.push(device);
    }

    Ok(chosen)
}

fn find_device<'a>(name: &str, snapshot: &'a Snapshot) -> Result<&'a Device, SelectError> {
    let devices = &snapshot.devices;
    if let Some(device) = devices
        .iter()
        .find(|device| device.facts.uuid.eq_ignore_ascii_case(name))
    {
        return Ok(device);
    }

    let found: Vec<&Device> = match name.parse::<u32>() {
        // MIG instances have the index of their parent.
        Ok(index) => devices
            .iter()
            .filter(|device| device.facts.index == index)
            .filter(|device| {
                device.facts.kind != DeviceKind::MigInstance || device.facts.parent_uuid.is_none()
            })
            .collect(),
        Err(_) => devices
            .iter()
            .filter(|device| has_prefix(&device.facts.uuid, name))
            .collect(),
    };

    match found.as_slice() {
        [device] => Ok(device),
        [] => Err(SelectError::Unknown {
            name: name.to_owned(),
            known: join_uuids(devices),
        }),
        several => Err(SelectError::Ambiguous {
            name: name.to_owned(),
            candidates: join_uuids(several.iter().copied()),
        }),
    }
}

fn join_uuids<'a>(devices: impl IntoIterator<Item = &'a Device>) -> String {
    let uuids: Vec<&str> = devices
        .into_iter()
        .map(|device| device.facts.uuid.as_str())
        .collect();
    uuids.join(", ")
}

fn has_prefix(uuid: &str, name: &str) -> bool {
    uuid.get(..name.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use hf_mem_core::device::declared;

    fn snapshot() -> Snapshot {
        let mut snapshot = declared::parse("3xT4,H100:3g.40gb", UNIX_EPOCH).unwrap();
        let uuids = ["GPU-aa11", "GPU-aa22", "GPU-bb33", "MIG-cc44"];
        for (device, uuid) in snapshot.devices.iter_mut().zip(uuids) {
            device.facts.uuid = uuid.to_owned();
        }

        snapshot.devices[3].facts.parent_uuid = Some("GPU-bb33".to_owned());
        snapshot.devices[3].facts.index = 2;

        snapshot
    }

    fn chosen(list: &str) -> Result<Vec<String>, SelectError> {
        Ok(select(list, &snapshot())?
            .iter()
            .map(|device| device.facts.uuid.clone())
            .collect())
    }

    #[test]
    fn selects_by_uuid_prefix_index() {
        assert_eq!(chosen("GPU-aa22,0").unwrap(), ["GPU-aa22", "GPU-aa11"]);
        assert_eq!(chosen("gpu-b, MIG-").unwrap(), ["GPU-bb33", "MIG-cc44"]);
        assert_eq!(chosen("2").unwrap(), ["GPU-bb33"]);
        assert!(chosen("").unwrap().is_empty());
    }

    #[test]
    fn ambiguous_unknown_duplicate_fail() {
        assert!(matches!(
            chosen("GPU-aa"),
            Err(SelectError::Ambiguous { .. })
        ));
        assert!(matches!(chosen("7"), Err(SelectError::Unknown { .. })));

        assert!(matches!(
            chosen("0,GPU-aa11"),
            Err(SelectError::Duplicate { .. })
        ));
    }
}
