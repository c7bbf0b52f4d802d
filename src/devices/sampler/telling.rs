//! Devices that can be used no more, or again, told to the log.

use std::collections::BTreeMap;
use std::time::Instant;

use hf_mem_core::device::{Device, DeviceFacts, Snapshot, Unusable, UnusableReason};
use hf_mem_core::wire_word::WireWord;

use crate::transition_log::{Transition, TransitionLog};

/// The most devices that are kept in mind; far more than a host has at one time.
const MOST_KEPT: usize = 1024;
/// The word for a GPU that the driver no longer names.
const GONE: &str = "gone";

/// What was told of each device.
#[derive(Debug, Default)]
pub(super) struct DeviceStatusLog {
    devices: BTreeMap<String, KnownDevice>,
}

#[derive(Debug)]
struct KnownDevice {
    index: u32,
    name: String,
    told: TransitionLog,
}

impl DeviceStatusLog {
    /// Tells what has turned with this reading.
    pub(super) fn reading(&mut self, snapshot: &Snapshot, now: Instant) {
        for device in &snapshot.devices {
            // One that sleeps is as it was; whether it can be used is seen when it is awake.
            if device
                .unusable
                .as_ref()
                .is_some_and(|why| why.reason == UnusableReason::Asleep)
            {
                continue;
            }

            self.device(device, now);
        }

        let present = |uuid: &str| {
            snapshot
                .devices
                .iter()
                .any(|device| device.facts.uuid == uuid)
        };

        self.devices.retain(|uuid, known| {
            if present(uuid) {
                return true;
            }
            // An instance was taken apart, or a place in the driver's order has its GPU again.
            if !uuid.starts_with("GPU-") {
                return false;
            }
            if known.told.fault().is_none()
                && let Some(turn) = known.told.record(Some(GONE), now)
            {
                let message = "the driver does not name it any more; check its bus and `dmesg`";
                wrong(
                    uuid,
                    known,
                    &Unusable {
                        reason: WireWord::new(GONE),
                        message: message.to_owned(),
                    },
                    turn,
                );
            }
            true
        });

        if self.devices.len() > MOST_KEPT {
            self.devices.retain(|uuid, _| present(uuid));
        }
    }

    fn device(&mut self, device: &Device, now: Instant) {
        let DeviceFacts {
            uuid, index, name, ..
        } = &device.facts;
        if !self.devices.contains_key(uuid) {
            let known = KnownDevice {
                index: *index,
                name: name.clone(),
                told: TransitionLog::default(),
            };
            self.devices.insert(uuid.clone(), known);
        }

        let Some(known) = self.devices.get_mut(uuid) else {
            return;
        };

        known.index = *index;
        let turn = known
            .told
            .record(device.unusable.as_ref().map(|why| why.reason.as_str()), now);

        match (turn, &device.unusable) {
            (Some(turn), Some(why)) => wrong(uuid, known, why, turn),
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

fn wrong(uuid: &str, known: &KnownDevice, why: &Unusable, Transition { left_out, .. }: Transition) {
    let (index, name, reason, message) = (
        known.index,
        known.name.as_str(),
        why.reason.as_str(),
        why.message.as_str(),
    );

    // What an administrator or another program has taken is no fault.
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
