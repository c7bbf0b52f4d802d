//! Limits that all models share for each Hub: concurrent requests, and one first request to each
//! new host.
//!
//! Each Hub has its own request slots, so a Hub that hangs blocks no requests to another.
//!
//! Over HTTP/2 one connection carries all requests, but only after it is established. Two dozen
//! simultaneous requests to a new host would each open a connection, with a handshake each. So the
//! first request goes alone, and the others follow over its connection. Plain HTTP cannot share
//! a connection, so its requests do not wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use url::Url;

use crate::lock_ignoring_poison::lock_ignoring_poison;

/// How long a host counts as connected. Idle connections close after 90 s.
const CONNECTED_FOR: Duration = Duration::from_secs(60);
/// Maximum remembered hosts. At the limit the map is cleared.
const MAX_HOSTS: usize = 256;

/// Request slots, and the hosts with a recent answer.
#[derive(Debug)]
pub(super) struct HubRequestSlots {
    concurrency: usize,
    /// Keys are endpoints, so the settings bound their number.
    slots: Mutex<HashMap<String, Arc<Semaphore>>>,
    hosts: Mutex<HashMap<String, Host>>,
}

#[derive(Clone, Debug, Default)]
struct Host {
    first: Arc<tokio::sync::Mutex<()>>,
    answered: Option<Instant>,
}

impl HubRequestSlots {
    pub(super) fn new(concurrency: usize) -> Self {
        let concurrency = concurrency.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            concurrency,
            slots: Mutex::default(),
            hosts: Mutex::default(),
        }
    }

    /// Waits for a request slot at `endpoint`. Returns `None` after the deadline.
    pub(super) async fn acquire(
        &self,
        endpoint: &Url,
        deadline: Instant,
    ) -> Option<OwnedSemaphorePermit> {
        let slots = {
            let mut slots = lock_ignoring_poison(&self.slots);
            Arc::clone(
                slots
                    .entry(endpoint.as_str().to_owned())
                    .or_insert_with(|| Arc::new(Semaphore::new(self.concurrency))),
            )
        };

        timeout_at(deadline, slots.acquire_owned()).await.ok()?.ok()
    }

    /// Waits until a request to `url` may be sent; does not wait if its host answered recently.
    /// The caller that receives a guard goes first. It holds the guard until the answer arrives.
    pub(super) async fn wait_for_first(
        &self,
        url: &Url,
        deadline: Instant,
    ) -> Option<OwnedMutexGuard<()>> {
        if url.scheme() != "https" {
            return None;
        }

        let origin = url.origin().ascii_serialization();
        let first = self.first_request_lock(&origin)?;
        let guard = timeout_at(deadline, first.lock_owned()).await.ok()?;

        // Another request may have received an answer meanwhile.
        self.first_request_lock(&origin).map(|_| guard)
    }

    /// Records that the host of `url` answered.
    pub(super) fn record_answer(&self, url: &Url) {
        if url.scheme() == "https" {
            let mut hosts = lock_ignoring_poison(&self.hosts);
            hosts
                .entry(url.origin().ascii_serialization())
                .or_default()
                .answered = Some(Instant::now());
        }
    }

    /// Returns the lock of a host without a recent answer.
    fn first_request_lock(&self, origin: &str) -> Option<Arc<tokio::sync::Mutex<()>>> {
        let mut hosts = lock_ignoring_poison(&self.hosts);
        if hosts.len() >= MAX_HOSTS && !hosts.contains_key(origin) {
            hosts.clear();
        }

        let host = hosts.entry(origin.to_owned()).or_default();
        let is_connected = host
            .answered
            .is_some_and(|answered| answered.elapsed() < CONNECTED_FOR);

        (!is_connected).then(|| Arc::clone(&host.first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn first_request_goes_alone() {
        let request_slots = HubRequestSlots::new(4);
        let url = Url::parse("https://hub/x").expect("an address");
        let later = Instant::now() + Duration::from_secs(10);
        let first = request_slots
            .wait_for_first(&url, later)
            .await
            .expect("the first");
        let mut second = Box::pin(request_slots.wait_for_first(&url, later));
        assert!(futures_util::poll!(&mut second).is_pending());
        request_slots.record_answer(&url);
        drop(first);

        assert!(
            second.await.is_none(),
            "the second follows at once and blocks no other"
        );
        assert!(request_slots.wait_for_first(&url, later).await.is_none());
        let plain = Url::parse("http://hub/x").expect("an address");
        assert!(request_slots.wait_for_first(&plain, later).await.is_none());
    }

    #[tokio::test]
    async fn slots_of_one_hub_are_separate() {
        let request_slots = HubRequestSlots::new(1);
        let [hangs, other] =
            ["https://hangs/", "https://other/"].map(|url| Url::parse(url).expect("an address"));
        let later = Instant::now() + Duration::from_secs(10);
        let held = request_slots
            .acquire(&hangs, later)
            .await
            .expect("the only one");
        let mut waits = Box::pin(request_slots.acquire(&hangs, later));
        assert!(futures_util::poll!(&mut waits).is_pending());
        assert!(futures_util::poll!(Box::pin(request_slots.acquire(&other, later))).is_ready());
        // A caller that leaves releases its place and its slot.
        drop((waits, held));
        assert!(futures_util::poll!(Box::pin(request_slots.acquire(&hangs, later))).is_ready());
    }

    #[tokio::test]
    async fn hung_first_request_delays_until_deadline() {
        let request_slots = HubRequestSlots::new(4);
        let url = Url::parse("https://hub/x").expect("an address");
        let _first = request_slots
            .wait_for_first(&url, Instant::now() + Duration::from_secs(1))
            .await
            .expect("the first");
        assert!(
            request_slots
                .wait_for_first(&url, Instant::now())
                .await
                .is_none()
        );
    }
}
