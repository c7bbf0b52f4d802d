//! Leases renewed and given back. Each is written to the disk before it is answered, so they are
//! made one after another, users by turns, and readings, deaths and other errands have their turn
//! in between.

use hf_mem_core::report::Problem;
use tokio::time::Instant;

use super::BrokerActor;
use crate::leases::broker::commands::{Change, LeaseChange};
use crate::leases::clock::Now;
use crate::leases::ledger::Release;
use crate::leases::view;

impl BrokerActor {
    /// Makes one change, and more as long as a round may last.
    pub(super) fn make_changes(&mut self) {
        let began = Instant::now();
        while let Some(change) = self.changes.pop() {
            self.make(change);
            if began.elapsed() >= self.settings.longest_round {
                break;
            }
        }
    }

    /// Makes all that are left.
    pub(super) fn make_all_changes(&mut self) {
        while let Some(change) = self.changes.pop() {
            self.make(change);
        }
    }

    fn make(&mut self, change: Change) {
        let Change {
            id,
            by,
            whereto,
            reply,
        } = change;

        let now = Now::read();
        let made = match whereto {
            // Who hung up goes on asking, or lets it run out.
            LeaseChange::Longer(_) if reply.is_closed() => return,
            LeaseChange::Longer(ttl) => self
                .keeper
                .renew(&id, by.uid, ttl, now)
                .map_err(Problem::from),
            LeaseChange::End => {
                match self.keeper.release(&id, by.uid, now).map_err(Problem::from) {
                    Ok(Release::Done(lease)) => {
                        self.freed(now);
                        Ok(lease)
                    }
                    Ok(Release::Already(lease)) => Ok(lease),
                    Err(problem) => Err(problem),
                }
            }
        };

        self.gather(Some(&by.request_id));
        let _hung_up = reply.send(made.map(|lease| view::lease(&lease, now)));
    }
}
