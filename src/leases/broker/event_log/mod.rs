//! The event log: one way for every event to the journal, the log lines and the subscribers.
//!
//! The broker collects events while it works on a command and publishes them once per step. One
//! [rate limiter](rate_limiter) decides which of them the journal and the log show.

mod journal_writer;
mod log_line;
mod rate_limiter;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::Snapshot;
use hf_mem_core::report::lease::EndReason;
use tokio::sync::broadcast;
use tokio::time::Instant;

pub use self::journal_writer::JournalConfig;
use self::journal_writer::JournalWriter;
use self::log_line::write_log_line;
use self::rate_limiter::EventRateLimiter;
use crate::leases::clock::Timestamp;
use crate::leases::event::{Dated, Event, Subject};
use crate::leases::journal::{Checkpoint, Entry, MemoryChange};
use crate::leases::ledger::Ledger;
use crate::leases::memory_watch::MemoryWatch;
use crate::leases::observed::{Observation, readable};

/// The journal does not record changes of a process's memory below this.
const MEMORY_STEP: Bytes = Bytes::mib(256);

/// A reading up to this much older than the last one was overtaken on its way, and is ignored. If
/// it is older still, the wall clock was set back.
const MAX_OVERTAKEN_AGE: Duration = Duration::from_secs(60);

/// How long the broker waits before it retries a failed write.
const WRITE_RETRY_DELAY: Duration = Duration::from_secs(1);

/// The id of a request, as in its answer's `x-request-id`.
pub type RequestId = Arc<str>;

/// An event, and the request that caused it, if one did.
#[derive(Clone, Debug, PartialEq, Eq)]
struct AttributedEvent {
    event: Event,
    request_id: Option<RequestId>,
}

impl AttributedEvent {
    /// Attributes `event`, which was found after the command of `request_id`. Events that time or a
    /// process exit caused meanwhile belong to no request.
    fn new(event: Event, request_id: Option<&RequestId>) -> Self {
        let by_request = match &event {
            Event::Granted(_)
            | Event::Renewed(_)
            | Event::Waiting { .. }
            | Event::WaitEnded { .. } => true,
            Event::Ended { reason, .. } => *reason == EndReason::ByOwner,
            Event::Settling(_)
            | Event::Settled(_)
            | Event::Extended(_)
            | Event::Overdrawn { .. }
            | Event::Recovered { .. }
            | Event::Warning { .. } => false,
        };

        Self {
            event,
            request_id: request_id.filter(|_| by_request).cloned(),
        }
    }
}

impl From<Event> for AttributedEvent {
    fn from(event: Event) -> Self {
        Self {
            event,
            request_id: None,
        }
    }
}

/// The state that a checkpoint of the journal records, apart from the memory of processes.
#[derive(Debug, Default)]
struct CheckpointState {
    /// The live leases, by id.
    leases: BTreeMap<String, Subject>,
    /// The devices that the last reading could read.
    devices: BTreeSet<String>,
    /// The time of that reading.
    read_at: Option<SystemTime>,
}

impl CheckpointState {
    fn apply(&mut self, event: &Event) {
        if let Event::Ended { lease, .. } = event {
            self.leases.remove(&lease.lease);
        } else if let Some(lease) = event.subject() {
            self.leases.insert(lease.lease.clone(), lease.clone());
        }
    }

    fn entry(&self, at: SystemTime, memory: &MemoryWatch) -> Entry {
        let checkpoint = Checkpoint {
            leases: self.leases.values().cloned().collect(),
            memory: memory.holders().cloned().collect(),
            devices: self.devices.clone(),
        };
        Entry::checkpoint(at, checkpoint)
    }
}

/// The event log.
#[derive(Debug)]
pub(super) struct EventLog {
    /// Events that were collected and not yet published.
    pending: Vec<AttributedEvent>,
    limiter: EventRateLimiter,
    subscribers: broadcast::Sender<Dated>,
    journal: JournalWriter,
    memory: MemoryWatch,
    observation: Observation,
    checkpoint: CheckpointState,
    waits_ended: u64,
    /// When to retry a failed write, of the journal or of the ledger. `None` while all is written.
    retry_at: Option<Instant>,
}

impl EventLog {
    pub(super) fn new(
        config: Option<&JournalConfig>,
        subscribers: broadcast::Sender<Dated>,
    ) -> Self {
        Self {
            pending: Vec::new(),
            limiter: EventRateLimiter::default(),
            subscribers,
            journal: JournalWriter::new(config),
            memory: MemoryWatch::new(MEMORY_STEP),
            observation: Observation::new(config.map_or(Duration::ZERO, |config| config.gap)),
            checkpoint: CheckpointState::default(),
            waits_ended: 0,
            retry_at: None,
        }
    }

    /// Collects an event that was found after the command of `request_id`, or after none.
    pub(super) fn collect(&mut self, event: Event, request_id: Option<&RequestId>) {
        if matches!(event, Event::WaitEnded { .. }) {
            self.waits_ended = self.waits_ended.saturating_add(1);
        }

        self.pending.push(AttributedEvent::new(event, request_id));
    }

    /// Adds the grants that the last run persisted but did not log, because it was killed in
    /// between. A client that repeats its idempotency key gets such a lease; without this there
    /// would be no event of it.
    pub(super) fn restore(&mut self, ledger: &Ledger) {
        let ended_ids: HashSet<&str> = self
            .pending
            .iter()
            .filter(|pending| matches!(pending.event, Event::Ended { .. }))
            .filter_map(|pending| pending.event.subject())
            .map(|subject| subject.lease.as_str())
            .collect();

        let ended_now = ledger
            .ended()
            .filter(|lease| ended_ids.contains(lease.id.as_str()));

        self.checkpoint.leases = ledger
            .live()
            .map(|lease| (lease.id.clone(), Subject::of(lease)))
            .collect();

        let unlogged = self.journal.unlogged_grants(ledger.live().chain(ended_now));
        self.pending
            .splice(0..0, unlogged.into_iter().map(AttributedEvent::from));
    }

    /// Publishes the collected events to the journal, the log and the subscribers. Returns whether
    /// there were any.
    pub(super) fn publish(&mut self, now: Timestamp) -> bool {
        let at = now.wall;
        let pending = std::mem::take(&mut self.pending);
        let any = !pending.is_empty();
        let mut entries = Vec::with_capacity(pending.len());

        for attributed in pending {
            self.checkpoint.apply(&attributed.event);
            let admitted = self.limiter.admit(&attributed, now.boottime);
            write_log_line(&attributed, admitted);

            if admitted {
                entries.push(Entry::event(at, attributed.event.clone()));
            }

            // An error means that there are no subscribers.
            let _no_subscribers = self.subscribers.send(Dated {
                at,
                event: attributed.event,
            });
        }

        for attributed in self.limiter.take_due(now.boottime) {
            write_log_line(&attributed, true);
            entries.push(Entry::event(at, attributed.event));
        }

        self.write(entries);
        any
    }

    /// Records a reading: the memory that moved, and that the devices were read.
    pub(super) fn observe(&mut self, snapshot: &Snapshot, now: Timestamp) {
        let behind = self
            .checkpoint
            .read_at
            .and_then(|last| last.duration_since(snapshot.sampled_at).ok());
        let is_overtaken = behind.is_some_and(|behind| behind < MAX_OVERTAKEN_AGE);
        if !self.journal.is_configured() || snapshot.stale || is_overtaken {
            return;
        }

        let is_first = self
            .checkpoint
            .read_at
            .replace(snapshot.sampled_at)
            .is_none();
        let before = std::mem::replace(&mut self.checkpoint.devices, readable(snapshot));
        let seen = self.observation.reading(snapshot);

        let mut entries: Vec<Entry> = seen
            .spans
            .into_iter()
            .map(|(at, span)| Entry::observed(at, span))
            .collect();

        if is_first {
            // The processes of the first reading were there before it.
            self.memory.changes(snapshot, &BTreeSet::new(), |_| true);
            entries.push(self.checkpoint.entry(now.wall, &self.memory));
        } else {
            let limiter = &mut self.limiter;
            let followed = if seen.after_gap {
                BTreeSet::new()
            } else {
                before
            };

            let changes = self
                .memory
                .changes(snapshot, &followed, |change: &MemoryChange| {
                    limiter.admit_memory(change.uid, now.boottime)
                });
            entries.extend(
                changes
                    .into_iter()
                    .map(|change| Entry::memory(now.wall, change)),
            );
        }

        self.write(entries);
    }

    /// Writes the span of readings that is still open, as before the broker ends.
    pub(super) fn close_span(&mut self) {
        let span = self
            .observation
            .end()
            .map(|(at, span)| Entry::observed(at, span));
        self.write(span.into_iter().collect());
    }

    /// The waits that ended without a lease.
    pub(super) fn waits_ended(&self) -> u64 {
        self.waits_ended
    }

    /// When to retry a failed write.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Sets the time of the next retry while the journal or the ledger has something unwritten. A
    /// time that is set stays until [`Self::retry`], so that other events cannot postpone it.
    pub(super) fn plan_retry(&mut self, ledger_is_behind: bool) {
        self.retry_at = match self.retry_at {
            _ if !ledger_is_behind && !self.journal.is_behind() => None,
            Some(retry_at) => Some(retry_at),
            None => Some(Instant::now() + WRITE_RETRY_DELAY),
        };
    }

    /// Retries to write what the journal could not write.
    pub(super) fn retry(&mut self, now: Timestamp) {
        self.retry_at = None;
        let (checkpoint, memory) = (&self.checkpoint, &self.memory);
        self.journal
            .retry(now.wall, |at| checkpoint.entry(at, memory));
    }

    fn write(&mut self, entries: Vec<Entry>) {
        let (checkpoint, memory) = (&self.checkpoint, &self.memory);
        self.journal
            .write(entries, |at| checkpoint.entry(at, memory));
    }
}
