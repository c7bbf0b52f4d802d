//! The groups of users, looked up off the runtime and cached for a short time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tracing::warn;

use super::Accounts;
use super::lookup::{LookupError, Purpose, look_up};
use crate::lock_ignoring_poison::lock_ignoring_poison;

/// The longest wait for one user's groups.
const DEADLINE: Duration = Duration::from_secs(5);

/// How long a result is used: the longest time until a change of memberships takes effect.
const MAX_AGE: Duration = Duration::from_secs(60);

/// How long a user's groups stay unknown after a lookup failed.
const MAX_FAILURE_AGE: Duration = Duration::from_secs(10);

/// The most users in the cache. Beyond it the cache is emptied.
const MAX_USERS: usize = 4096;

/// Lookups at once.
const CONCURRENT_LOOKUPS: usize = 4;

/// The groups of users.
#[derive(Debug)]
pub(crate) struct Memberships {
    accounts: Accounts,
    known: Arc<GroupCache>,
    permits: Arc<Semaphore>,
}

/// A user's groups; `None` if the lookup failed.
type Groups = Option<Arc<[u32]>>;

/// The results of lookups, with the time until which each counts.
#[derive(Debug, Default)]
struct GroupCache(Mutex<HashMap<u32, (Groups, Instant)>>);

impl Memberships {
    pub(crate) fn new(accounts: Accounts) -> Self {
        Self {
            accounts,
            known: Arc::default(),
            permits: Arc::new(Semaphore::new(CONCURRENT_LOOKUPS)),
        }
    }

    /// Returns the groups of `uid`; `None` while they are unknown. An unknown user has no groups.
    pub(crate) async fn groups(&self, uid: u32) -> Groups {
        if let Some(groups) = self.known.get(uid) {
            return groups;
        }

        // Another request can have looked up the same user meanwhile. The semaphore is never
        // closed.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok()?;
        if let Some(groups) = self.known.get(uid) {
            return groups;
        }

        // The lookup keeps its permit and records its result even if the client disconnects.
        let (names, known) = (Arc::clone(&self.accounts.names), Arc::clone(&self.known));
        let lookup = move || {
            let found = look_up(Purpose::Groups, DEADLINE, move || names.groups(uid));
            drop(permit);
            known.record(uid, found)
        };

        // An error means that the runtime is shutting down.
        tokio::task::spawn_blocking(lookup).await.ok().flatten()
    }
}

impl GroupCache {
    /// Returns the recorded result of a lookup, which can be that the groups are unknown.
    fn get(&self, uid: u32) -> Option<Groups> {
        let known = lock_ignoring_poison(&self.0);
        let (groups, expires) = known.get(&uid)?;
        (*expires > Instant::now()).then(|| groups.clone())
    }

    fn record(&self, uid: u32, found: Result<Vec<u32>, LookupError>) -> Groups {
        let (groups, max_age) = match found {
            Ok(groups) => (Some(groups.into()), MAX_AGE),
            Err(error) => {
                warn!(uid, %error, "cannot look up a user's groups; they count as unknown for now");
                (None, MAX_FAILURE_AGE)
            }
        };

        // Entries are inserted whole, so a panic elsewhere leaves none half done.
        let mut known = lock_ignoring_poison(&self.0);
        if known.len() >= MAX_USERS {
            known.clear();
        }

        known.insert(uid, (Groups::clone(&groups), Instant::now() + max_age));
        groups
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use nix::errno::Errno;

    use super::super::name_service::{FailingNames, NameService};
    use super::*;

    /// A name service that answers when the test says so.
    #[derive(Debug)]
    struct SlowNames(Mutex<mpsc::Receiver<()>>);

    impl NameService for SlowNames {
        fn uid(&self, _name: &str) -> Result<Option<u32>, Errno> {
            Ok(None)
        }

        fn gid(&self, _name: &str) -> Result<Option<u32>, Errno> {
            Ok(None)
        }

        fn user_name(&self, _uid: u32) -> Result<Option<String>, Errno> {
            Ok(None)
        }

        fn groups(&self, _uid: u32) -> Result<Vec<u32>, Errno> {
            let _ = lock_ignoring_poison(&self.0).recv();
            Ok(vec![7])
        }
    }

    #[tokio::test]
    async fn abandoned_lookup_keeps_its_permit() {
        let (answer, answers) = mpsc::channel::<()>();
        let memberships = Memberships::new(Accounts {
            names: Arc::new(SlowNames(Mutex::new(answers))),
        });

        let mut abandoned = Box::pin(memberships.groups(1000));
        assert!(futures_util::poll!(&mut abandoned).is_pending());
        drop(abandoned);
        assert_eq!(
            memberships.permits.available_permits(),
            CONCURRENT_LOOKUPS - 1,
            "a client that disconnects frees no permit"
        );

        // Without a sender every lookup answers: the abandoned one, and another if it comes first.
        drop(answer);
        assert_eq!(memberships.groups(1000).await.unwrap()[..], [7]);
    }

    #[tokio::test]
    async fn membership_is_by_whole_name() {
        let memberships = Memberships::new(Accounts::parse(
            "root:x:0:0::/:/bin/sh\nana:x:1000:1000::/:/bin/sh\n",
            "root:x:0:\nml:x:200:ben,ana\nother:x:300:anabel\n",
        ));

        assert_eq!(memberships.groups(1000).await.unwrap()[..], [200]);
        assert!(memberships.groups(0).await.unwrap().is_empty());
        assert!(
            memberships.groups(77).await.unwrap().is_empty(),
            "an unknown user"
        );
    }

    #[tokio::test]
    async fn failed_lookup_leaves_groups_unknown() {
        let memberships = Memberships::new(Accounts {
            names: Arc::new(FailingNames),
        });

        assert_eq!(memberships.groups(0).await, None);
        assert_eq!(
            memberships.known.get(0),
            Some(None),
            "not asked again at once"
        );
    }
}
