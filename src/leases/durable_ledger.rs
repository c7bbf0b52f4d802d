//! The ledger and its storage as one: a lease is persisted before it is acknowledged.

use std::time::Duration;

use super::attribution::HolderReading;
use super::clock::Timestamp;
use super::event::{Counters, Event};
use super::holder::ProcessIdentity;
use super::lease::Lease;
use super::ledger::{
    ChangeError, GrantError, GrantRequest, Granted, Ledger, LedgerConfig, Release,
};
use super::store::{LedgerStorage, Loaded, Store, StoreError};
use super::unreadable_ledger::{Unreadable, UnreadableLedger};

/// Why a lease was not granted, renewed or released.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The ledger refuses the grant.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// The ledger refuses the change.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// Leases of an earlier run cannot be read, so what is leased is unknown.
    #[error("{0}")]
    Unreadable(Box<UnreadableLedger>),
    /// The ledger could not be written, so the request failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A ledger that is written to its storage with each change.
#[derive(Debug)]
pub struct DurableLedger<S> {
    ledger: Ledger,
    storage: S,
    /// Leases of an earlier run that cannot be read.
    unreadable: Option<UnreadableLedger>,
    /// The revision on disk; `None` if it is unknown.
    written: Option<u64>,
    /// Whether the last write failed. The warning is logged once, not with every attempt.
    failing: bool,
    counters: Counters,
    events: Vec<Event>,
}

impl DurableLedger<Store> {
    /// Opens the ledger in a store. A file that cannot be trusted causes a warning event.
    pub fn open(
        mut store: Store,
        settings: LedgerConfig,
        boot_id: &str,
        run: u32,
        now: Timestamp,
        alive: impl Fn(&ProcessIdentity) -> bool,
    ) -> Result<Self, StoreError> {
        let loaded = store.load()?;
        let unreadable = store.unreadable()?;
        Ok(Self::resume(
            store,
            (loaded, &unreadable),
            settings,
            boot_id,
            run,
            now,
            alive,
        ))
    }
}

impl<S: LedgerStorage> DurableLedger<S> {
    /// Combines a ledger and its storage. Nothing is written until something changes.
    pub fn new(ledger: Ledger, storage: S) -> Self {
        // A new, empty ledger counts as written; a restored one has just changed.
        let written = (ledger.revision() == 0).then_some(0);
        Self {
            ledger,
            storage,
            unreadable: None,
            written,
            failing: false,
            counters: Counters::default(),
            events: Vec::new(),
        }
    }

    /// Restores the ledger from what its storage holds. If files of leases cannot be read, nothing
    /// is granted until those leases must have ended.
    pub fn resume(
        storage: S,
        (loaded, unreadable): (Loaded, &[Unreadable]),
        settings: LedgerConfig,
        boot_id: &str,
        run: u32,
        now: Timestamp,
        alive: impl Fn(&ProcessIdentity) -> bool,
    ) -> Self {
        let unreadable = UnreadableLedger::of(unreadable, &settings, boot_id, now);
        let mut warning = None;

        let ledger = match loaded {
            Loaded::Nothing => Ledger::new(settings, boot_id, run),
            Loaded::Found(saved) => Ledger::restore(settings, boot_id, run, *saved, now, alive),
            Loaded::SetAside { moved_to, why } => {
                warning = Some(format!(
                    "the leases of the last run cannot be trusted: {why}; the file is kept as {}",
                    moved_to.display()
                ));
                Ledger::new(settings, boot_id, run)
            }
        };

        let mut durable = Self::new(ledger, storage);
        let unreadable_warning = unreadable
            .as_ref()
            .map(|unreadable| format!("{unreadable}; {}", unreadable.remedy()));

        durable.events.extend(
            warning
                .into_iter()
                .chain(unreadable_warning)
                .map(|message| Event::Warning { message }),
        );

        durable.unreadable = unreadable;
        durable.persist_pending(now);

        durable
    }

    /// The ledger, to read.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The leases of an earlier run that cannot be read and may still be live.
    pub fn unreadable(&self, now: Timestamp) -> Option<&UnreadableLedger> {
        self.unreadable
            .as_ref()
            .filter(|unreadable| !unreadable.is_over(now.boottime))
    }

    /// Replaces the rules.
    pub fn set_settings(&mut self, settings: LedgerConfig) {
        self.ledger.set_settings(settings);
    }

    /// The storage, for a test that "kills" the daemon.
    pub fn into_storage(self) -> S {
        self.storage
    }

    /// Event counts since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The events since the last call.
    pub fn drain_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// See [`Ledger::recall`].
    pub fn recall(
        &mut self,
        uid: u32,
        key: &str,
        digest: &str,
        now: Timestamp,
    ) -> Result<Option<Lease>, CommitError> {
        let recalled = self.ledger.recall(uid, key, digest, now);
        self.persist_pending(now);
        Ok(recalled?)
    }

    /// Grants a lease and persists it. If it cannot be persisted, it was never granted. See
    /// [`Ledger::grant`].
    pub fn grant(
        &mut self,
        request: GrantRequest,
        reading: &HolderReading<'_>,
        now: Timestamp,
    ) -> Result<Granted, CommitError> {
        let granted = match self.unreadable(now) {
            Some(unreadable) => Err(CommitError::Unreadable(Box::new(unreadable.clone()))),
            None => self
                .ledger
                .grant(request, reading, now)
                .map_err(CommitError::from),
        };

        let serial = match &granted {
            Ok(Granted::New(lease)) => Some(lease.serial),
            _ => None,
        };

        self.commit(
            granted,
            |ledger| {
                if let Some(serial) = serial {
                    ledger.withdraw(serial);
                }
            },
            now,
        )
        .inspect_err(|_| {
            self.counters.refused = self.counters.refused.saturating_add(1);
        })
    }

    /// See [`Ledger::renew`]. A renewal that cannot be persisted fails.
    pub fn renew(
        &mut self,
        id: &str,
        actor: u32,
        ttl: Option<Duration>,
        now: Timestamp,
    ) -> Result<Lease, CommitError> {
        let before = self.ledger.get(id).cloned();
        let renewed = self
            .ledger
            .renew(id, actor, ttl, now)
            .map_err(CommitError::from);

        self.commit(
            renewed,
            |ledger| {
                if let Some(lease) = before {
                    ledger.undo_renewal(lease);
                }
            },
            now,
        )
    }

    /// See [`Ledger::release`]. A release that cannot be persisted fails, and the lease stays as it
    /// was. Otherwise its user would hold it again after a restart, without knowing.
    pub fn release(
        &mut self,
        id: &str,
        actor: u32,
        now: Timestamp,
    ) -> Result<Release, CommitError> {
        let before = self.ledger.get(id).cloned();
        let released = self
            .ledger
            .release(id, actor, now)
            .map_err(CommitError::from);

        let undone = match &released {
            Ok(Release::Done(_)) => before,
            _ => None,
        };

        self.commit(
            released,
            |ledger| {
                if let Some(lease) = undone {
                    ledger.undo_release(lease);
                }
            },
            now,
        )
    }

    /// See [`Ledger::undelivered`]. It takes effect at once, because no client knows of the lease.
    /// A failed write is retried.
    pub fn undelivered(&mut self, id: &str, now: Timestamp) -> Result<Release, CommitError> {
        let released = self.ledger.undelivered(id, now);
        self.persist_pending(now);
        Ok(released?)
    }

    /// See [`Ledger::settle`].
    pub fn settle(&mut self, reading: &HolderReading<'_>, now: Timestamp) {
        self.ledger.settle(reading, now);
        self.persist_pending(now);
    }

    /// See [`Ledger::expire`].
    pub fn expire(&mut self, now: Timestamp) {
        self.ledger.expire(now);
        self.persist_pending(now);
    }

    /// See [`Ledger::holder_died`].
    pub fn holder_died(&mut self, process: &ProcessIdentity, now: Timestamp) {
        self.ledger.holder_died(process, now);
        self.persist_pending(now);
    }

    /// Writes what is not on disk yet, as before the end.
    pub fn flush(&mut self, now: Timestamp) {
        self.persist_pending(now);
    }

    /// Whether a change could not be written yet.
    pub fn is_behind(&self) -> bool {
        self.written != Some(self.ledger.revision())
    }

    /// Persists a successful change before it is acknowledged, or undoes it.
    fn commit<T>(
        &mut self,
        outcome: Result<T, CommitError>,
        undo: impl FnOnce(&mut Ledger),
        now: Timestamp,
    ) -> Result<T, CommitError> {
        if outcome.is_err() {
            self.persist_pending(now);
            return outcome;
        }

        let written = self.write(now);
        if let Err(error) = &written {
            undo(&mut self.ledger);
            // The file may contain the change or not; the next successful write corrects it.
            self.written = None;
            self.record_failure(error);
        }

        self.collect_events();
        written?;

        outcome
    }

    /// Writes changes that no client waits for, and collects the events.
    fn persist_pending(&mut self, now: Timestamp) {
        if let Err(error) = self.write(now) {
            self.record_failure(&error);
        }
        self.collect_events();
    }

    fn write(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let revision = self.ledger.revision();
        if self.written == Some(revision) {
            return Ok(());
        }

        self.storage.save(&self.ledger.saved(now))?;
        self.written = Some(revision);
        self.failing = false;

        Ok(())
    }

    fn record_failure(&mut self, error: &StoreError) {
        self.counters.store_failures = self.counters.store_failures.saturating_add(1);
        if !std::mem::replace(&mut self.failing, true) {
            self.events.push(Event::Warning {
                message: error.to_string(),
            });
        }
    }

    fn collect_events(&mut self) {
        let events = self.ledger.drain_events();
        for event in &events {
            self.counters.count(event);
        }
        self.events.extend(events);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;
    use std::time::SystemTime;

    use super::super::holder::Ancestry;
    use super::super::lease::{Holder, QuestionSummary};
    use super::super::testing::snapshot;
    use super::*;
    use crate::leases::clock::Boottime;
    use hf_mem_core::bytes::Bytes;

    const GIB: u64 = 72;

    fn now(seconds: u64) -> Timestamp {
        let wall = SystemTime::now() + Duration::from_secs(seconds);
        Timestamp {
            boottime: Boottime::from_millis(1_000_000 + seconds * 1000),
            wall,
        }
    }

    fn settings() -> LedgerConfig {
        LedgerConfig {
            max_ttl: Duration::from_secs(600),
            ..LedgerConfig::default()
        }
    }

    fn open(directory: &Path, now: Timestamp) -> DurableLedger<Store> {
        DurableLedger::open(
            Store::open(directory).unwrap(),
            settings(),
            "boot",
            1,
            now,
            |_| true,
        )
        .unwrap()
    }

    fn grant(durable: &mut DurableLedger<Store>, now: Timestamp) -> Result<Granted, CommitError> {
        let (snapshot, ancestry) = (snapshot(&[("GPU-a", 80)]), Ancestry::default());
        let reading = HolderReading {
            snapshot: &snapshot,
            taken_at: now.boottime,
            ancestry: &ancestry,
        };

        let request = GrantRequest {
            devices: [("GPU-a".to_owned(), Bytes::gib(GIB))].into(),
            ttl: Duration::from_secs(500),
            holder: Holder::named("nightly"),
            uid: 1000,
            idempotency_key: None,
            question: QuestionSummary::default(),
        };

        durable.grant(request, &reading, now)
    }

    /// Flips one bit of the file: in its first line, or in the rest.
    fn flip(path: &Path, first_line: bool) {
        let mut content = fs::read(path).unwrap();
        let end = content.iter().position(|byte| *byte == b'\n').unwrap();
        let place = if first_line {
            end - 20
        } else {
            content.len() - 20
        };

        content[place] ^= 1;
        fs::write(path, content).unwrap();
    }

    fn is_unreadable(granted: &Result<Granted, CommitError>) -> bool {
        matches!(granted, Err(CommitError::Unreadable(_)))
    }

    #[test]
    fn damaged_file_blocks_grants() {
        // If the first line is intact, the end is known; otherwise the longest time to live counts.
        for (first_line, until) in [(false, 500), (true, 600)] {
            check_damaged_file(first_line, until);
        }
    }

    fn check_damaged_file(first_line: bool, until: u64) {
        let directory = tempfile::tempdir().unwrap();
        let mut durable = open(directory.path(), now(0));
        assert!(
            grant(&mut durable, now(0)).is_ok(),
            "a new host has no unreadable leases"
        );
        drop(durable);
        flip(&directory.path().join("leases.json"), first_line);

        // Every start checks the file that was set aside.
        for start in 1..=3 {
            let mut durable = open(directory.path(), now(start));
            assert!(
                is_unreadable(&grant(&mut durable, now(start))),
                "start {start}"
            );

            assert!(
                is_unreadable(&grant(&mut durable, now(until - 10))),
                "the lease may not have been released"
            );
            let events = durable.drain_events();
            assert!(events.iter().any(
                |event| matches!(event, Event::Warning { message } if message.contains("restart"))
            ));
        }

        let mut durable = open(directory.path(), now(4));
        assert!(
            grant(&mut durable, now(until + 10)).is_ok(),
            "its time is up"
        );
        drop(durable);
        let mut durable = open(directory.path(), now(until + 20));
        assert!(durable.unreadable(now(until + 20)).is_none());
        assert!(!is_unreadable(&grant(&mut durable, now(until + 20))));
    }

    #[test]
    fn removing_damaged_file_allows_grants() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("leases.json"), "of another version").unwrap();
        let mut durable = open(directory.path(), now(0));
        assert!(is_unreadable(&grant(&mut durable, now(0))));
        drop(durable);
        fs::remove_file(directory.path().join("leases.json.set-aside-1")).unwrap();
        assert!(grant(&mut open(directory.path(), now(1)), now(1)).is_ok());
    }

    #[test]
    fn damaged_file_without_leases_is_harmless() {
        let directory = tempfile::tempdir().unwrap();
        let mut durable = open(directory.path(), now(0));
        let lease = grant(&mut durable, now(0)).unwrap().lease().id.clone();
        durable.release(&lease, 1000, now(1)).unwrap();
        drop(durable);
        flip(&directory.path().join("leases.json"), false);
        assert!(grant(&mut open(directory.path(), now(2)), now(2)).is_ok());
    }

    #[test]
    fn old_damaged_file_is_harmless() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("leases.json");
        fs::write(&path, "torn").unwrap();

        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(now(0).wall - Duration::from_secs(601))
            .unwrap();

        assert!(grant(&mut open(directory.path(), now(0)), now(0)).is_ok());
    }
}
