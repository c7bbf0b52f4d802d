//! What happened, passed on: to the journal, to the log, to those who listen.

use std::path::PathBuf;

use tokio::sync::broadcast;
use tracing::warn;

use super::budget::Budget;
use super::happened::Happened;
use super::say::say;
use crate::bytes::Bytes;
use crate::devices::Snapshot;
use crate::leases::event::{Dated, Event, Subject};
use crate::leases::journal::{Entry, Journal, MemoryWatch, unnamed};
use crate::leases::lease::Lease;
use crate::leases::moment::Now;

/// Lines that are kept while the journal cannot be written.
const MOST_UNWRITTEN: usize = 1024;
/// Moves of a process's memory below this are not worth a line of the journal.
const MEMORY_STEP: Bytes = Bytes::mib(256);

/// The ways out.
#[derive(Debug)]
pub(super) struct Log {
    journal: Option<Journal>,
    memory: MemoryWatch,
    budget: Budget,
    listeners: broadcast::Sender<Dated>,
    /// Lines that could not be written yet, the oldest first.
    unwritten: Vec<Entry>,
    /// Lines that were dropped because there were too many of those.
    dropped: usize,
}

impl Log {
    pub(super) fn new(journal: Option<&(PathBuf, u64)>, listeners: broadcast::Sender<Dated>) -> Self {
        let journal = journal.and_then(|(directory, most_bytes)| {
            let opened = Journal::open(directory, *most_bytes);
            let told = opened.inspect_err(|error| {
                warn!(directory = %directory.display(), %error, "no journal can be kept there; `explain` will know nothing");
            });
            told.ok()
        });
        Self {
            journal,
            memory: MemoryWatch::new(MEMORY_STEP),
            budget: Budget::default(),
            listeners,
            unwritten: Vec::new(),
            dropped: 0,
        }
    }

    /// The grants among `restored` leases that the last daemon did not come to tell of.
    pub(super) fn untold<'l>(&self, restored: impl IntoIterator<Item = &'l Lease>) -> Vec<Happened> {
        let Some(journal) = &self.journal else { return Vec::new() };
        let unnamed = unnamed(journal.directory(), restored).unwrap_or_else(|error| {
            warn!(%error, "the journal cannot be read; grants of the last run may be missing from it");
            Vec::new()
        });
        unnamed.into_iter().map(|lease| Event::Granted(Subject::of(lease)).into()).collect()
    }

    /// Events of leases and of the line.
    pub(super) fn tell(&mut self, all: Vec<Happened>, now: Now) {
        let at = now.wall;
        let mut entries = Vec::with_capacity(all.len());
        for happened in all {
            let admitted = self.budget.admits(&happened, now.boottime);
            say(&happened, admitted);
            if admitted {
                entries.push(Entry::event(at, happened.event.clone()));
            }
            // Nobody listening is no failure.
            let _listeners = self.listeners.send(Dated { at, event: happened.event });
        }
        for happened in self.budget.due(now.boottime) {
            say(&happened, true);
            entries.push(Entry::event(at, happened.event));
        }
        self.write(entries);
    }

    /// Whose memory moved.
    pub(super) fn observe(&mut self, snapshot: &Snapshot, now: Now) {
        if self.journal.is_some() {
            let budget = &mut self.budget;
            let changes = self.memory.changes(snapshot, |change| budget.admits_memory(change.uid, now.boottime));
            let entries: Vec<Entry> = changes.into_iter().map(|change| Entry::memory(now.wall, change)).collect();
            self.write(entries);
        }
    }

    /// Whether lines could not be written yet.
    pub(super) fn is_behind(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Tries again to write what could not be written.
    pub(super) fn write_again(&mut self, now: Now) {
        let Some(journal) = &mut self.journal else { return };
        let mut entries = std::mem::take(&mut self.unwritten);
        if self.dropped > 0 {
            let message = format!("{} lines of the journal were lost while it could not be written", self.dropped);
            entries.insert(0, Entry::event(now.wall, Event::Warning { message }));
        }

        match journal.append(&entries) {
            Ok(()) => self.dropped = 0,
            Err(_) => {
                if self.dropped > 0 {
                    entries.remove(0);
                }
                self.unwritten = entries;
            }
        }
    }

    /// Writes `entries` after those that could not be written yet.
    fn write(&mut self, entries: Vec<Entry>) {
        let Some(journal) = &mut self.journal else { return };
        if entries.is_empty() {
            return;
        }
        if self.unwritten.is_empty() {
            let Err(error) = journal.append(&entries) else { return };
            warn!(%error, "the journal cannot be written; its lines are kept and tried again every second");
        }

        self.unwritten.extend(entries);
        let excess = self.unwritten.len().saturating_sub(MOST_UNWRITTEN);
        self.unwritten.drain(..excess);
        self.dropped = self.dropped.saturating_add(excess);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::devices::Process;
    use crate::leases::attribution::Reading;
    use crate::leases::holder::Ancestry;
    use crate::leases::journal::{Account, read};
    use crate::leases::keeper::Keeper;
    use crate::leases::lease::{EndReason, Holder, QuestionSummary};
    use crate::leases::ledger::{GrantRequest, Ledger, Saved, Settings};
    use crate::leases::moment::Boottime;
    use crate::leases::store::{Storage, StoreError};
    use crate::leases::testing::process;

    #[test]
    fn one_user_cannot_wash_out_what_is_known_of_another() {
        let directory = tempfile::tempdir().unwrap();
        let most = 200_000;
        let mut log = Log::new(Some(&(directory.path().to_owned(), most)), broadcast::channel(1).0);
        let now = |seconds| Now {
            boottime: Boottime::from_millis(seconds * 1000),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        };
        let subject = |uid: u32, lease: String| Subject {
            lease,
            uid,
            pid: None,
            name: Some("n".repeat(128)),
            model: "m".repeat(200),
            granted_bytes: [("GPU-00000000-0000-4000-8000-000000000000".to_owned(), Bytes::gib(1))].into(),
            visible_bytes: [("GPU-00000000-0000-4000-8000-000000000000".to_owned(), Bytes::ZERO)].into(),
        };
        log.tell(vec![Event::Granted(subject(1, "victim".to_owned())).into()], now(10));
        for second in 11..41 {
            let churn = (0..100).flat_map(|number| {
                let lease = subject(2, format!("{second}-{number}"));
                [Event::Granted(lease.clone()), Event::Ended { lease, reason: EndReason::ByOwner }].map(Happened::from)
            });
            log.tell(churn.collect(), now(second));
        }
        let (entries, unreadable) = read(directory.path()).unwrap();
        assert_eq!(unreadable, 0);
        assert!(entries.len() < 400, "{} lines of 6001 events", entries.len());
        let then = Account::at(&entries, now(41).wall, 0);
        assert_eq!(then.leases.iter().map(|lease| lease.lease.as_str()).collect::<Vec<_>>(), ["victim"]);

        // Nor by memory that comes and goes.
        let mut snapshot = crate::leases::testing::snapshot(&[("GPU-a", 80)]);
        for reading in 0..1000 {
            let swing = if reading % 2 == 0 { 600 } else { 300 };
            snapshot.devices[0].processes = (100..164).map(|pid| process(pid, swing)).collect();
            log.observe(&snapshot, now(42 + reading / 100));
        }
        let lines = read(directory.path()).unwrap().0.len();
        assert!(lines - entries.len() <= 138, "{} lines of 64000 moves", lines - entries.len());
        let last = read(directory.path()).unwrap().0.into_iter().filter_map(|entry| entry.memory).next_back().unwrap();
        snapshot.devices[0].processes = vec![process(last.pid, 5_000)];
        log.observe(&snapshot, now(1000));
        let mut memory = read(directory.path()).unwrap().0.into_iter().filter_map(|entry| entry.memory);
        let next = memory.rfind(|memory| memory.after_bytes == Some(Bytes::mib(5_000))).unwrap();
        assert_eq!(next.before_bytes, last.after_bytes, "what was left out is in the next line");
        let said = entries.iter().filter(|entry| {
            matches!(&entry.event, Some(Event::Warning { message })
            if message.contains("uid 2"))
        });
        assert_eq!(said.count(), 1);
    }

    /// Keeps nothing.
    struct Nowhere;

    impl Storage for Nowhere {
        fn save(&mut self, _: &Saved) -> Result<(), StoreError> {
            Ok(())
        }
    }

    #[test]
    fn memory_that_swings_under_many_leases_is_written_down_to_a_bound() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::new(Some(&(directory.path().to_owned(), 4 << 20)), broadcast::channel(1).0);
        let at = |seconds: u64| Now {
            boottime: Boottime::from_millis(seconds * 1000),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        };
        let mut keeper = Keeper::new(Ledger::new(Settings::default(), "boot", 7), Nowhere);
        let mut snapshot = crate::leases::testing::snapshot(&[("GPU-a", 80)]);
        let ancestry = Ancestry::default();
        let unit = Some("u.service".to_owned());
        for _ in 0..64 {
            let now = at(1);
            let reading = Reading { snapshot: &snapshot, taken_at: now.boottime, ancestry: &ancestry };
            let request = GrantRequest {
                devices: [("GPU-a".to_owned(), Bytes::mib(8))].into(),
                ttl: Duration::from_secs(500),
                holder: Holder { process: None, name: Some("n".to_owned()), unit: unit.clone(), cgroup: None },
                uid: 2,
                idempotency_key: None,
                question: QuestionSummary::default(),
            };
            keeper.grant(request, &reading, now).unwrap();
        }
        let mut tell = |keeper: &mut Keeper<Nowhere>, now| {
            log.tell(keeper.drain_events().into_iter().map(Happened::from).collect(), now);
            read(directory.path()).unwrap().0.len()
        };
        let before = tell(&mut keeper, at(2));
        let mut lines = before;
        for second in 3..123 {
            let process = Process { unit: unit.clone(), start_ticks: Some(5), ..process(77, 64 * 8) };
            snapshot.devices[0].processes = if second % 2 == 0 { Vec::new() } else { vec![process] };
            let reading = Reading { snapshot: &snapshot, taken_at: at(second).boottime, ancestry: &ancestry };
            keeper.settle(&reading, at(second));
            lines = tell(&mut keeper, at(second));
        }
        assert!(lines > before && lines - before < 260, "{} lines of one user in 120 s", lines - before);
    }
}
