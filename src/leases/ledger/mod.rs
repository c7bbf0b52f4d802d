//! The ledger: decides and records in one step. A value without clock, disk or lock; its one owner
//! drives it.

mod claims;
mod error;
mod grant;
mod life;
mod restore;
mod settle;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

pub use claims::Availability;
pub use error::{ChangeError, GrantError};
pub use grant::{GrantRequest, Granted};
pub use life::Release;
pub use restore::Saved;

use hf_mem_core::bytes::Bytes;

use super::clock::Boottime;
use super::event::{Event, Subject};
use super::lease::Lease;
use super::quota::Quotas;

/// The rules that the ledger keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerConfig {
    /// How much one user may hold.
    pub quotas: Quotas,
    /// Kept back on every device, beyond what the reading itself keeps back.
    pub margin: Bytes,
    /// The shortest time to live.
    pub shortest_ttl: Duration,
    /// The longest.
    pub longest_ttl: Duration,
    /// A reading older than this promises nothing.
    pub oldest_reading: Duration,
    /// How long a lease is kept after its memory was last seen to grow.
    pub growth_grace: Duration,
    /// By how much growing memory may push the end out, all in all, beyond the time to live.
    pub longest_extension: Duration,
    /// A holder whose memory has not grown for this long has settled, even if it took less than it
    /// was promised. The rest stays promised until the lease ends.
    pub still_after: Duration,
    /// The most leases alive at once.
    pub most_leases: usize,
    /// How many ended leases are remembered, for their keys and for people.
    pub most_ended: usize,
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self {
            quotas: Quotas::default(),
            margin: Bytes::ZERO,
            shortest_ttl: Duration::from_secs(1),
            longest_ttl: Duration::from_secs(24 * 3600),
            oldest_reading: Duration::from_secs(10),
            growth_grace: Duration::from_secs(30),
            longest_extension: Duration::from_secs(15 * 60),
            still_after: Duration::from_secs(30),
            most_leases: 1024,
            most_ended: 256,
        }
    }
}

/// Who has been promised what.
#[derive(Clone, Debug)]
pub struct Ledger {
    settings: LedgerConfig,
    boot_id: String,
    /// Part of every id of this run: after a lost file no old id means a new lease.
    run: u32,
    next_serial: u64,
    /// Alive, by serial: the order of grants.
    live: BTreeMap<u64, Lease>,
    /// Ended, the oldest first.
    ended: VecDeque<Lease>,
    /// Devices that owe more than is free, and how much.
    overdrawn: BTreeMap<String, Bytes>,
    last_reading: Option<Boottime>,
    events: Vec<Event>,
    /// Counts what must be kept on disk.
    revision: u64,
}

impl Ledger {
    /// An empty ledger. `boot_id` names the boot that moments are counted from; `run` should differ
    /// from start to start.
    pub fn new(settings: LedgerConfig, boot_id: impl Into<String>, run: u32) -> Self {
        Self {
            settings,
            boot_id: boot_id.into(),
            run,
            next_serial: 1,
            live: BTreeMap::new(),
            ended: VecDeque::new(),
            overdrawn: BTreeMap::new(),
            last_reading: None,
            events: Vec::new(),
            revision: 0,
        }
    }

    /// Differs whenever something changed that must survive: time to write the ledger down.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The rules in force.
    pub fn settings(&self) -> &LedgerConfig {
        &self.settings
    }

    /// New rules, as on a reload: they hold for what is asked from now on.
    pub fn set_settings(&mut self, settings: LedgerConfig) {
        self.settings = settings;
    }

    /// The leases that are alive, in order of their grants.
    pub fn live(&self) -> impl Iterator<Item = &Lease> {
        self.live.values()
    }

    /// The leases that have ended and are remembered, the oldest first.
    pub fn ended(&self) -> impl Iterator<Item = &Lease> {
        self.ended.iter()
    }

    /// A lease by its id, alive or ended.
    pub fn get(&self, id: &str) -> Option<&Lease> {
        self.live
            .values()
            .chain(&self.ended)
            .find(|lease| lease.id == id)
    }

    /// What happened since this was last called.
    pub fn drain_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn tell(&mut self, event: Event) {
        self.events.push(event);
    }

    fn changed(&mut self) {
        self.revision = self.revision.wrapping_add(1);
    }

    /// Moves a lease that has ended to those that are remembered, and forgets the oldest of them.
    fn bury(&mut self, serial: u64) {
        self.retire(serial);
        self.forget();
    }

    /// Moves a lease that has ended to those that are remembered.
    fn retire(&mut self, serial: u64) {
        let Some(lease) = self.live.remove(&serial) else {
            return;
        };

        self.changed();
        if let Some(ending) = lease.ending {
            self.tell(Event::Ended {
                lease: Subject::of(&lease),
                reason: ending.reason,
            });
        }

        self.ended.push_back(lease);
    }

    /// Forgets the oldest that have ended, beyond those that are to be remembered.
    fn forget(&mut self) {
        while self.ended.len() > self.settings.most_ended {
            // One that must still be counted is not forgotten before its time; a later reading
            // frees it.
            let since = self.needed_since();
            let Some(place) = self.ended.iter().position(|lease| !is_needed(lease, since)) else {
                break;
            };
            self.ended.remove(place);
        }
    }

    /// Which ended leases still matter: those whose end was seen later than this. It is when the
    /// oldest of those was granted that they could be taken for, the living ones and, in turn, the
    /// ended ones that still matter themselves.
    fn needed_since(&self) -> Option<Boottime> {
        let mut since = self.live.values().map(|lease| lease.baseline_at).min()?;
        loop {
            let older = self.ended.iter().filter(|lease| lease.baseline_at < since);
            let needed = older.filter(|lease| is_needed(lease, Some(since)));
            match needed.map(|lease| lease.baseline_at).min() {
                Some(older) => since = older,
                None => return Some(since),
            }
        }
    }
}

/// Whether an ended lease still matters: until a reading shows what its holder left, and as long as
/// that is there and could be taken for another's, of those that matter since then.
fn is_needed(lease: &Lease, since: Option<Boottime>) -> bool {
    match lease.ending.map(|ending| ending.seen_at) {
        Some(Some(seen_at)) => {
            let left = lease
                .devices
                .values()
                .any(|share| share.visible_bytes > Bytes::ZERO);
            left && since.is_some_and(|since| since <= seen_at)
        }
        _ => true,
    }
}
