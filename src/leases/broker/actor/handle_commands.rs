//! Handling commands, notices and the timer.

use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::decide;
use super::BrokerActor;
use super::pending_grants::{PendingGrant, TimedOutWait};
use crate::leases::attribution::HolderReading;
use crate::leases::broker::commands::{BrokerCommand, BrokerNotice, Change};
use crate::leases::broker::grant_command::GrantCommand;
use crate::leases::broker::reply::Reply;
use crate::leases::broker::resolve_holder;
use crate::leases::clock::Timestamp;
use crate::leases::holder::WatchedProcess;
use crate::leases::lease::Holder;
use crate::leases::ledger::ChangeError;
use crate::leases::view;

/// How many renewals and releases of one user may be pending: more than a user who waits for
/// answers ever has. Changes of disconnected clients count, because releases take effect anyway.
const MAX_CHANGES_PER_USER: usize = 1024;

impl BrokerActor {
    pub(super) fn handle_command(&mut self, command: BrokerCommand) {
        let now = Timestamp::now();
        match command {
            BrokerCommand::Grant(command, reply_to) => self.accept_grant(*command, reply_to),
            BrokerCommand::List(reply_to) => {
                self.ledger.expire(now);
                let (ledger, queue) = (self.ledger.ledger(), self.grants.queue());
                let leases =
                    view::leases(ledger, queue, now, |ticket| self.grants.waiting_pid(ticket));
                let _client_gone = reply_to.send(leases);
            }
            BrokerCommand::Get(id, reply_to) => {
                self.ledger.expire(now);
                let lease = self
                    .ledger
                    .ledger()
                    .get(&id)
                    .map(|lease| view::lease(lease, now));
                let _client_gone =
                    reply_to.send(lease.ok_or_else(|| ChangeError::NotFound { id }.into()));
            }
            BrokerCommand::Change(change) => self.accept_change(change),
            BrokerCommand::Claims(snapshot, taken_at, reply_to) => {
                let ancestry = self.ancestry(&snapshot, std::iter::empty());
                let reading = HolderReading {
                    snapshot: &snapshot,
                    taken_at: taken_at.min(now.boottime),
                    ancestry: &ancestry,
                };
                let _client_gone = reply_to.send(decide::claims(self.ledger.ledger(), &reading));
            }
            BrokerCommand::SetRules(rules, default_ttl) => {
                self.config.default_ttl = default_ttl;
                self.ledger.set_settings(*rules);
            }
            BrokerCommand::Ping(reply_to) => {
                let _client_gone = reply_to.send(());
            }
            // The loop itself handles a stop.
            BrokerCommand::Stop(_) => {}
        }
    }

    fn accept_change(&mut self, change: Change) {
        if self.changes.len_for(change.by.uid) < MAX_CHANGES_PER_USER {
            self.changes.push(change.by.uid, change);
            return;
        }

        let busy = Problem::new(
            Reason::Busy,
            "too many renewals and releases of this user wait for the disk",
        );
        let _client_gone = change
            .reply_to
            .send(Err(busy.hint("ask again when some of them are answered")));
    }

    fn accept_grant(&mut self, command: GrantCommand, reply_to: oneshot::Sender<Reply>) {
        if reply_to.is_closed() {
            return;
        }

        let holder = resolve_holder::resolve(
            &self.config.proc_root,
            command.peer,
            command.holder.as_ref(),
        )
        .and_then(|(holder, process)| self.watch_new_holder(holder, process));

        match holder {
            Ok(holder) => self.grants.push(PendingGrant {
                command,
                arrived_at: Timestamp::now().boottime,
                holder,
                reply_to,
                answer: None,
            }),
            Err(problem) => {
                let _client_gone = reply_to.send(Reply::without_lease(Err(problem)));
            }
        }
    }

    fn watch_new_holder(
        &mut self,
        holder: Holder,
        process: Option<WatchedProcess>,
    ) -> Result<Holder, Problem> {
        if let Some(process) = process {
            let pid = process.identity.pid;
            self.holders.watch(process).map_err(|error| {
                let detail = format!("cannot watch process {pid}: {error}");
                Problem::new(Reason::Internal, detail)
            })?;
        }

        Ok(holder)
    }

    pub(super) fn handle_notice(&mut self, notice: BrokerNotice) {
        let now = Timestamp::now();
        match notice {
            BrokerNotice::Received(lease_id) => {
                self.replies.on_outcome(&lease_id, true);
            }
            BrokerNotice::Undelivered(lease_id) => {
                let request_id = self.replies.last_request(&lease_id);
                if !self.replies.on_outcome(&lease_id, false) {
                    return;
                }

                if let Err(error) = self.ledger.undelivered(&lease_id, now) {
                    tracing::debug!(%error, "an undelivered lease had ended already");
                }

                self.collect_events(request_id.as_ref());
                self.on_capacity_freed(now);
            }
            BrokerNotice::Disconnected => {
                if self.grants.remove_abandoned() {
                    self.collect_events(None);
                    self.sample_soon();
                }
            }
        }
    }

    /// Expires leases, ends waits, and retries failed writes.
    pub(super) fn on_timer(&mut self) {
        let now = Timestamp::now();
        let live_before = self.ledger.ledger().live().count();
        self.ledger.expire(now);

        if self.ledger.ledger().live().count() < live_before {
            self.on_capacity_freed(now);
        }

        if self
            .events
            .retry_at()
            .is_some_and(|retry_at| retry_at <= Instant::now())
        {
            self.events.retry(now);
        }

        let timed_out = self.grants.time_out(now.boottime);
        self.collect_events(None);
        for wait in timed_out {
            reply_timed_out(wait);
            self.sample_soon();
        }
    }
}

fn reply_timed_out(wait: TimedOutWait) {
    let TimedOutWait {
        mut grant,
        waited,
        position,
        queue_length,
    } = wait;

    let answer = grant
        .answer
        .take()
        .map(|answer| decide::timed_out(answer, waited, position, queue_length))
        .ok_or_else(|| Problem::new(Reason::Timeout, "timed out waiting for a device reading"));
    grant.reply(answer);
}
