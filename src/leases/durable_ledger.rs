//! The ledger and its store as one: a promise is given only once it is on disk.

use std::time::Duration;

use super::attribution::HolderReading;
use super::clock::Now;
use super::event::{Counters, Event};
use super::holder::ProcessIdentity;
use super::lease::Lease;
use super::ledger::{
    ChangeError, GrantError, GrantRequest, Granted, Ledger, LedgerConfig, Release,
};
use super::store::{LedgerStorage, Loaded, Store, StoreError};
use super::unreadable_ledger::{Unreadable, UnreadableLedger};

/// Why a promise was not given or not prolonged.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The ledger refuses it.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// The ledger refuses the change.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// What is promised already is not known.
    #[error("{0}")]
    Blind(Box<UnreadableLedger>),
    /// It could not be kept, so it was not given.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The one owner of the ledger.
#[derive(Debug)]
pub struct DurableLedger<S> {
    ledger: Ledger,
    storage: S,
    /// Promises that nobody can read.
    blind: Option<UnreadableLedger>,
    /// The revision on disk; `None` where that is not known.
    written: Option<u64>,
    /// The last write failed: said once, not with every reading.
    failing: bool,
    counters: Counters,
    events: Vec<Event>,
}

impl DurableLedger<Store> {
    /// Opens a store and takes up what it holds. A file that could not be trusted is told as a
    /// warning.
    pub fn open(
        mut store: Store,
        settings: LedgerConfig,
        boot_id: &str,
        run: u32,
        now: Now,
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
    /// Keeps this ledger there. Nothing is written until something changes.
    pub fn new(ledger: Ledger, storage: S) -> Self {
        // A ledger fresh from nowhere is as good as written; a restored one has just changed.
        let written = (ledger.revision() == 0).then_some(0);
        Self {
            ledger,
            storage,
            blind: None,
            written,
            failing: false,
            counters: Counters::default(),
            events: Vec::new(),
        }
    }

    /// Takes up what a storage was found to hold. Leases in files that cannot be read are not
    /// forgotten: nothing is granted until they must have ended.
    pub fn resume(
        storage: S,
        (loaded, unreadable): (Loaded, &[Unreadable]),
        settings: LedgerConfig,
        boot_id: &str,
        run: u32,
        now: Now,
        alive: impl Fn(&ProcessIdentity) -> bool,
    ) -> Self {
        let blind = UnreadableLedger::of(unreadable, &settings, boot_id, now);
        let mut warning = None;

        let ledger = match loaded {
            Loaded::Nothing => Ledger::new(settings, boot_id, run),
            Loaded::Found(saved) => Ledger::restore(settings, boot_id, run, *saved, now, alive),
            Loaded::SetAside { moved_to, why } => {
                warning = Some(format!(
                    "the leases of the last run cannot be trusted: {why}. The file is kept as {}",
                    moved_to.display()
                ));
                Ledger::new(settings, boot_id, run)
            }
        };

        let mut keeper = Self::new(ledger, storage);
        let blinded = blind
            .as_ref()
            .map(|blind| format!("{blind}; {}", blind.cure()));

        keeper.events.extend(
            warning
                .into_iter()
                .chain(blinded)
                .map(|message| Event::Warning { message }),
        );

        keeper.blind = blind;
        keeper.tidy(now);

        keeper
    }

    /// The ledger, to be read.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Whether there are promises that nobody can read, and that may not have ended.
    pub fn blind(&self, now: Now) -> Option<&UnreadableLedger> {
        self.blind
            .as_ref()
            .filter(|blind| !blind.is_over(now.boottime))
    }

    /// New rules.
    pub fn set_settings(&mut self, settings: LedgerConfig) {
        self.ledger.set_settings(settings);
    }

    /// The storage, to be taken along when a test "kills" the daemon.
    pub fn into_storage(self) -> S {
        self.storage
    }

    /// How often things happened.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What happened since this was last called.
    pub fn drain_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// See [`Ledger::recall`].
    pub fn recall(
        &mut self,
        uid: u32,
        key: &str,
        digest: &str,
        now: Now,
    ) -> Result<Option<Lease>, CommitError> {
        let recalled = self.ledger.recall(uid, key, digest, now);
        self.tidy(now);
        Ok(recalled?)
    }

    /// Promises memory and keeps the promise; if it cannot be kept it was never given. See
    /// [`Ledger::grant`].
    pub fn grant(
        &mut self,
        request: GrantRequest,
        reading: &HolderReading<'_>,
        now: Now,
    ) -> Result<Granted, CommitError> {
        let granted = match self.blind(now) {
            Some(blind) => Err(CommitError::Blind(Box::new(blind.clone()))),
            None => self
                .ledger
                .grant(request, reading, now)
                .map_err(CommitError::from),
        };

        let serial = match &granted {
            Ok(Granted::Now(lease)) => Some(lease.serial),
            _ => None,
        };

        self.keep(
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

    /// See [`Ledger::renew`]. A renewal that would not survive is refused too.
    pub fn renew(
        &mut self,
        id: &str,
        actor: u32,
        ttl: Option<Duration>,
        now: Now,
    ) -> Result<Lease, CommitError> {
        let before = self.ledger.get(id).cloned();
        let renewed = self
            .ledger
            .renew(id, actor, ttl, now)
            .map_err(CommitError::from);

        self.keep(
            renewed,
            |ledger| before.into_iter().for_each(|lease| ledger.put_back(lease)),
            now,
        )
    }

    /// See [`Ledger::release`]. A release that would not survive fails, and the lease stays as it
    /// was: after a restart its owner would hold it again without knowing.
    pub fn release(&mut self, id: &str, actor: u32, now: Now) -> Result<Release, CommitError> {
        let before = self.ledger.get(id).cloned();
        let released = self
            .ledger
            .release(id, actor, now)
            .map_err(CommitError::from);

        let undone = match &released {
            Ok(Release::Done(_)) => before,
            _ => None,
        };

        self.keep(
            released,
            |ledger| {
                if let Some(lease) = undone {
                    ledger.take_up_again(lease);
                }
            },
            now,
        )
    }

    /// See [`Ledger::undelivered`]. It takes effect at once: no client knows of the lease. What
    /// could not be written is written when the disk is back.
    pub fn undelivered(&mut self, id: &str, now: Now) -> Result<Release, CommitError> {
        let released = self.ledger.undelivered(id, now);
        self.tidy(now);
        Ok(released?)
    }

    /// See [`Ledger::settle`].
    pub fn settle(&mut self, reading: &HolderReading<'_>, now: Now) {
        self.ledger.settle(reading, now);
        self.tidy(now);
    }

    /// See [`Ledger::expire`].
    pub fn expire(&mut self, now: Now) {
        self.ledger.expire(now);
        self.tidy(now);
    }

    /// See [`Ledger::holder_died`].
    pub fn holder_died(&mut self, process: &ProcessIdentity, now: Now) {
        self.ledger.holder_died(process, now);
        self.tidy(now);
    }

    /// Writes down what is not on disk yet, as before the end.
    pub fn flush(&mut self, now: Now) {
        self.tidy(now);
    }

    /// Whether something is not on disk yet, because it could not be written.
    pub fn is_behind(&self) -> bool {
        self.written != Some(self.ledger.revision())
    }

    fn keep<T>(
        &mut self,
        outcome: Result<T, CommitError>,
        undo: impl FnOnce(&mut Ledger),
        now: Now,
    ) -> Result<T, CommitError> {
        if outcome.is_err() {
            self.tidy(now);
            return outcome;
        }

        let written = self.write(now);
        if let Err(error) = &written {
            undo(&mut self.ledger);
            // The file may hold the promise or not; the next write that succeeds sets it right.
            self.written = None;
            self.tell_failure(error);
        }

        self.collect();
        written?;

        outcome
    }

    /// Writes down what needs no answer, and passes the events on.
    fn tidy(&mut self, now: Now) {
        if let Err(error) = self.write(now) {
            self.tell_failure(&error);
        }
        self.collect();
    }

    fn write(&mut self, now: Now) -> Result<(), StoreError> {
        let revision = self.ledger.revision();
        if self.written == Some(revision) {
            return Ok(());
        }

        self.storage.save(&self.ledger.saved(now))?;
        self.written = Some(revision);
        self.failing = false;

        Ok(())
    }

    fn tell_failure(&mut self, error: &StoreError) {
        self.counters.store_failures = self.counters.store_failures.saturating_add(1);
        if !std::mem::replace(&mut self.failing, true) {
            self.events.push(Event::Warning {
                message: error.to_string(),
            });
        }
    }

    fn collect(&mut self) {
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

    fn now(seconds: u64) -> Now {
        let wall = SystemTime::now() + Duration::from_secs(seconds);
        Now {
            boottime: Boottime::from_millis(1_000_000 + seconds * 1000),
            wall,
        }
    }

    fn settings() -> LedgerConfig {
        LedgerConfig {
            longest_ttl: Duration::from_secs(600),
            ..LedgerConfig::default()
        }
    }

    fn open(directory: &Path, now: Now) -> DurableLedger<Store> {
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

    fn grant(keeper: &mut DurableLedger<Store>, now: Now) -> Result<Granted, CommitError> {
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

        keeper.grant(request, &reading, now)
    }

    /// One bit of the ledger is another: in its first line, or in the rest.
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

    fn blind(granted: &Result<Granted, CommitError>) -> bool {
        matches!(granted, Err(CommitError::Blind(_)))
    }

    #[test]
    fn what_was_promised_in_a_file_that_is_damaged_is_not_promised_again() {
        // Where the first line is whole the time to live is known, and where not it is the longest.
        for (first_line, until) in [(false, 500), (true, 600)] {
            damaged(first_line, until);
        }
    }

    fn damaged(first_line: bool, until: u64) {
        let directory = tempfile::tempdir().unwrap();
        let mut keeper = open(directory.path(), now(0));
        assert!(
            grant(&mut keeper, now(0)).is_ok(),
            "a new host is not blind"
        );
        drop(keeper);
        flip(&directory.path().join("leases.json"), first_line);

        // As often as it is started: the file that was set aside is looked at again.
        for start in 1..=3 {
            let mut keeper = open(directory.path(), now(start));
            assert!(blind(&grant(&mut keeper, now(start))), "start {start}");

            assert!(
                blind(&grant(&mut keeper, now(until - 10))),
                "nobody may have released it"
            );
            let told = keeper.drain_events();
            assert!(told.iter().any(
                |event| matches!(event, Event::Warning { message } if message.contains("restart"))
            ));
        }

        let mut keeper = open(directory.path(), now(4));
        assert!(
            grant(&mut keeper, now(until + 10)).is_ok(),
            "its time is up"
        );
        drop(keeper);
        let mut keeper = open(directory.path(), now(until + 20));
        assert!(keeper.blind(now(until + 20)).is_none());
        assert!(!blind(&grant(&mut keeper, now(until + 20))));
    }

    #[test]
    fn who_removes_the_damaged_file_may_grant_again_at_once() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("leases.json"), "of another version").unwrap();
        let mut keeper = open(directory.path(), now(0));
        assert!(blind(&grant(&mut keeper, now(0))));
        drop(keeper);
        fs::remove_file(directory.path().join("leases.json.set-aside-1")).unwrap();
        assert!(grant(&mut open(directory.path(), now(1)), now(1)).is_ok());
    }

    #[test]
    fn a_damaged_file_in_which_nothing_was_alive_hides_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut keeper = open(directory.path(), now(0));
        let lease = grant(&mut keeper, now(0)).unwrap().lease().id.clone();
        keeper.release(&lease, 1000, now(1)).unwrap();
        drop(keeper);
        flip(&directory.path().join("leases.json"), false);
        assert!(grant(&mut open(directory.path(), now(2)), now(2)).is_ok());
    }

    #[test]
    fn a_damaged_file_of_long_ago_hides_nothing() {
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
