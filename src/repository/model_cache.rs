//! A cache of models in memory, with one shared reading for concurrent requests of the same model.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use hf_mem_core::model::Model;
use tokio::sync::OnceCell;

use super::error::SourceError;
use crate::lock_ignoring_poison::lock_ignoring_poison;

/// The key of a cached model: who may see it, and what it answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ModelKey {
    /// `public` or a token's identity.
    pub(super) scope: String,
    pub(super) repo: String,
    pub(super) revision: String,
    pub(super) file: Option<String>,
}

/// A model and when its revision was last checked.
#[derive(Clone, Debug)]
pub(super) struct CachedModel {
    pub(super) model: Arc<Model>,
    pub(super) checked: SystemTime,
    /// Whether that check failed, so that the Hub may have a newer model.
    pub(super) stale: bool,
}

/// How long the Hub gets no further check of a cached model after a failed one.
const AFTER_FAILURE: Duration = Duration::from_secs(30);

impl CachedModel {
    /// Whether the model is valid without asking the Hub. If the clock went backwards, it is not.
    pub(super) fn is_fresh(&self, now: SystemTime, max_age: Duration) -> bool {
        let max_age = if self.stale {
            max_age.min(AFTER_FAILURE)
        } else {
            max_age
        };

        now.duration_since(self.checked)
            .is_ok_and(|age| age < max_age)
    }
}

type Flight<T> = Arc<OnceCell<Result<T, SourceError>>>;

/// Models by key, and readings in flight. Beyond `capacity` or `max_bytes` the least recently used
/// models are evicted.
#[derive(Debug)]
pub(super) struct ModelCache<T> {
    capacity: usize,
    max_bytes: u64,
    entries: Mutex<LruModels>,
    flights: Mutex<HashMap<ModelKey, Flight<T>>>,
}

#[derive(Debug, Default)]
struct LruModels {
    models: HashMap<ModelKey, CacheEntry>,
    uses: u64,
    bytes: u64,
}

#[derive(Debug)]
struct CacheEntry {
    model: CachedModel,
    used: u64,
    bytes: u64,
}

impl LruModels {
    fn remove(&mut self, key: &ModelKey) {
        if let Some(entry) = self.models.remove(key) {
            self.bytes = self.bytes.saturating_sub(entry.bytes);
        }
    }
}

impl<T: Clone> ModelCache<T> {
    pub(super) fn new(capacity: usize, max_bytes: u64) -> Self {
        Self {
            capacity: capacity.max(1),
            max_bytes,
            entries: Mutex::default(),
            flights: Mutex::default(),
        }
    }

    /// Returns the model of `key`, fresh or not.
    pub(super) fn get(&self, key: &ModelKey) -> Option<CachedModel> {
        let mut entries = lock(&self.entries);
        entries.uses += 1;
        let uses = entries.uses;
        entries.models.get_mut(key).map(|found| {
            found.used = uses;
            found.model.clone()
        })
    }

    /// Adds a model. The newest stays even if it alone exceeds `max_bytes`.
    pub(super) fn insert(&self, key: ModelKey, model: CachedModel) {
        let bytes = model.model.heap_bytes();
        let mut entries = lock(&self.entries);
        entries.remove(&key);
        entries.uses += 1;
        entries.bytes = entries.bytes.saturating_add(bytes);

        let entry = CacheEntry {
            model,
            used: entries.uses,
            bytes,
        };

        entries.models.insert(key, entry);
        while entries.models.len() > 1
            && (entries.models.len() > self.capacity || entries.bytes > self.max_bytes)
        {
            let Some(oldest) = entries
                .models
                .iter()
                .min_by_key(|(_, entry)| entry.used)
                .map(|(key, _)| key.clone())
            else {
                return;
            };

            entries.remove(&oldest);
        }
    }

    /// Returns the number of models.
    pub(super) fn len(&self) -> usize {
        lock(&self.entries).models.len()
    }

    /// Removes a model.
    pub(super) fn forget(&self, key: &ModelKey) {
        lock(&self.entries).remove(key);
    }

    /// Runs `read` once for all concurrent callers with the same key. All receive its result or its
    /// error.
    ///
    /// If the caller that runs it leaves, the next one begins again.
    pub(super) async fn share_reading<F>(&self, key: &ModelKey, read: F) -> Result<T, SourceError>
    where
        F: Future<Output = Result<T, SourceError>>,
    {
        let flight = Arc::clone(lock(&self.flights).entry(key.clone()).or_default());
        let landing = Landing {
            cache: self,
            key,
            flight: &flight,
        };

        let result = flight.get_or_init(|| read).await.clone();
        drop(landing);

        result
    }
}

/// Removes a reading from the list when it is done or its last caller has left.
struct Landing<'a, T> {
    cache: &'a ModelCache<T>,
    key: &'a ModelKey,
    flight: &'a Flight<T>,
}

impl<T> Drop for Landing<'_, T> {
    fn drop(&mut self) {
        let mut flights = lock(&self.cache.flights);
        let same = flights
            .get(self.key)
            .is_some_and(|flight| Arc::ptr_eq(flight, self.flight));

        // Two owners: the list and this caller. More: other callers still wait, and one of them
        // begins again.
        if same && (self.flight.initialized() || Arc::strong_count(self.flight) <= 2) {
            flights.remove(self.key);
        }
    }
}

/// Locks `mutex`, poisoned or not: every change under these locks is complete.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    lock_ignoring_poison(mutex)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use hf_mem_core::model::metadata::assemble;
    use hf_mem_core::model::metadata::sample::small;

    fn key(repo: &str) -> ModelKey {
        ModelKey {
            scope: "public".into(),
            repo: repo.into(),
            revision: "main".into(),
            file: None,
        }
    }

    fn cached(checked: SystemTime) -> CachedModel {
        CachedModel {
            model: Arc::new(assemble(&small("a/b", "0123456")).expect("a model")),
            checked,
            stale: false,
        }
    }

    #[tokio::test]
    async fn concurrent_callers_share_one_reading() {
        let cache: ModelCache<u32> = ModelCache::new(4, u64::MAX);
        let readings = AtomicU32::new(0);
        let key = key("a/b");
        let read = || {
            cache.share_reading(&key, async {
                tokio::task::yield_now().await;
                Ok(readings.fetch_add(1, Ordering::Relaxed))
            })
        };

        let answers = futures_util::future::join_all((0..200).map(|_| read())).await;
        assert!(answers.iter().all(|answer| *answer == Ok(0)));
        assert_eq!(readings.load(Ordering::Relaxed), 1);
        assert_eq!(read().await, Ok(1), "a later caller reads again");
        assert!(cache.flights.lock().expect("locked").is_empty());
    }

    #[tokio::test]
    async fn second_caller_survives_the_first() {
        let cache: ModelCache<u32> = ModelCache::new(4, u64::MAX);
        let key = key("a/b");
        let mut first = Box::pin(cache.share_reading(&key, std::future::pending()));
        assert!(futures_util::poll!(&mut first).is_pending());
        let mut second = Box::pin(cache.share_reading(&key, async { Ok(7) }));
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        assert_eq!(second.await, Ok(7));
        assert!(cache.flights.lock().expect("locked").is_empty());
    }

    #[test]
    fn least_recently_used_is_evicted() {
        let cache: ModelCache<u32> = ModelCache::new(2, u64::MAX);
        let now = SystemTime::UNIX_EPOCH;
        cache.insert(key("a/1"), cached(now));
        cache.insert(key("a/2"), cached(now));
        assert!(cache.get(&key("a/1")).is_some());
        cache.insert(key("a/3"), cached(now));
        assert!(cache.get(&key("a/2")).is_none());
        assert!(cache.get(&key("a/1")).is_some() && cache.get(&key("a/3")).is_some());
    }

    #[test]
    fn bytes_are_bounded_and_newest_stays() {
        let bytes = cached(SystemTime::UNIX_EPOCH).model.heap_bytes();
        let cache: ModelCache<u32> = ModelCache::new(9, bytes * 2);
        let insert = |name: &str| cache.insert(key(name), cached(SystemTime::UNIX_EPOCH));
        let is_cached = |name: &str| cache.get(&key(name)).is_some();
        ["a/1", "a/2", "a/2"].into_iter().for_each(insert);
        assert!(
            is_cached("a/2") && is_cached("a/1"),
            "the same key takes no more"
        );
        insert("a/3");

        assert_eq!(
            [is_cached("a/1"), is_cached("a/2"), is_cached("a/3")],
            [true, false, true]
        );
        cache.forget(&key("a/1"));
        insert("a/4");
        assert!(is_cached("a/3") && is_cached("a/4"));
        let narrow: ModelCache<u32> = ModelCache::new(9, 1);
        narrow.insert(key("a/1"), cached(SystemTime::UNIX_EPOCH));
        narrow.insert(key("a/2"), cached(SystemTime::UNIX_EPOCH));
        assert!(narrow.get(&key("a/2")).is_some() && narrow.len() == 1);
    }

    #[test]
    fn freshness_rejects_a_backward_clock() {
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let limit = Duration::from_secs(10);
        assert!(cached(then).is_fresh(then + Duration::from_secs(9), limit));
        assert!(!cached(then).is_fresh(then + limit, limit));
        assert!(!cached(then).is_fresh(then - limit, limit));

        let stale = CachedModel {
            stale: true,
            ..cached(then)
        };

        assert!(
            !stale.is_fresh(then + AFTER_FAILURE, AFTER_FAILURE * 9)
                && stale.is_fresh(then + limit, AFTER_FAILURE)
        );
    }
}
