//! What all models share towards a Hub: how many requests are under way, and that the first one to
//! a host goes alone.
//!
//! Each Hub has seats of its own: one that hangs keeps its own busy, and nobody waits for it who
//! asks another.
//!
//! Over HTTP/2 one connection carries everything, but only once it stands: two dozen requests to a
//! host that nobody has spoken to yet would each make a connection of their own, with a handshake
//! each. So the first goes ahead and the others follow over its connection. Plain HTTP cannot share
//! one, and has nothing to wait for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use url::Url;

/// How long a host counts as spoken to: less than the 90 s after which an idle connection is
/// closed.
const ACQUAINTED: Duration = Duration::from_secs(60);
/// Hosts that are remembered; beyond it all are forgotten.
const MAX_HOSTS: usize = 256;

/// Seats for requests, and the hosts that were spoken to.
#[derive(Debug)]
pub(super) struct HubThrottle {
    concurrency: usize,
    /// By endpoint, of which there are as many as the settings name.
    seats: Mutex<HashMap<String, Arc<Semaphore>>>,
    hosts: Mutex<HashMap<String, Host>>,
}

#[derive(Clone, Debug, Default)]
struct Host {
    first: Arc<tokio::sync::Mutex<()>>,
    answered: Option<Instant>,
}

impl HubThrottle {
    pub(super) fn new(concurrency: usize) -> Self {
        let concurrency = concurrency.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            concurrency,
            seats: Mutex::default(),
            hosts: Mutex::default(),
        }
    }

    /// Waits for a seat at the Hub at `endpoint`; `None` when it is too late by then.
    pub(super) async fn seat(
        &self,
        endpoint: &Url,
        deadline: Instant,
    ) -> Option<OwnedSemaphorePermit> {
        let seats = {
            let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(Semaphore::new(self.concurrency));
            Arc::clone(
                seats
                    .entry(endpoint.as_str().to_owned())
                    .or_insert_with(new),
            )
        };

        timeout_at(deadline, seats.acquire_owned()).await.ok()?.ok()
    }

    /// Waits until a request to `url` may go: at once where its host was spoken to lately. Who gets
    /// a guard goes first, and holds it until there is an answer.
    pub(super) async fn go(&self, url: &Url, deadline: Instant) -> Option<OwnedMutexGuard<()>> {
        if url.scheme() != "https" {
            return None;
        }

        let origin = url.origin().ascii_serialization();
        let first = self.unknown(&origin)?;
        let guard = timeout_at(deadline, first.lock_owned()).await.ok()?;

        // Whoever went before may have been answered.
        self.unknown(&origin).map(|_| guard)
    }

    /// Remembers that the host of `url` answers.
    pub(super) fn answered(&self, url: &Url) {
        if url.scheme() == "https" {
            let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            hosts
                .entry(url.origin().ascii_serialization())
                .or_default()
                .answered = Some(Instant::now());
        }
    }

    /// The lock of a host that was not spoken to lately.
    fn unknown(&self, origin: &str) -> Option<Arc<tokio::sync::Mutex<()>>> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= MAX_HOSTS && !hosts.contains_key(origin) {
            hosts.clear();
        }

        let host = hosts.entry(origin.to_owned()).or_default();
        let known = host
            .answered
            .is_some_and(|answered| answered.elapsed() < ACQUAINTED);

        (!known).then(|| Arc::clone(&host.first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_goes_alone_and_the_others_follow() {
        let manners = HubThrottle::new(4);
        let url = Url::parse("https://hub/x").expect("an address");
        let later = Instant::now() + Duration::from_secs(10);
        let first = manners.go(&url, later).await.expect("the first");
        let mut second = Box::pin(manners.go(&url, later));
        assert!(futures_util::poll!(&mut second).is_pending());
        manners.answered(&url);
        drop(first);

        assert!(
            second.await.is_none(),
            "it goes at once, and holds nobody up"
        );
        assert!(manners.go(&url, later).await.is_none());
        let plain = Url::parse("http://hub/x").expect("an address");
        assert!(manners.go(&plain, later).await.is_none());
    }

    #[tokio::test]
    async fn a_hub_that_hangs_keeps_no_seat_of_another_and_who_leaves_gives_back_what_was_held() {
        let manners = HubThrottle::new(1);
        let [hangs, other] =
            ["https://hangs/", "https://other/"].map(|url| Url::parse(url).expect("an address"));
        let later = Instant::now() + Duration::from_secs(10);
        let held = manners.seat(&hangs, later).await.expect("the only one");
        let mut waits = Box::pin(manners.seat(&hangs, later));
        assert!(futures_util::poll!(&mut waits).is_pending());
        assert!(futures_util::poll!(Box::pin(manners.seat(&other, later))).is_ready());
        drop((waits, held));
        assert!(futures_util::poll!(Box::pin(manners.seat(&hangs, later))).is_ready());
    }

    #[tokio::test]
    async fn a_first_one_that_hangs_does_not_hold_up_the_others_beyond_their_time() {
        let manners = HubThrottle::new(4);
        let url = Url::parse("https://hub/x").expect("an address");
        let _first = manners
            .go(&url, Instant::now() + Duration::from_secs(1))
            .await
            .expect("the first");
        assert!(manners.go(&url, Instant::now()).await.is_none());
    }
}
