//! Models in memory, and one reading for everyone who asks for the same one at the same time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use hf_mem_core::model::Model;
use tokio::sync::OnceCell;

use super::error::SourceError;

/// What identifies an answer: whose it is, and what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// `public` or a token's identity.
    pub(super) scope: String,
    pub(super) repo: String,
    pub(super) revision: String,
    pub(super) file: Option<String>,
}

/// A model and when its revision was last checked.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) model: Arc<Model>,
    pub(super) checked: SystemTime,
    /// Whether that check failed, so that this is only the newest that is known.
    pub(super) stale: bool,
}

/// How long the Hub is left alone after it could not be asked about a model that is known.
const AFTER_FAILURE: Duration = Duration::from_secs(30);

impl Kept {
    /// Whether it may be given without asking the Hub. A clock that went backwards counts as long
    /// ago.
    pub(super) fn is_fresh(&self, now: SystemTime, for_at_most: Duration) -> bool {
        let for_at_most = if self.stale {
            for_at_most.min(AFTER_FAILURE)
        } else {
            for_at_most
        };

        now.duration_since(self.checked)
            .is_ok_and(|age| age < for_at_most)
    }
}

type Flight<T> = Arc<OnceCell<Result<T, SourceError>>>;

/// Models by key, the longest unused of them forgotten beyond `capacity` or `max_bytes`; and
/// readings under way.
#[derive(Debug)]
pub(super) struct KnownModels<T> {
    capacity: usize,
    max_bytes: u64,
    kept: Mutex<Used>,
    flights: Mutex<HashMap<Key, Flight<T>>>,
}

#[derive(Debug, Default)]
struct Used {
    models: HashMap<Key, KnownEntry>,
    uses: u64,
    bytes: u64,
}

#[derive(Debug)]
struct KnownEntry {
    kept: Kept,
    used: u64,
    bytes: u64,
}

impl Used {
    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.models.remove(key) {
            self.bytes = self.bytes.saturating_sub(entry.bytes);
        }
    }
}

impl<T: Clone> KnownModels<T> {
    pub(super) fn new(capacity: usize, max_bytes: u64) -> Self {
        Self {
            capacity: capacity.max(1),
            max_bytes,
            kept: Mutex::default(),
            flights: Mutex::default(),
        }
    }

    /// The model of `key`, however old.
    pub(super) fn get(&self, key: &Key) -> Option<Kept> {
        let mut kept = lock(&self.kept);
        kept.uses += 1;
        let uses = kept.uses;
        kept.models.get_mut(key).map(|found| {
            found.used = uses;
            found.kept.clone()
        })
    }

    /// Keeps a model, be it larger than all of them may be: the newest is always kept.
    pub(super) fn keep(&self, key: Key, model: Kept) {
        let bytes = model.model.heap_bytes();
        let mut kept = lock(&self.kept);
        kept.remove(&key);
        kept.uses += 1;
        kept.bytes = kept.bytes.saturating_add(bytes);

        let entry = KnownEntry {
            kept: model,
            used: kept.uses,
            bytes,
        };

        kept.models.insert(key, entry);
        while kept.models.len() > 1
            && (kept.models.len() > self.capacity || kept.bytes > self.max_bytes)
        {
            let Some(oldest) = kept
                .models
                .iter()
                .min_by_key(|(_, entry)| entry.used)
                .map(|(key, _)| key.clone())
            else {
                return;
            };

            kept.remove(&oldest);
        }
    }

    /// Models that are kept.
    pub(super) fn len(&self) -> usize {
        lock(&self.kept).models.len()
    }

    /// Forgets a model.
    pub(super) fn forget(&self, key: &Key) {
        lock(&self.kept).remove(key);
    }

    /// Runs `read` once for all who ask with the same key while it runs; its error is everyone's
    /// too.
    ///
    /// Should the asker who runs it go away, the next one begins again.
    pub(super) async fn once<F>(&self, key: &Key, read: F) -> Result<T, SourceError>
    where
        F: Future<Output = Result<T, SourceError>>,
    {
        let flight = Arc::clone(lock(&self.flights).entry(key.clone()).or_default());
        let landing = Landing {
            known: self,
            key,
            flight: &flight,
        };

        let result = flight.get_or_init(|| read).await.clone();
        drop(landing);

        result
    }
}

/// Takes a reading off the list when it is done or its last asker has gone.
struct Landing<'a, T> {
    known: &'a KnownModels<T>,
    key: &'a Key,
    flight: &'a Flight<T>,
}

impl<T> Drop for Landing<'_, T> {
    fn drop(&mut self) {
        let mut flights = lock(&self.known.flights);
        let same = flights
            .get(self.key)
            .is_some_and(|flight| Arc::ptr_eq(flight, self.flight));

        // Two: the list's own and this asker's. More: others still wait, and one of them will begin
        // again.
        if same && (self.flight.initialized() || Arc::strong_count(self.flight) <= 2) {
            flights.remove(self.key);
        }
    }
}

/// Nothing is left half done under these locks, so one that a panic poisoned is still good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use hf_mem_core::model::metadata::assemble;
    use hf_mem_core::model::metadata::sample::small;

    fn key(repo: &str) -> Key {
        Key {
            scope: "public".into(),
            repo: repo.into(),
            revision: "main".into(),
            file: None,
        }
    }

    fn kept(checked: SystemTime) -> Kept {
        Kept {
            model: Arc::new(assemble(&small("a/b", "0123456")).expect("a model")),
            checked,
            stale: false,
        }
    }

    #[tokio::test]
    async fn many_askers_one_reading() {
        let known: KnownModels<u32> = KnownModels::new(4, u64::MAX);
        let readings = AtomicU32::new(0);
        let key = key("a/b");
        let ask = || {
            known.once(&key, async {
                tokio::task::yield_now().await;
                Ok(readings.fetch_add(1, Ordering::Relaxed))
            })
        };

        let answers = futures_util::future::join_all((0..200).map(|_| ask())).await;
        assert!(answers.iter().all(|answer| *answer == Ok(0)));
        assert_eq!(readings.load(Ordering::Relaxed), 1);
        assert_eq!(ask().await, Ok(1), "a later asker reads anew");
        assert!(known.flights.lock().expect("locked").is_empty());
    }

    #[tokio::test]
    async fn an_asker_who_leaves_does_not_take_the_answer_along() {
        let known: KnownModels<u32> = KnownModels::new(4, u64::MAX);
        let key = key("a/b");
        let mut first = Box::pin(known.once(&key, std::future::pending()));
        assert!(futures_util::poll!(&mut first).is_pending());
        let mut second = Box::pin(known.once(&key, async { Ok(7) }));
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        assert_eq!(second.await, Ok(7));
        assert!(known.flights.lock().expect("locked").is_empty());
    }

    #[test]
    fn the_longest_unused_is_forgotten() {
        let known: KnownModels<u32> = KnownModels::new(2, u64::MAX);
        let now = SystemTime::UNIX_EPOCH;
        known.keep(key("a/1"), kept(now));
        known.keep(key("a/2"), kept(now));
        assert!(known.get(&key("a/1")).is_some());
        known.keep(key("a/3"), kept(now));
        assert!(known.get(&key("a/2")).is_none());
        assert!(known.get(&key("a/1")).is_some() && known.get(&key("a/3")).is_some());
    }

    #[test]
    fn what_all_take_together_is_bounded_and_the_newest_is_kept() {
        let bytes = kept(SystemTime::UNIX_EPOCH).model.heap_bytes();
        let known: KnownModels<u32> = KnownModels::new(9, bytes * 2);
        let keep = |name: &str| known.keep(key(name), kept(SystemTime::UNIX_EPOCH));
        let there = |name: &str| known.get(&key(name)).is_some();
        ["a/1", "a/2", "a/2"].into_iter().for_each(keep);
        assert!(there("a/2") && there("a/1"), "the same again takes no more");
        keep("a/3");

        assert_eq!(
            [there("a/1"), there("a/2"), there("a/3")],
            [true, false, true]
        );
        known.forget(&key("a/1"));
        keep("a/4");
        assert!(there("a/3") && there("a/4"));
        let narrow: KnownModels<u32> = KnownModels::new(9, 1);
        narrow.keep(key("a/1"), kept(SystemTime::UNIX_EPOCH));
        narrow.keep(key("a/2"), kept(SystemTime::UNIX_EPOCH));
        assert!(narrow.get(&key("a/2")).is_some() && narrow.len() == 1);
    }

    #[test]
    fn freshness_distrusts_a_clock_that_goes_backwards() {
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let limit = Duration::from_secs(10);
        assert!(kept(then).is_fresh(then + Duration::from_secs(9), limit));
        assert!(!kept(then).is_fresh(then + limit, limit));
        assert!(!kept(then).is_fresh(then - limit, limit));

        let stale = Kept {
            stale: true,
            ..kept(then)
        };

        assert!(
            !stale.is_fresh(then + AFTER_FAILURE, AFTER_FAILURE * 9)
                && stale.is_fresh(then + limit, AFTER_FAILURE)
        );
    }
}
