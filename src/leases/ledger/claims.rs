//! What can be promised: free now, less what is still owed, less the margin.

use std::collections::BTreeMap;

use hf_mem_core::bytes::Bytes;

use super::super::attribution::{HolderReading, visible};
use super::super::lease::Lease;
use super::{Ledger, is_needed};

/// One device's account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Availability {
    /// Free, as read; `None` where the reading failed.
    pub free_bytes: Option<Bytes>,
    /// Promised and not yet seen in use.
    pub leased_bytes: Bytes,
    /// What can be promised; `None` where that is not known, and then nothing can be. Zero when
    /// more is owed than free.
    pub available_bytes: Option<Bytes>,
    /// By how much what is owed (and kept back) exceeds what is free; zero when it does not.
    pub short_by_bytes: Bytes,
}

impl Ledger {
    /// Every device's account in this reading, by UUID.
    pub fn available(&self, reading: &HolderReading<'_>) -> BTreeMap<String, Availability> {
        let devices = reading.snapshot.devices.iter();
        devices
            .map(|device| {
                (
                    device.facts.uuid.clone(),
                    self.availability(&device.facts.uuid, reading),
                )
            })
            .collect()
    }

    /// One device's account; all unknown for a device that is not in the reading.
    pub fn availability(&self, uuid: &str, reading: &HolderReading<'_>) -> Availability {
        let leased_bytes = self.claimed(uuid, reading);
        let Some(device) = reading.device(uuid) else {
            return Availability {
                leased_bytes,
                ..Availability::default()
            };
        };

        let owed = leased_bytes + device.margin_bytes + self.settings.margin;
        let free_bytes = device.free_bytes;
        let usable = device.unusable.is_none();

        Availability {
            free_bytes,
            leased_bytes,
            // `less` knows no answer for what overflowed, so that nothing is promised on a sum gone
            // wrong.
            available_bytes: free_bytes
                .filter(|_| usable)
                .and_then(|free| free.less(owed)),
            short_by_bytes: free_bytes
                .and_then(|free| owed.less(free))
                .unwrap_or(Bytes::ZERO),
        }
    }

    /// Bytes promised on a device and not yet seen in use.
    fn claimed(&self, uuid: &str, reading: &HolderReading<'_>) -> Bytes {
        let here = self.on_device(uuid);
        let counted = || {
            here.iter()
                .filter(|lease| lease.counts_in(reading.taken_at))
        };

        let granted = |lease: &Lease| {
            lease
                .devices
                .get(uuid)
                .map_or(Bytes::ZERO, |share| share.granted_bytes)
        };

        let seen = visible(&here, uuid, reading);
        let unseen = |lease: &&&Lease| {
            let seen = seen.get(&lease.serial).copied().unwrap_or(Bytes::ZERO);
            granted(lease).less(seen).unwrap_or(Bytes::OVERFLOW)
        };

        let by_lease: Bytes = counted().map(|lease| unseen(&lease)).sum();

        // Free memory and processes are not read in the same instant. Whatever the processes seem
        // to hold, no more than the device's memory in use can have been taken of the promises.
        let in_use = reading.device(uuid).and_then(|device| device.used_bytes);
        let promised: Bytes = counted().map(|lease| granted(lease)).sum();
        let at_least = in_use
            .and_then(|used| promised.less(used))
            .unwrap_or(Bytes::ZERO);

        by_lease.max(at_least)
    }

    /// The leases with a share on a device that matter for its account, in order of their grants.
    pub(super) fn on_device(&self, uuid: &str) -> Vec<&Lease> {
        let here = |lease: &&Lease| lease.devices.contains_key(uuid);
        let mut leases: Vec<&Lease> = self.live.values().filter(here).collect();
        if self.ended.iter().any(|lease| here(&lease)) {
            let since = self.needed_since();
            leases.extend(
                self.ended
                    .iter()
                    .filter(|lease| here(lease) && is_needed(lease, since)),
            );
        }

        leases
    }
}
