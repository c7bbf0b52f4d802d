//! Saving the ledger, and restoring it after a restart.

use hf_mem_core::report::lease::{EndReason, State};
use serde::{Deserialize, Serialize};

use super::super::holder::ProcessIdentity;
use super::super::lease::Lease;
use super::{Ledger, LedgerConfig};
use crate::leases::clock::{Boottime, Timestamp};

/// The ledger as it is on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The boot that its boot times belong to.
    pub boot_id: String,
    /// When it was saved, on both clocks.
    pub saved_at: Timestamp,
    /// All live leases, and the ended ones that are remembered.
    pub leases: Vec<Lease>,
}

impl Ledger {
    /// The part of the ledger that must survive a restart.
    pub fn saved(&self, now: Timestamp) -> Saved {
        let leases = self
            .ended
            .iter()
            .chain(self.live.values())
            .cloned()
            .collect();

        Saved {
            boot_id: self.boot_id.clone(),
            saved_at: now,
            leases,
        }
    }

    /// Restores the ledger. Leases of processes that have exited, or that belong to another boot,
    /// are orphaned. Leases whose time has passed expire. Leases of a named holder continue for the
    /// rest of their time. `alive` returns whether exactly this process still runs.
    pub fn restore(
        settings: LedgerConfig,
        boot_id: impl Into<String>,
        run: u32,
        saved: Saved,
        now: Timestamp,
        alive: impl Fn(&ProcessIdentity) -> bool,
    ) -> Self {
        let mut ledger = Self::new(settings, boot_id, run);

        // If the boot clock went backwards, this is another boot, whatever its id says: a restored
        // virtual machine.
        let same_boot = saved.boot_id == ledger.boot_id && saved.saved_at.boottime <= now.boottime;
        for mut lease in saved.leases {
            ledger.next_serial = ledger.next_serial.max(lease.serial.saturating_add(1));
            if !same_boot {
                rebase(&mut lease, saved.saved_at, now);
            }
            // A lease that ended in the last run causes no event again.
            if lease.is_live() {
                ledger.live.insert(lease.serial, lease);
            } else {
                ledger.ended.push_back(lease);
            }
        }

        if same_boot {
            ledger.end_where(EndReason::HolderGoneAtRestart, now, |lease| {
                lease
                    .holder
                    .process
                    .as_ref()
                    .is_some_and(|process| !alive(process))
            });
        } else {
            ledger.end_where(EndReason::Rebooted, now, |lease| {
                lease.holder.process.is_some()
            });
        }

        ledger.expire(now);
        ledger.changed();

        ledger
    }
}

/// Moves a lease from another boot's clock to this boot's. Only the wall clock spans both. The
/// lease keeps the time that was left when it was saved, less the wall time since then, and never
/// more than its time to live.
fn rebase(lease: &mut Lease, saved_at: Timestamp, now: Timestamp) {
    let passed = now.wall.duration_since(saved_at.wall).unwrap_or_default();
    let left = lease
        .expires_at
        .since(saved_at.boottime)
        .min(lease.ttl())
        .saturating_sub(passed);

    lease.expires_at = now.boottime.after(left);
    lease.extendable_until = lease.expires_at;
    lease.granted_at = now.boottime;
    lease.baseline_at = now.boottime;
    lease.grown_at = None;
    lease.members.clear();

    lease.state = if lease.is_live() {
        State::Granted
    } else {
        lease.state
    };

    for share in lease.devices.values_mut() {
        share.visible_bytes = hf_mem_core::bytes::Bytes::ZERO;
        share.baselines.clear(); // The processes of the other boot hold nothing here.
    }

    if let Some(ending) = &mut lease.ending {
        ending.at = Boottime::BOOT;
        ending.seen_at = Some(Boottime::BOOT);
    }
}
