//! The groups of users, looked up off the runtime and cached for a short time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tracing::warn;

use super::{Accounts, look_up};

/// The longest wait for one user's groups.
const DEADLINE: Duration = Duration::from_secs(5);

/// How long a result is used: the longest time until a change of memberships takes effect.
const MAX_AGE: Duration = Duration::from_secs(60);

/// How long a user counts as a member of no group after a lookup failed.
const MAX_FAILURE_AGE: Duration = Duration::from_secs(10);

/// The most users in the cache. Beyond it the cache is emptied.
const MAX_USERS: usize = 4096;

/// Lookups at once.
const CONCURRENT_LOOKUPS: usize = 4;

/// The groups of users.
#[derive(Debug)]
pub(crate) struct Memberships {
    accounts: Accounts,
    known: Mutex<HashMap<u32, KnownGroups>>,
    permits: Semaphore,
}

#[derive(Debug)]
struct KnownGroups {
    groups: Arc<[u32]>,
    expires: Instant,
}

impl Memberships {
    pub(crate) fn new(accounts: Accounts) -> Self {
        Self {
            accounts,
            known: Mutex::default(),
            permits: Semaphore::new(CONCURRENT_LOOKUPS),
        }
    }

    /// Returns the groups of `uid`; none while they are unknown.
    pub(crate) async fn groups(&self, uid: u32) -> Arc<[u32]> {
        if let Some(groups) = self.cached(uid) {
            return groups;
        }

        // The semaphore is never closed. Another request can have looked up the same user
        // meanwhile.
        let _permit = self.permits.acquire().await;
        if let Some(groups) = self.cached(uid) {
            return groups;
        }

        let names = Arc::clone(&self.accounts.names);
        let waiting =
            tokio::task::spawn_blocking(move || look_up(DEADLINE, move || names.groups(uid)));

        let (groups, max_age) = match waiting.await {
            Ok(Ok(groups)) => (groups.into(), MAX_AGE),
            Ok(Err(error)) => {
                warn!(uid, %error, "cannot look up a user's groups; none counts for now");
                (Arc::default(), MAX_FAILURE_AGE)
            }
            // The runtime is shutting down.
            Err(_) => return Arc::default(),
        };

        self.remember(uid, Arc::clone(&groups), max_age);
        groups
    }

    fn cached(&self, uid: u32) -> Option<Arc<[u32]>> {
        let known = self.lock();
        let found = known.get(&uid)?;
        (found.expires > Instant::now()).then(|| Arc::clone(&found.groups))
    }

    fn remember(&self, uid: u32, groups: Arc<[u32]>, max_age: Duration) {
        let mut known = self.lock();
        if known.len() >= MAX_USERS {
            known.clear();
        }

        let expires = Instant::now() + max_age;
        known.insert(uid, KnownGroups { groups, expires });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, KnownGroups>> {
        // Entries are inserted whole, so a panic elsewhere leaves none half done.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::name_service::FailingNames;
    use super::*;

    #[tokio::test]
    async fn membership_is_by_whole_name() {
        let memberships = Memberships::new(Accounts::parse(
            "root:x:0:0::/:/bin/sh\nana:x:1000:1000::/:/bin/sh\n",
            "root:x:0:\nml:x:200:ben,ana\nother:x:300:anabel\n",
        ));

        assert_eq!(*memberships.groups(1000).await, [200]);
        assert!(memberships.groups(0).await.is_empty());
        assert!(memberships.groups(77).await.is_empty(), "an unknown user");
    }

    #[tokio::test]
    async fn unknown_groups_grant_nothing() {
        let memberships = Memberships::new(Accounts {
            names: Arc::new(FailingNames),
        });

        assert!(memberships.groups(0).await.is_empty());
        assert!(memberships.cached(0).is_some(), "not asked again at once");
    }
}
