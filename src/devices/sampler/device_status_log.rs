//! Log messages about devices that become unusable or usable.

use std::collections::BTreeMap;
use std::time::Instant;

use hf_mem_core::device::{Device, DeviceFacts, Snapshot, Unusable, UnusableReason};
use hf_mem_core::wire_word::WireWord;

use crate::transition_log::{Transition, TransitionLog};

/// The most devices that are remembered. A host has far fewer at one time.
const MAX_DEVICES: usize = 1024;
/// The reason of a GPU that the driver no longer lists.
const GONE: &str = "gone";

/// The last logged status of each device.
#[derive(Debug, Default)]
pub(super) struct DeviceStatusLog {
    devices: BTreeMap<String, KnownDevice>,
}

#[derive(Debug)]
struct KnownDevice {
    index: u32,
    name: String,
    transitions: TransitionLog,
}

impl DeviceStatusLog {
    /// Logs the changes of a reading.
    pub(super) fn log_changes(&mut self, snapshot: &Snapshot, now: Instant) {
        for device in &snapshot.devices {
            // A sleeping device keeps its status. Its next reading while awake shows it.
            if device
                .unusable
                .as_ref()
                .is_some_and(|why| why.reason == UnusableReason::Asleep)
            {
                continue;
            }

            self.log_device(device, now);
        }

        self.devices.retain(|uuid, known| {
            if has_device(snapshot, uuid) {
                return true;
            }
            // The instance was destroyed, or the GPU at this index of the driver answers again.
            if !uuid.starts_with("GPU-") {
                return false;
            }

            if known.transitions.fault().is_none()
                && let Some(transition) = known.transitions.record(Some(GONE), now)
            {
                let message = "the driver no longer lists it; check its bus and `dmesg`";
                let why = Unusable {
                    reason: WireWord::new(GONE),
                    message: message.to_owned(),
                };
                log_unusable(uuid, known, &why, transition);
            }
            true
        });

        if self.devices.len() > MAX_DEVICES {
            self.devices.retain(|uuid, _| has_device(snapshot, uuid));
        }
    }

    fn log_device(&mut self, device: &Device, now: Instant) {
        let DeviceFacts {
            uuid, index, name, ..
        } = &device.facts;
        if !self.devices.contains_key(uuid) {
            let known = KnownDevice {
                index: *index,
                name: name.clone(),
                transitions: TransitionLog::default(),
            };
            self.devices.insert(uuid.clone(), known);
        }

        let Some(known) = self.devices.get_mut(uuid) else {
            return;
        };

        known.index = *index;
        let transition = known
            .transitions
            .record(device.unusable.as_ref().map(|why| why.reason.as_str()), now);

        match (transition, &device.unusable) {
            (Some(transition), Some(why)) => log_unusable(uuid, known, why, transition),
            (Some(Transition { after, left_out }), None) => {
                let (name, after_seconds) =
                    (known.name.as_str(), after.map(|after| after.as_secs()));
                tracing::info!(
                    uuid,
                    index,
                    name,
                    after_seconds,
                    left_out,
                    "a device can be used again"
                );
            }
            (None, _) => {}
        }
    }
}

fn has_device(snapshot: &Snapshot, uuid: &str) -> bool {
    snapshot
        .devices
        .iter()
        .any(|device| device.facts.uuid == uuid)
}

fn log_unusable(
    uuid: &str,
    known: &KnownDevice,
    why: &Unusable,
    Transition { left_out, .. }: Transition,
) {
    let (index, name, reason, message) = (
        known.index,
        known.name.as_str(),
        why.reason.as_str(),
        why.message.as_str(),
    );

    // It is no fault if an administrator or another program has taken the device.
    if why.is_fault() {
        tracing::warn!(
            uuid,
            index,
            name,
            reason,
            why = message,
            left_out,
            "a device cannot be used"
        );
    } else {
        tracing::info!(
            uuid,
            index,
            name,
            reason,
            why = message,
            left_out,
            "a device is taken out of use"
        );
    }
}
