//! Holders that are processes: watched as long as they hold something or wait for it.

use std::collections::BTreeSet;

use super::BrokerActor;
use crate::leases::clock::Now;
use crate::leases::holder::{HolderError, ProcessIdentity, watch_again};
use crate::leases::queue::Ticket;

impl BrokerActor {
    /// Watches the holders that are not watched yet, as after a restart; those who died in between
    /// hold nothing. One that cannot be watched for now (for want of descriptors, say) keeps what
    /// it was promised, and is tried again.
    pub(super) fn watch_holders(&mut self) {
        let holders = self
            .keeper
            .ledger()
            .live()
            .filter_map(|lease| lease.holder.process);
        let unwatched: BTreeSet<_> = holders
            .filter(|process| !self.deaths.watches(process))
            .collect();

        for process in unwatched {
            match watch_again(&self.settings.proc_root, process) {
                Err(HolderError::Gone { .. }) => self.keeper.holder_died(&process, Now::read()),
                Err(error) => tracing::debug!(%error, "a holder cannot be watched for now"),
                Ok(watched) => {
                    if let Err(error) = self.deaths.watch(watched) {
                        tracing::debug!(%error, "a holder cannot be watched for now");
                    }
                }
            }
        }
    }

    /// A process died: what it held is given back at once, and it waits no more.
    pub(super) fn died(&mut self, process: ProcessIdentity) {
        let now = Now::read();
        self.keeper.holder_died(&process, now);

        let of_process = self
            .in_line
            .iter()
            .filter(|(_, case)| case.holder.process == Some(process));
        for ticket in of_process
            .map(|(ticket, _)| *ticket)
            .collect::<Vec<Ticket>>()
        {
            self.queue.cancel(ticket);
            self.gather(None);
            if let Some(case) = self.in_line.remove(&ticket) {
                case.tell(Err(HolderError::Gone { pid: process.pid }.into()));
            }
        }

        self.freed(now);
    }
}
