//! What happened, passed on: to the journal, to the log, to those who listen.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::Snapshot;
use tokio::sync::broadcast;
use tracing::warn;

use super::attributed_event::AttributedEvent;
use super::event_rate_limiter::EventRateLimiter;
use super::log_line::say;
use crate::leases::clock::Now;
use crate::leases::event::{Dated, Event, Subject};
use crate::leases::journal::{
    Bounds, Checkpoint, Entry, Journal, MemoryChange, MemoryWatch, unnamed,
};
use crate::leases::lease::Lease;
use crate::leases::observed::{Observation, readable};

/// Lines that are kept while the journal cannot be written.
const MOST_UNWRITTEN: usize = 1024;
/// Moves of a process's memory below this are not worth a line of the journal.
const MEMORY_STEP: Bytes = Bytes::mib(256);

/// A reading this much older than the last one was overtaken on its way. What is older still is of
/// a clock that was set.
const OVERTAKEN: Duration = Duration::from_secs(60);

/// Where the journal is, and how much of it is kept.
#[derive(Clone, Debug)]
pub struct JournalSettings {
    /// Its directory.
    pub directory: PathBuf,
    /// When one of its two files is full.
    pub bounds: Bounds,
    /// Readings further apart than this leave a gap in what is known.
    pub gap: Duration,
}

/// What a checkpoint says, beside who holds memory.
#[derive(Debug, Default)]
struct KnownGrant {
    /// The leases that are alive, by id.
    leases: BTreeMap<String, Subject>,
    /// The devices that the last reading could read.
    devices: BTreeSet<String>,
    /// When that was.
    read_at: Option<SystemTime>,
}

impl KnownGrant {
    fn take(&mut self, event: &Event) {
        if let Event::Ended { lease, .. } = event {
            self.leases.remove(&lease.lease);
        } else if let Some(lease) = event.subject() {
            self.leases.insert(lease.lease.clone(), lease.clone());
        }
    }

    fn checkpoint(&self, at: SystemTime, memory: &MemoryWatch) -> Entry {
        let checkpoint = Checkpoint {
            leases: self.leases.values().cloned().collect(),
            memory: memory.holders().cloned().collect(),
            devices: self.devices.clone(),
        };
        Entry::checkpoint(at, checkpoint)
    }
}

/// The ways out.
#[derive(Debug)]
pub(super) struct Log {
    /// Where the journal is; `None`: there is none.
    settings: Option<JournalSettings>,
    /// `None` until it could be opened.
    journal: Option<Journal>,
    memory: MemoryWatch,
    observation: Observation,
    known: KnownGrant,
    budget: EventRateLimiter,
    listeners: broadcast::Sender<Dated>,
    /// Lines that could not be written yet, the oldest first.
    unwritten: Vec<Entry>,
    /// Lines that were dropped because there were too many of those.
    dropped: usize,
}

impl Log {
    pub(super) fn new(
        settings: Option<&JournalSettings>,
        listeners: broadcast::Sender<Dated>,
    ) -> Self {
        let mut log = Self {
            settings: settings.cloned(),
            journal: None,
            memory: MemoryWatch::new(MEMORY_STEP),
            observation: Observation::new(settings.map_or(Duration::ZERO, |settings| settings.gap)),
            known: KnownGrant::default(),
            budget: EventRateLimiter::default(),
            listeners,
            unwritten: Vec::new(),
            dropped: 0,
        };

        if let (Some(settings), Err(error)) = (settings, log.append(&[])) {
            let directory = settings.directory.display();
            warn!(%directory, %error, "the journal cannot be opened; its lines are kept and tried again every second");
        }

        log
    }

    /// The grants among `restored` leases that the last daemon did not come to tell of.
    pub(super) fn untold<'l>(
        &self,
        restored: impl IntoIterator<Item = &'l Lease>,
    ) -> Vec<AttributedEvent> {
        let Some(settings) = &self.settings else {
            return Vec::new();
        };

        let unnamed = unnamed(&settings.directory, restored).unwrap_or_else(|error| {
            warn!(%error, "the journal cannot be read; grants of the last run may be missing from it");
            Vec::new()
        });

        unnamed
            .into_iter()
            .map(|lease| Event::Granted(Subject::of(lease)).into())
            .collect()
    }

    /// Events of leases and of the line.
    pub(super) fn tell(&mut self, all: Vec<AttributedEvent>, now: Now) {
        let at = now.wall;
        let mut entries = Vec::with_capacity(all.len());

        for happened in all {
            self.known.take(&happened.event);
            let admitted = self.budget.admits(&happened, now.boottime);
            say(&happened, admitted);

            if admitted {
                entries.push(Entry::event(at, happened.event.clone()));
            }
            // Nobody listening is no failure.
            let _listeners = self.listeners.send(Dated {
                at,
                event: happened.event,
            });
        }

        for happened in self.budget.due(now.boottime) {
            say(&happened, true);
            entries.push(Entry::event(at, happened.event));
        }

        self.write(entries);
    }

    /// The leases that are alive at the start.
    pub(super) fn restore<'l>(&mut self, live: impl IntoIterator<Item = &'l Lease>) {
        self.known.leases = live
            .into_iter()
            .map(|lease| (lease.id.clone(), Subject::of(lease)))
            .collect();
    }

    /// Takes a reading in: whose memory moved, and that it was looked.
    pub(super) fn observe(&mut self, snapshot: &Snapshot, now: Now) {
        let behind = self
            .known
            .read_at
            .and_then(|last| last.duration_since(snapshot.sampled_at).ok());
        let is_known = behind.is_some_and(|behind| behind < OVERTAKEN);
        if self.settings.is_none() || snapshot.stale || is_known {
            return;
        }

        let is_first = self.known.read_at.replace(snapshot.sampled_at).is_none();
        let before = std::mem::replace(&mut self.known.devices, readable(snapshot));
        let seen = self.observation.reading(snapshot);

        let mut entries: Vec<Entry> = seen
            .spans
            .into_iter()
            .map(|(at, span)| Entry::observed(at, span))
            .collect();

        if is_first {
            // Who is there already has not come just now.
            self.memory.changes(snapshot, &BTreeSet::new(), |_| true);
            entries.push(self.known.checkpoint(now.wall, &self.memory));
        } else {
            let budget = &mut self.budget;
            let admits = |change: &MemoryChange| budget.admits_memory(change.uid, now.boottime);

            let followed = if seen.after_gap {
                BTreeSet::new()
            } else {
                before
            };

            let changes = self.memory.changes(snapshot, &followed, admits);
            entries.extend(
                changes
                    .into_iter()
                    .map(|change| Entry::memory(now.wall, change)),
            );
        }

        self.write(entries);
    }

    /// Writes what is still to be written of the readings, as before the end.
    pub(super) fn end(&mut self) {
        let span = self
            .observation
            .end()
            .map(|(at, span)| Entry::observed(at, span));
        self.write(span.into_iter().collect());
    }

    /// Whether lines could not be written yet.
    pub(super) fn is_behind(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Tries again to write what could not be written.
    pub(super) fn write_again(&mut self, now: Now) {
        let mut entries = std::mem::take(&mut self.unwritten);
        if self.dropped > 0 {
            let message = format!(
                "{} lines of the journal were lost while it could not be written",
                self.dropped
            );
            entries.insert(0, Entry::event(now.wall, Event::Warning { message }));
        }

        if self.append(&entries).is_ok() {
            self.dropped = 0;
            return;
        }

        if self.dropped > 0 {
            entries.remove(0);
        }

        self.unwritten = entries;
    }

    /// Writes `entries` after those that could not be written yet.
    fn write(&mut self, entries: Vec<Entry>) {
        if self.settings.is_none() || entries.is_empty() {
            return;
        }

        if self.unwritten.is_empty() {
            let Err(error) = self.append(&entries) else {
                return;
            };
            warn!(%error, "the journal cannot be written; its lines are kept and tried again every second");
        }

        self.unwritten.extend(entries);
        let excess = self.unwritten.len().saturating_sub(MOST_UNWRITTEN);
        self.unwritten.drain(..excess);
        self.dropped = self.dropped.saturating_add(excess);
    }

    /// Writes `entries` to the journal, which is opened first where that failed before.
    fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        let Some(JournalSettings {
            directory, bounds, ..
        }) = &self.settings
        else {
            return Ok(());
        };

        let journal = match &mut self.journal {
            Some(journal) => journal,
            closed @ None => closed.insert(Journal::open(directory, *bounds)?),
        };

        let (known, memory) = (&self.known, &self.memory);
        journal.append(entries, || {
            Some(known.checkpoint(entries.first()?.at, memory))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leases::account::JournalAccount;
    use crate::leases::attribution::HolderReading;
    use crate::leases::clock::Boottime;
    use crate::leases::durable_ledger::DurableLedger;
    use crate::leases::holder::Ancestry;
    use crate::leases::journal::read;
    use crate::leases::lease::{Holder, QuestionSummary};
    use crate::leases::ledger::{GrantRequest, Ledger, LedgerConfig, Saved};
    use crate::leases::store::{LedgerStorage, StoreError};
    use crate::leases::testing::process;
    use hf_mem_core::device::Process;
    use hf_mem_core::report::lease::EndReason;

    fn settings(directory: &tempfile::TempDir, most_bytes: u64) -> JournalSettings {
        let bounds = Bounds {
            most_bytes,
            longest: Duration::from_secs(86_400),
        };

        JournalSettings {
            directory: directory.path().to_owned(),
            bounds,
            gap: Duration::from_secs(60),
        }
    }

    #[test]
    fn one_user_cannot_wash_out_what_is_known_of_another() {
        let directory = tempfile::tempdir().unwrap();
        let most = 200_000;
        let mut log = Log::new(Some(&settings(&directory, most)), broadcast::channel(1).0);

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
            granted_bytes: [(
                "GPU-00000000-0000-4000-8000-000000000000".to_owned(),
                Bytes::gib(1),
            )]
            .into(),
            visible_bytes: [(
                "GPU-00000000-0000-4000-8000-000000000000".to_owned(),
                Bytes::ZERO,
            )]
            .into(),
        };

        log.tell(
            vec![Event::Granted(subject(1, "victim".to_owned())).into()],
            now(10),
        );
        for second in 11..41 {
            let churn = (0..100).flat_map(|number| {
                let lease = subject(2, format!("{second}-{number}"));
                [
                    Event::Granted(lease.clone()),
                    Event::Ended {
                        lease,
                        reason: EndReason::ByOwner,
                    },
                ]
                .map(AttributedEvent::from)
            });
            log.tell(churn.collect(), now(second));
        }

        let (entries, unreadable) = read(directory.path()).unwrap();
        assert_eq!(unreadable, 0);

        assert!(
            entries.len() < 400,
            "{} lines of 6001 events",
            entries.len()
        );

        let then = JournalAccount::at(&entries, now(41).wall, 0);
        assert_eq!(
            then.leases
                .iter()
                .map(|lease| lease.lease.as_str())
                .collect::<Vec<_>>(),
            ["victim"]
        );

        // Nor by memory that comes and goes.
        let mut snapshot = crate::leases::testing::snapshot(&[("GPU-a", 80)]);
        for reading in 0..1000 {
            let swing = if reading % 2 == 0 { 600 } else { 300 };
            snapshot.devices[0].processes = (100..164).map(|pid| process(pid, swing)).collect();
            snapshot.sampled_at = now(42).wall + Duration::from_millis(10 * reading);
            log.observe(&snapshot, now(42 + reading / 100));
        }

        let lines = read(directory.path()).unwrap().0.len();
        assert!(
            lines - entries.len() <= 142,
            "{} lines of 64000 moves",
            lines - entries.len()
        );

        let last = read(directory.path())
            .unwrap()
            .0
            .into_iter()
            .filter_map(|entry| entry.memory)
            .next_back()
            .unwrap();
        snapshot.devices[0].processes = vec![process(last.pid, 5_000)];
        snapshot.sampled_at = now(1000).wall;
        log.observe(&snapshot, now(1000));

        let mut memory = read(directory.path())
            .unwrap()
            .0
            .into_iter()
            .filter_map(|entry| entry.memory);
        let next = memory
            .rfind(|memory| memory.after_bytes == Some(Bytes::mib(5_000)))
            .unwrap();
        assert_eq!(
            next.before_bytes, last.after_bytes,
            "what was left out is in the next line"
        );

        let said = entries.iter().filter(|entry| {
            matches!(&entry.event, Some(Event::Warning { message })
            if message.contains("uid 2"))
        });
        assert_eq!(said.count(), 1);
    }

    /// Keeps nothing.
    struct Nowhere;

    impl LedgerStorage for Nowhere {
        fn save(&mut self, _: &Saved) -> Result<(), StoreError> {
            Ok(())
        }
    }

    #[test]
    fn memory_that_swings_under_many_leases_is_written_down_to_a_bound() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::new(
            Some(&settings(&directory, 4 << 20)),
            broadcast::channel(1).0,
        );

        let at = |seconds: u64| Now {
            boottime: Boottime::from_millis(seconds * 1000),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        };

        let mut keeper =
            DurableLedger::new(Ledger::new(LedgerConfig::default(), "boot", 7), Nowhere);
        let mut snapshot = crate::leases::testing::snapshot(&[("GPU-a", 80)]);
        let ancestry = Ancestry::default();
        let unit = Some("u.service".to_owned());

        for _ in 0..64 {
            let now = at(1);
            let reading = HolderReading {
                snapshot: &snapshot,
                taken_at: now.boottime,
                ancestry: &ancestry,
            };

            let request = GrantRequest {
                devices: [("GPU-a".to_owned(), Bytes::mib(8))].into(),
                ttl: Duration::from_secs(500),
                holder: Holder {
                    process: None,
                    name: Some("n".to_owned()),
                    unit: unit.clone(),
                    cgroup: None,
                },
                uid: 2,
                idempotency_key: None,
                question: QuestionSummary::default(),
            };

            keeper.grant(request, &reading, now).unwrap();
        }

        let mut tell = |keeper: &mut DurableLedger<Nowhere>, now| {
            log.tell(
                keeper
                    .drain_events()
                    .into_iter()
                    .map(AttributedEvent::from)
                    .collect(),
                now,
            );

            read(directory.path()).unwrap().0.len()
        };

        let before = tell(&mut keeper, at(2));
        let mut lines = before;

        for second in 3..123 {
            let process = Process {
                unit: unit.clone(),
                start_ticks: Some(5),
                ..process(77, 64 * 8)
            };

            snapshot.devices[0].processes = if second % 2 == 0 {
                Vec::new()
            } else {
                vec![process]
            };

            let reading = HolderReading {
                snapshot: &snapshot,
                taken_at: at(second).boottime,
                ancestry: &ancestry,
            };

            keeper.settle(&reading, at(second));
            lines = tell(&mut keeper, at(second));
        }

        assert!(
            lines > before && lines - before < 260,
            "{} lines of one user in 120 s",
            lines - before
        );
    }

    #[test]
    fn holder_from_before_is_recorded_as_found() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::new(
            Some(&settings(&directory, 4 << 20)),
            broadcast::channel(1).0,
        );
        let mut snapshot = crate::leases::testing::snapshot(&[("GPU-a", 80)]);
        let observe = |log: &mut Log, snapshot: &mut Snapshot, second: u64, pids: &[u32]| {
            let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            snapshot.devices[0].processes =
                pids.iter().map(|pid| process(*pid, 30 << 10)).collect();
            snapshot.sampled_at = wall;

            log.observe(
                snapshot,
                Now {
                    boottime: Boottime::from_millis(second * 1000),
                    wall,
                },
            );
        };

        let account = |second: u64| {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            JournalAccount::at(&read(directory.path()).unwrap().0, at, 0)
        };

        // No lease and nobody in line: the readings alone are recorded.
        observe(&mut log, &mut snapshot, 100, &[7]);
        observe(&mut log, &mut snapshot, 130, &[7, 8]);
        observe(&mut log, &mut snapshot, 160, &[7, 8]);
        observe(&mut log, &mut snapshot, 900, &[7, 8, 9]);
        log.end();

        let found = |second: u64| {
            account(second)
                .memory
                .into_iter()
                .map(|change| (change.pid, change.found))
        };

        assert_eq!(
            found(100).collect::<Vec<_>>(),
            [(7, true)],
            "it was there before"
        );

        let mut then: Vec<_> = found(150).collect();
        then.sort_unstable();

        assert_eq!(
            then,
            [(7, true), (8, false)],
            "it came between two readings"
        );

        assert!(account(150).gaps.is_empty());
        assert_eq!(
            account(500).gaps[0].from.as_deref(),
            Some("1970-01-01T00:02:40Z")
        );
        let mut last: Vec<_> = found(900).collect();
        last.sort_unstable();

        assert_eq!(
            last,
            [(7, true), (8, false), (9, true)],
            "it came at some time in the gap"
        );

        // A device that could not be read for a while has a gap of its own.
        snapshot.devices[0].free_bytes = None;
        snapshot.sampled_at = SystemTime::UNIX_EPOCH + Duration::from_secs(910);

        log.observe(
            &snapshot,
            Now {
                boottime: Boottime::from_millis(910_000),
                wall: snapshot.sampled_at,
            },
        );

        snapshot.devices[0].free_bytes = Some(Bytes::gib(80));
        observe(&mut log, &mut snapshot, 920, &[7, 8, 9, 10]);
        log.end();
        assert!(found(920).any(|holder| holder == (10, true)));

        // The next daemon finds one of them gone, whenever that was.
        let mut next = Log::new(
            Some(&settings(&directory, 4 << 20)),
            broadcast::channel(1).0,
        );
        observe(&mut next, &mut snapshot, 5_000, &[7, 9]);
        let mut last: Vec<_> = found(5_000).map(|(pid, _)| pid).collect();
        last.sort_unstable();
        assert_eq!(last, [7, 9]);
    }

    #[test]
    fn journal_opens_late_and_misses_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let absent = JournalSettings {
            directory: directory.path().join("absent"),
            ..settings(&directory, 1 << 20)
        };

        let mut log = Log::new(Some(&absent), broadcast::channel(1).0);
        let now = |seconds| Now {
            boottime: Boottime::from_millis(seconds * 1000),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        };

        let warning = |number: u64| Event::Warning {
            message: number.to_string(),
        };

        for number in 0..3 {
            log.tell(vec![warning(number).into()], now(number));
        }

        assert!(log.is_behind());
        log.write_again(now(4));
        assert!(log.is_behind());

        std::fs::create_dir(&absent.directory).unwrap();
        log.write_again(now(5));
        assert!(!log.is_behind());
        log.tell(vec![warning(3).into()], now(6));

        let events: Vec<_> = read(&absent.directory)
            .unwrap()
            .0
            .into_iter()
            .filter_map(|entry| entry.event)
            .collect();
        assert_eq!(events, [0, 1, 2, 3].map(warning));
    }
}
