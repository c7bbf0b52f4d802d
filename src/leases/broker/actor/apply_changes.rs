//! Applying renewals and releases.
//!
//! Each change is written to disk before it is answered, so the broker applies them one after
//! another. Users take turns, and so do readings, process exits and other commands.

use hf_mem_core::report::Problem;
use tokio::time::Instant;

use super::BrokerActor;
use crate::leases::broker::commands::{Change, LeaseChange};
use crate::leases::clock::Timestamp;
use crate::leases::ledger::Release;
use crate::leases::view;

impl BrokerActor {
    /// Applies one change, and more for as long as a round may last.
    pub(super) fn apply_changes(&mut self) {
        let began = Instant::now();
        while let Some(change) = self.changes.pop() {
            self.apply(change);
            if began.elapsed() >= self.config.max_round {
                break;
            }
        }
    }

    /// Applies all changes that are left.
    pub(super) fn apply_all_changes(&mut self) {
        while let Some(change) = self.changes.pop() {
            self.apply(change);
        }
    }

    fn apply(&mut self, change: Change) {
        let Change {
            id,
            by,
            action,
            reply_to,
        } = change;

        let now = Timestamp::now();
        let changed = match action {
            // A client that has disconnected renews again, or lets the lease expire.
            LeaseChange::Renew(_) if reply_to.is_closed() => return,
            LeaseChange::Renew(ttl) => self
                .ledger
                .renew(&id, by.uid, ttl, now)
                .map_err(Problem::from),
            LeaseChange::Release => match self.ledger.release(&id, by.uid, now) {
                Ok(Release::Done(lease)) => {
                    self.on_capacity_freed(now);
                    Ok(lease)
                }
                Ok(Release::Already(lease)) => Ok(lease),
                Err(error) => Err(error.into()),
            },
        };

        self.collect_events(Some(&by.request_id));
        let _client_gone = reply_to.send(changed.map(|lease| view::lease(&lease, now)));
    }
}
