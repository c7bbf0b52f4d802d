//! The ledger: decides and records in one step. It is a value without clock, disk or lock; its one
//! owner drives it.

mod claims;
mod error;
mod grant;
mod life;
mod restore;
mod settle;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

pub use claims::GrantableMemory;
pub use error::{ChangeError, GrantError};
pub use grant::{GrantRequest, Granted};
pub use life::Release;
pub use restore::Saved;

use hf_mem_core::bytes::Bytes;

use super::clock::Boottime;
use super::event::{Event, Subject};
use super::lease::Lease;
use super::quota::Quotas;

/// The ledger's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerConfig {
    /// How much one user can lease.
    pub quotas: Quotas,
    /// Reserved on every device, in addition to the margin of the reading itself.
    pub margin: Bytes,
    /// The shortest time to live.
    pub min_ttl: Duration,
    /// The longest time to live.
    pub max_ttl: Duration,
    /// No lease is granted on a reading older than this.
    pub max_reading_age: Duration,
    /// How long a lease is extended after its memory was last seen to grow.
    pub growth_grace: Duration,
    /// How far growing memory can extend a lease in total, beyond the time to live.
    pub max_extension: Duration,
    /// A lease settles once its memory has not grown for this long, even if the holder took less
    /// than was granted. The rest stays reserved until the lease ends.
    pub still_after: Duration,
    /// The most live leases.
    pub max_leases: usize,
    /// How many ended leases are remembered, for their keys and for people.
    pub max_ended: usize,
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self {
            quotas: Quotas::default(),
            margin: Bytes::ZERO,
            min_ttl: Duration::from_secs(1),
            max_ttl: Duration::from_secs(24 * 3600),
            max_reading_age: Duration::from_secs(10),
            growth_grace: Duration::from_secs(30),
            max_extension: Duration::from_secs(15 * 60),
            still_after: Duration::from_secs(30),
            max_leases: 1024,
            max_ended: 256,
        }
    }
}

/// All leases.
#[derive(Clone, Debug)]
pub struct Ledger {
    settings: LedgerConfig,
    boot_id: String,
    /// Part of every lease id of this run, so that after a lost file no old id names a new lease.
    run: u32,
    next_serial: u64,
    /// Live leases by serial, which is the order of grants.
    live: BTreeMap<u64, Lease>,
    /// Ended leases, the oldest first.
    ended: VecDeque<Lease>,
    /// Devices on which leases claim more than is free, and how much more.
    overdrawn: BTreeMap<String, Bytes>,
    last_reading: Option<Boottime>,
    events: Vec<Event>,
    /// Counts the changes that must be persisted.
    revision: u64,
}

impl Ledger {
    /// An empty ledger. `boot_id` is the boot that boot times belong to; `run` should differ from
    /// start to start.
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

    /// The revision: it changes with each change that must be persisted.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The rules in force.
    pub fn settings(&self) -> &LedgerConfig {
        &self.settings
    }

    /// Replaces the rules, as on a reload. They apply to requests from now on.
    pub fn set_settings(&mut self, settings: LedgerConfig) {
        self.settings = settings;
    }

    /// The live leases, in the order of their grants.
    pub fn live(&self) -> impl Iterator<Item = &Lease> {
        self.live.values()
    }

    /// The ended leases that are remembered, the oldest first.
    pub fn ended(&self) -> impl Iterator<Item = &Lease> {
        self.ended.iter()
    }

    /// A lease by its id, live or ended.
    pub fn get(&self, id: &str) -> Option<&Lease> {
        self.live
            .values()
            .chain(&self.ended)
            .find(|lease| lease.id == id)
    }

    /// The events since the last call.
    pub fn drain_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn record(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Marks a change that must be persisted.
    fn changed(&mut self) {
        self.revision = self.revision.wrapping_add(1);
    }

    /// Moves a lease that has ended to the remembered ones, and forgets the oldest of those.
    fn retire(&mut self, serial: u64) {
        self.move_to_ended(serial);
        self.forget_oldest();
    }

    /// Moves a lease that has ended to the remembered ones.
    fn move_to_ended(&mut self, serial: u64) {
        let Some(lease) = self.live.remove(&serial) else {
            return;
        };

        self.changed();
        if let Some(ending) = lease.ending {
            self.record(Event::Ended {
                lease: Subject::of(&lease),
                reason: ending.reason,
            });
        }

        self.ended.push_back(lease);
    }

    /// Forgets the oldest ended leases, beyond the number to remember.
    fn forget_oldest(&mut self) {
        while self.ended.len() > self.settings.max_ended {
            // A lease that must still be counted is kept; a later reading allows to forget it.
            let since = self.needed_since();
            let Some(index) = self.ended.iter().position(|lease| !is_needed(lease, since)) else {
                break;
            };
            self.ended.remove(index);
        }
    }

    /// The time since which ended leases still matter: those whose end was seen later than this.
    ///
    /// Memory of an ended lease could be mistaken for that of a lease granted before its end. So
    /// the time is the oldest grant among the live leases and, in turn, the ended ones that still
    /// matter.
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

/// Whether an ended lease still matters. It does until a reading shows what its holder left, and
/// then as long as that memory is there and could be mistaken for that of a lease since `since`.
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
