//! The memory that can be granted: free memory, less the claims of leases, less the margin.

use std::collections::BTreeMap;

use hf_mem_core::bytes::Bytes;

use super::super::attribution::{HolderReading, visible};
use super::super::lease::Lease;
use super::{Ledger, is_needed};

/// The availability of memory on one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GrantableMemory {
    /// Free, as read; `None` if the reading failed.
    pub free_bytes: Option<Bytes>,
    /// Granted and not yet seen in use.
    pub leased_bytes: Bytes,
    /// The bytes that can be granted; `None` if that is unknown, and then nothing can be granted.
    /// Zero if leases claim more than is free.
    pub available_bytes: Option<Bytes>,
    /// By how much the claims and margins exceed the free memory; zero if they do not.
    pub short_by_bytes: Bytes,
}

impl Ledger {
    /// Returns what is available on every device in this reading, by UUID.
    pub fn available(&self, reading: &HolderReading<'_>) -> BTreeMap<String, GrantableMemory> {
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

    /// Returns what is available on one device; all unknown if the device is not in the reading.
    pub fn availability(&self, uuid: &str, reading: &HolderReading<'_>) -> GrantableMemory {
        let leased_bytes = self.claimed(uuid, reading);
        let Some(device) = reading.device(uuid) else {
            return GrantableMemory {
                leased_bytes,
                ..GrantableMemory::default()
            };
        };

        let claimed = leased_bytes + device.margin_bytes + self.settings.margin;
        let free_bytes = device.free_bytes;
        let usable = device.unusable.is_none();

        GrantableMemory {
            free_bytes,
            leased_bytes,
            // `less` returns `None` after an overflow, so nothing is granted on a wrong sum.
            available_bytes: free_bytes
                .filter(|_| usable)
                .and_then(|free| free.less(claimed)),
            short_by_bytes: free_bytes
                .and_then(|free| claimed.less(free))
                .unwrap_or(Bytes::ZERO),
        }
    }

    /// Bytes granted on a device and not yet seen in use.
    fn claimed(&self, uuid: &str, reading: &HolderReading<'_>) -> Bytes {
        let leases = self.on_device(uuid);
        let seen_by_serial = visible(&leases, uuid, reading);
        let (mut granted_sum, mut unseen_sum) = (Bytes::ZERO, Bytes::ZERO);

        for lease in leases
            .iter()
            .filter(|lease| lease.counts_in(reading.taken_at))
        {
            let granted = granted_on(lease, uuid);
            let seen = seen_by_serial.get(&lease.serial).copied();
            let unseen = granted.less(seen.unwrap_or(Bytes::ZERO));
            granted_sum += granted;
            unseen_sum += unseen.unwrap_or(Bytes::OVERFLOW);
        }

        // Free memory and processes are not read in the same instant. Whatever the processes seem
        // to hold, the leases' holders cannot have taken more than the device's memory in use.
        let in_use = reading.device(uuid).and_then(|device| device.used_bytes);
        let min_claimed = in_use
            .and_then(|used| granted_sum.less(used))
            .unwrap_or(Bytes::ZERO);

        unseen_sum.max(min_claimed)
    }

    /// The leases with a share of a device that still matter there, in the order of their grants;
    /// the ended ones come last.
    pub(super) fn on_device(&self, uuid: &str) -> Vec<&Lease> {
        let mut leases: Vec<&Lease> = self
            .live
            .values()
            .filter(|lease| lease.devices.contains_key(uuid))
            .collect();
        let mut ended = self
            .ended
            .iter()
            .filter(|lease| lease.devices.contains_key(uuid))
            .peekable();

        if ended.peek().is_some() {
            let since = self.needed_since();
            leases.extend(ended.filter(|lease| is_needed(lease, since)));
        }

        leases
    }
}

fn granted_on(lease: &Lease, uuid: &str) -> Bytes {
    lease
        .devices
        .get(uuid)
        .map_or(Bytes::ZERO, |share| share.granted_bytes)
}
