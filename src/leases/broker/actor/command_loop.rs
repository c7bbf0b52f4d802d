//! What is brought to the owner, and what time brings.

use std::collections::HashMap;

use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::decide;
use super::BrokerActor;
use super::pending_grant::PendingGrant;
use crate::leases::attribution::HolderReading;
use crate::leases::broker::commands::{BrokerCommand, BrokerNotice};
use crate::leases::broker::grant_command::GrantCommand;
use crate::leases::broker::pending_reply::PendingReply;
use crate::leases::broker::resolve_holder;
use crate::leases::clock::Now;
use crate::leases::ledger::ChangeError;
use crate::leases::queue::Ticket;
use crate::leases::view;

/// Renewals and releases of one user that wait for their turn: more than any who waits for answers
/// has. Those that hung up count, because what is to be given back is given back all the same.
const MOST_CHANGES: usize = 1024;

impl BrokerActor {
    pub(super) fn errand(&mut self, errand: BrokerCommand) {
        let now = Now::read();
        match errand {
            BrokerCommand::Grant(ask, reply) => self.take_ask(*ask, reply),
            BrokerCommand::List(reply) => {
                self.keeper.expire(now);
                let pid = |ticket: Ticket| {
                    self.in_line
                        .get(&ticket)?
                        .holder
                        .process
                        .map(|process| process.pid)
                };
                let _hung_up =
                    reply.send(view::leases(self.keeper.ledger(), &self.queue, now, pid));
            }
            BrokerCommand::Get(id, reply) => {
                self.keeper.expire(now);
                let found = self
                    .keeper
                    .ledger()
                    .get(&id)
                    .map(|lease| view::lease(lease, now));
                let _hung_up = reply.send(found.ok_or_else(|| ChangeError::NotFound { id }.into()));
            }
            BrokerCommand::Change(change) if self.changes.len_for(change.by.uid) >= MOST_CHANGES => {
                let busy = Problem::new(
                    Reason::Busy,
                    "too many renewals and releases of this user wait for the disk",
                );
                let _hung_up = change
                    .reply
                    .send(Err(busy.hint("ask again when some of them are answered")));
            }
            BrokerCommand::Change(change) => self.changes.push(change.by.uid, change),
            BrokerCommand::Claims(snapshot, taken_at, reply) => {
                let ancestry = self.ancestry(&snapshot, std::iter::empty());
                let reading = HolderReading {
                    snapshot: &snapshot,
                    taken_at: taken_at.min(now.boottime),
                    ancestry: &ancestry,
                };
                let _hung_up = reply.send(decide::claims(self.keeper.ledger(), &reading));
            }
            BrokerCommand::Rules(settings, default_ttl) => {
                self.settings.default_ttl = default_ttl;
                self.keeper.set_settings(*settings);
            }
            BrokerCommand::Ping(reply) => {
                let _hung_up = reply.send(());
            }
            // Taken by the loop itself.
            BrokerCommand::Stop(_) => {}
        }
    }

    pub(super) fn take_ask(&mut self, ask: GrantCommand, reply: oneshot::Sender<PendingReply>) {
        if reply.is_closed() {
            return;
        }

        let resolved =
            resolve_holder::resolve(&self.settings.proc_root, ask.peer, ask.holder.as_ref());
        let resolved = resolved.and_then(|(holder, process)| {
            if let Some(process) = process {
                let pid = process.identity.pid;
                let unwatchable = |error: std::io::Error| {
                    Problem::new(
                        Reason::Internal,
                        format!("process {pid} cannot be watched: {error}"),
                    )
                };
                self.deaths.watch(process).map_err(unwatchable)?;
            }
            Ok(holder)
        });

        match resolved {
            Ok(holder) => {
                let came = Now::read().boottime;
                self.new.push(PendingGrant {
                    ask,
                    came,
                    holder,
                    reply,
                    answer: None,
                });
            }
            Err(problem) => {
                let _hung_up = reply.send(PendingReply::plain(Err(problem)));
            }
        }
    }

    pub(super) fn note(&mut self, note: BrokerNotice) {
        let now = Now::read();
        match note {
            BrokerNotice::Taken(id) => {
                self.deliveries.ended(&id, true);
            }
            BrokerNotice::Undelivered(id) => {
                let request_id = self.deliveries.last_request(&id);
                if !self.deliveries.ended(&id, false) {
                    return;
                }

                if let Err(error) = self.keeper.undelivered(&id, now) {
                    tracing::debug!(%error, "an undelivered lease was gone already");
                }

                self.gather(request_id.as_ref());
                self.freed(now);
            }
            BrokerNotice::HungUp => {
                // What it asked may take much memory, and its turn may be far.
                self.new.retain(|case| !case.reply.is_closed());
                self.at_reading.retain(|case| !case.reply.is_closed());

                let gone = self
                    .in_line
                    .iter()
                    .filter(|(_, case)| case.reply.is_closed())
                    .map(|(ticket, _)| *ticket);

                for ticket in gone.collect::<Vec<_>>() {
                    self.queue.cancel(ticket);
                    let case = self.in_line.remove(&ticket);
                    self.gather(case.map(|case| case.ask.request_id).as_ref());
                    self.hurry();
                }
            }
        }
    }

    /// Something was given back: those in line need not wait for the next reading's turn.
    pub(super) fn freed(&mut self, now: Now) {
        self.before_next = self.before_next.max(now.boottime);
        self.hurry();
    }

    pub(super) fn hurry(&mut self) {
        if self.watches() {
            self.read_at = Instant::now();
        }
    }

    pub(super) fn on_time(&mut self) {
        let now = Now::read();
        let alive = self.keeper.ledger().live().count();
        self.keeper.expire(now);

        if self.keeper.ledger().live().count() < alive {
            self.freed(now);
        }

        if self
            .write_at
            .is_some_and(|write_at| write_at <= Instant::now())
        {
            self.log.write_again(now);
        }

        let line: HashMap<Ticket, _> = self
            .queue
            .waiters()
            .zip(1..)
            .map(|(waiter, place)| (waiter.ticket, (place, waiter.since)))
            .collect();

        let gave_up = self.queue.give_up(now.boottime);

        // While it is known whose waits those were.
        self.gather(None);
        for ticket in gave_up {
            if let Some(mut case) = self.in_line.remove(&ticket) {
                let (place, since) = line.get(&ticket).copied().unwrap_or((0, now.boottime));
                let unknown = || {
                    Problem::new(
                        Reason::Timeout,
                        "the wait is over, and no reading was had in it",
                    )
                };

                let answer = case.answer.take().ok_or_else(unknown);
                let waited = now.boottime.since(since);
                case.tell(answer.map(|answer| decide::waited(answer, waited, place, line.len())));
                self.hurry();
            }
        }
    }
}
