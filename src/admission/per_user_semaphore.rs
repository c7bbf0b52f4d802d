//! A semaphore per user: a user who wants more permits than that waits, and delays no other user.
//! To refuse instead of waiting, see [`super::user_limits`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::lock_ignoring_poison::lock_ignoring_poison;

/// A semaphore for each user, with the same number of permits.
#[derive(Debug)]
pub(crate) struct PerUserSemaphore {
    permits: usize,
    /// By uid, while the user holds a permit or waits for one.
    users: Mutex<HashMap<u32, Arc<Semaphore>>>,
}

/// A permit of one user. Dropping it releases the permit.
#[derive(Debug)]
pub(crate) struct UserPermit {
    _permit: OwnedSemaphorePermit,
}

impl PerUserSemaphore {
    /// Gives each user `permits` permits.
    pub(crate) fn new(permits: usize) -> Self {
        Self {
            permits,
            users: Mutex::default(),
        }
    }

    /// Waits for a permit of `uid`. It never returns `None`, because no semaphore is ever closed.
    pub(crate) async fn acquire(&self, uid: u32) -> Option<UserPermit> {
        let permit = self.semaphore(uid).acquire_owned().await.ok()?;
        Some(UserPermit { _permit: permit })
    }

    /// How many permits `uid` can acquire without waiting.
    #[cfg(test)]
    pub(crate) fn available(&self, uid: u32) -> usize {
        self.semaphore(uid).available_permits()
    }

    /// The users that hold a permit or wait for one, as of the last acquisition.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        lock_ignoring_poison(&self.users).len()
    }

    fn semaphore(&self, uid: u32) -> Arc<Semaphore> {
        // Each entry is inserted or removed whole, so a panic cannot leave part of one.
        let mut users = lock_ignoring_poison(&self.users);

        // A user who holds a permit or waits for one holds a reference too.
        users.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
        Arc::clone(
            users
                .entry(uid)
                .or_insert_with(|| Arc::new(Semaphore::new(self.permits))),
        )
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn user_waits_for_own_permits_only() {
        let semaphore = PerUserSemaphore::new(2);
        let held = [semaphore.acquire(1000).await, semaphore.acquire(1000).await];
        let mut third = Box::pin(semaphore.acquire(1000));
        assert!(poll!(&mut third).is_pending());
        let other = semaphore.acquire(1001).await;
        drop(held);
        drop((third.await, other));
        drop(semaphore.semaphore(1002));
        assert_eq!(semaphore.count(), 1, "users without permits are forgotten");
    }
}
