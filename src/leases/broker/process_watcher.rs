//! Watches the processes that hold leases: the kernel reports an exit at once.

use std::collections::{HashMap, HashSet};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::leases::holder::{ProcessIdentity, WatchedProcess};

/// The watched processes.
#[derive(Debug)]
pub(super) struct ProcessWatcher {
    watched: HashMap<ProcessIdentity, AbortHandle>,
    exit_sender: mpsc::UnboundedSender<ProcessIdentity>,
    exits: mpsc::UnboundedReceiver<ProcessIdentity>,
}

impl ProcessWatcher {
    pub(super) fn new() -> Self {
        let (exit_sender, exits) = mpsc::unbounded_channel();
        Self {
            watched: HashMap::new(),
            exit_sender,
            exits,
        }
    }

    /// Watches a process until it exits, or until [`Self::keep_only`] drops it.
    pub(super) fn watch(&mut self, process: WatchedProcess) -> std::io::Result<()> {
        let WatchedProcess { identity, pidfd } = process;
        if self.watched.contains_key(&identity) {
            return Ok(());
        }

        #[expect(
            deprecated,
            reason = "sound for an OwnedFd; its replacement is unsafe, and unsafe code is \
                denied here"
        )]
        let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
        let exit_sender = self.exit_sender.clone();

        let task = tokio::spawn(async move {
            // If the pidfd can no longer be polled, the broker treats the process as exited: a
            // process that cannot be watched cannot hold a lease.
            let _readable = pidfd.readable().await;
            let _broker_gone = exit_sender.send(identity);
        });
        self.watched.insert(identity, task.abort_handle());

        Ok(())
    }

    /// Whether the process is watched.
    pub(super) fn watches(&self, identity: &ProcessIdentity) -> bool {
        self.watched.contains_key(identity)
    }

    /// Waits for the next exit.
    pub(super) async fn next_exit(&mut self) -> Option<ProcessIdentity> {
        let exited = self.exits.recv().await?;
        self.watched.remove(&exited);
        Some(exited)
    }

    /// Stops watching all processes but the `needed` ones.
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
