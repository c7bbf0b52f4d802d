//! The ledger across a restart: what is kept, and what is still true of it.

use hf_mem_core::report::lease::{EndReason, State};
use serde::{Deserialize, Serialize};

use super::super::holder::ProcessIdentity;
use super::super::lease::Lease;
use super::{Ledger, LedgerConfig};
use crate::leases::clock::{Boottime, Now};

/// What is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The boot that its moments are counted from.
    pub boot_id: String,
    /// When it was written, on both clocks.
    pub saved_at: Now,
    /// All leases that are alive, and those ended that are remembered.
    pub leases: Vec<Lease>,
}

impl Ledger {
    /// What must survive a restart.
    pub fn saved(&self, now: Now) -> Saved {
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

    /// The ledger as it was, less what is no longer true: leases of processes that are gone (or
    /// were of another boot) are orphaned, those whose time has passed expire, those held by a name
    /// go on for the rest of it. `alive` says whether exactly this process still runs.
    pub fn restore(
        settings: LedgerConfig,
        boot_id: impl Into<String>,
        run: u32,
        saved: Saved,
        now: Now,
        alive: impl Fn(&ProcessIdentity) -> bool,
    ) -> Self {
        let mut ledger = Self::new(settings, boot_id, run);

        // A clock since boot that went backwards is another boot's, whatever its id says (a
        // restored virtual machine).
        let same_boot = saved.boot_id == ledger.boot_id && saved.saved_at.boottime <= now.boottime;
        for mut lease in saved.leases {
            ledger.next_serial = ledger.next_serial.max(lease.serial.saturating_add(1));
            if !same_boot {
                rebase(&mut lease, saved.saved_at, now);
            }
            // What ended in the last run is not told again, and a lease found twice is kept once.
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

/// Moves a lease from another boot's clock to this one's. Only the wall's clock spans both: the
/// rest of its time is what was left when it was written, less what passed since by the wall's
/// clock; never more than its time to live.
fn rebase(lease: &mut Lease, saved_at: Now, now: Now) {
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
        share.baselines.clear(); // Other processes now; none of the old ones holds anything.
    }

    if let Some(ending) = &mut lease.ending {
        ending.at = Boottime::BOOT;
        ending.seen_at = Some(Boottime::BOOT);
    }
}
