//! So much for each user: whoever asks for more waits for itself, and for nobody else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How often each user may be somewhere at once.
#[derive(Debug)]
pub(crate) struct PerUserSemaphore {
    each: usize,
    /// By user, while it is there or waits.
    users: Mutex<HashMap<u32, Arc<Semaphore>>>,
}

impl PerUserSemaphore {
    /// `each` for each user.
    pub(crate) fn new(each: usize) -> Self {
        Self {
            each,
            users: Mutex::default(),
        }
    }

    /// Waits until `uid` may come in once more; given back where it is dropped.
    pub(crate) async fn take(&self, uid: u32) -> Option<OwnedSemaphorePermit> {
        // No semaphore is ever closed.
        self.of(uid).acquire_owned().await.ok()
    }

    /// How often `uid` may come in without waiting.
    #[cfg(test)]
    pub(crate) fn left(&self, uid: u32) -> usize {
        self.of(uid).available_permits()
    }

    /// Users who are there or wait, or were when another came last.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.users
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    fn of(&self, uid: u32) -> Arc<Semaphore> {
        // An entry goes in or out as a whole: a panic elsewhere leaves none half done.
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);

        // Whoever is there or waits holds a reference too.
        users.retain(|_, turns| Arc::strong_count(turns) > 1);
        Arc::clone(
            users
                .entry(uid)
                .or_insert_with(|| Arc::new(Semaphore::new(self.each))),
        )
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn who_wants_more_waits_for_itself_alone() {
        let by_user = PerUserSemaphore::new(2);
        let held = [by_user.take(1000).await, by_user.take(1000).await];
        let mut third = Box::pin(by_user.take(1000));
        assert!(poll!(&mut third).is_pending());
        let other = by_user.take(1001).await;
        drop(held);
        drop((third.await, other));
        drop(by_user.of(1002));
        assert_eq!(by_user.count(), 1, "nothing is kept of users who left");
    }
}
