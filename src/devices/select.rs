//! Picking devices out of a snapshot, as `--on` and `CUDA_VISIBLE_DEVICES` name them.

use hf_mem_core::device::{Device, DeviceKind, Snapshot};
use thiserror::Error;

/// What can be wrong with a list of devices.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SelectError {
    /// Names nothing.
    #[error("no device is called `{name}`; there are {known}")]
    Unknown {
        /// What was named.
        name: String,
        /// What there is.
        known: String,
    },
    /// A prefix of several.
    #[error("`{name}` could be {candidates}; give more of the UUID")]
    Ambiguous {
        /// What was named.
        name: String,
        /// What it could mean.
        candidates: String,
    },
    /// Named twice.
    #[error("`{name}` is a device that the list has already")]
    Twice {
        /// What was named.
        name: String,
    },
}

/// The devices that a comma-separated list names: by UUID (`GPU-…`, `MIG-…`, `MIG-GPU-…/gi/ci`), by
/// a unique beginning of one, as CUDA allows too, or by the driver's index (which is not CUDA's,
/// and not stable over reboots).
pub fn select<'a>(list: &str, snapshot: &'a Snapshot) -> Result<Vec<&'a Device>, SelectError> {
    let mut chosen: Vec<&Device> = Vec::new();
    for name in list
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
    {
        let device = one(name, snapshot)?;
        if chosen
            .iter()
            .any(|other| other.facts.uuid == device.facts.uuid)
        {
            return Err(SelectError::Twice {
                name: name.to_owned(),
            });
        }

        chosen.push(device);
    }

    Ok(chosen)
}

fn one<'a>(name: &str, snapshot: &'a Snapshot) -> Result<&'a Device, SelectError> {
    let devices = || snapshot.devices.iter();
    if let Some(device) = devices().find(|device| device.facts.uuid.eq_ignore_ascii_case(name)) {
        return Ok(device);
    }

    let found: Vec<&Device> = match name.parse::<u32>() {
        // MIG instances repeat their parent's index.
        Ok(index) => devices()
            .filter(|device| device.facts.index == index)
            .filter(|device| {
                device.facts.kind != DeviceKind::MigInstance || device.facts.parent_uuid.is_none()
            })
            .collect(),
        Err(_) => devices()
            .filter(|device| begins(&device.facts.uuid, name))
            .collect(),
    };

    let names = |devices: &[&Device]| {
        devices
            .iter()
            .map(|device| device.facts.uuid.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };

    match found.as_slice() {
        [device] => Ok(device),
        [] => Err(SelectError::Unknown {
            name: name.to_owned(),
            known: names(&devices().collect::<Vec<_>>()),
        }),
        several => Err(SelectError::Ambiguous {
            name: name.to_owned(),
            candidates: names(several),
        }),
    }
}

fn begins(uuid: &str, name: &str) -> bool {
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
    fn by_uuid_prefix_and_index() {
        assert_eq!(chosen("GPU-aa22,0").unwrap(), ["GPU-aa22", "GPU-aa11"]);
        assert_eq!(chosen("gpu-b, MIG-").unwrap(), ["GPU-bb33", "MIG-cc44"]);
        assert_eq!(chosen("2").unwrap(), ["GPU-bb33"]);
        assert!(chosen("").unwrap().is_empty());
    }

    #[test]
    fn doubt_is_an_error() {
        assert!(matches!(
            chosen("GPU-aa"),
            Err(SelectError::Ambiguous { .. })
        ));
        assert!(matches!(chosen("7"), Err(SelectError::Unknown { .. })));

        assert!(matches!(
            chosen("0,GPU-aa11"),
            Err(SelectError::Twice { .. })
        ));
    }
}
