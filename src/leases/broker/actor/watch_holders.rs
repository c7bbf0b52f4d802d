//! Holders that are processes: watched while they hold a lease or wait for one.

use std::collections::BTreeSet;

use super::BrokerActor;
use crate::leases::clock::Timestamp;
use crate::leases::holder::{HolderError, ProcessIdentity, watch_again};

impl BrokerActor {
    /// Watches the holders that are not watched yet, as after a restart, and releases the leases of
    /// those that have exited. A holder that cannot be watched now, for example because descriptors
    /// ran out, keeps its lease; the next call retries.
    pub(super) fn watch_holders(&mut self) {
        let unwatched: BTreeSet<_> = self
            .ledger
            .ledger()
            .live()
            .filter_map(|lease| lease.holder.process)
            .filter(|process| !self.holders.watches(process))
            .collect();

        for process in unwatched {
            match watch_again(&self.config.proc_root, process) {
                Err(HolderError::Gone { .. }) => {
                    self.ledger.holder_died(&process, Timestamp::now());
                }
                Err(error) => log_unwatched(&error),
                Ok(watched) => {
                    if let Err(error) = self.holders.watch(watched) {
                        log_unwatched(&error);
                    }
                }
            }
        }
    }

    /// Handles the exit of a process: releases its leases at once and ends its waits.
    pub(super) fn on_holder_exit(&mut self, process: ProcessIdentity) {
        let now = Timestamp::now();
        self.ledger.holder_died(&process, now);

        for grant in self.grants.cancel_held_by(process) {
            grant.reply(Err(HolderError::Gone { pid: process.pid }.into()));
        }

        self.collect_events(None);
        self.on_capacity_freed(now);
    }
}

fn log_unwatched(error: &dyn std::error::Error) {
    tracing::debug!(%error, "cannot watch a holder; retrying with the next reading");
}
