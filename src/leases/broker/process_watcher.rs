//! Watching holders: the kernel tells of a death at once.

use std::collections::{HashMap, HashSet};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::leases::holder::{ProcessIdentity, WatchedProcess};

/// The holders that are watched.
#[derive(Debug)]
pub(super) struct ProcessWatcher {
    watched: HashMap<ProcessIdentity, AbortHandle>,
    died: mpsc::UnboundedSender<ProcessIdentity>,
    told: mpsc::UnboundedReceiver<ProcessIdentity>,
}

impl ProcessWatcher {
    pub(super) fn new() -> Self {
        let (died, told) = mpsc::unbounded_channel();
        Self {
            watched: HashMap::new(),
            died,
            told,
        }
    }

    /// Watches a process until it dies or nobody needs it.
    pub(super) fn watch(&mut self, process: WatchedProcess) -> std::io::Result<()> {
        let WatchedProcess { identity, pidfd } = process;
        if self.watched.contains_key(&identity) {
            return Ok(());
        }

        #[expect(
            deprecated,
            reason = "sound for an OwnedFd; what replaces it is unsafe to call, and nothing here may be"
        )]
        let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
        let died = self.died.clone();

        let task = tokio::spawn(async move {
            // A pidfd that cannot be polled any more is as good as a death: who cannot be watched
            // cannot hold.
            let _readable = pidfd.readable().await;
            let _owner_is_gone = died.send(identity);
        });
        self.watched.insert(identity, task.abort_handle());

        Ok(())
    }

    /// Whether a process is watched.
    pub(super) fn watches(&self, identity: &ProcessIdentity) -> bool {
        self.watched.contains_key(identity)
    }

    /// The next death.
    pub(super) async fn next(&mut self) -> Option<ProcessIdentity> {
        let died = self.told.recv().await?;
        self.watched.remove(&died);
        Some(died)
    }

    /// Stops watching those who hold nothing and wait for nothing.
    pub(super) fn keep_only(&mut self, needed: &HashSet<ProcessIdentity>) {
        self.watched.retain(|identity, task| {
            let keep = needed.contains(identity);
            if !keep {
                task.abort();
            }
            keep
        });
    }
}
