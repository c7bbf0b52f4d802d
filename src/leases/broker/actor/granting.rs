//! Deciding a grant on a reading: a lease, a place in the queue, or a no.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hf_mem_core::report::Problem;
use hf_mem_core::report::answer::Answer;

use super::super::decide;
use super::BrokerActor;
use super::pending_grants::PendingGrant;
use super::pending_replies::LeaseReply;
use crate::leases::attribution::HolderReading;
use crate::leases::broker::grant_command::GrantCommand;
use crate::leases::broker::reply::Reply;
use crate::leases::clock::Timestamp;
use crate::leases::durable_ledger::CommitError;
use crate::leases::holder::{HolderError, is_alive};
use crate::leases::lease::{Lease, QuestionSummary};
use crate::leases::ledger::{GrantError, GrantRequest, Granted};
use crate::leases::queue::Ticket;
use crate::leases::view;

/// The decision on a pending grant.
enum Decision {
    /// Reply without a lease.
    Answer(Box<Result<Answer, Problem>>),
    /// Reply with a lease.
    Lease {
        answer: Box<Answer>,
        lease: Box<Lease>,
        /// Whether the lease is new; otherwise the idempotency key got it before.
        is_new: bool,
    },
    /// A no for now, which waiting may turn into a yes.
    NotNow(Box<Answer>),
}

impl Decision {
    fn fail(error: impl Into<Problem>) -> Self {
        Self::Answer(Box::new(Err(error.into())))
    }
}

impl BrokerActor {
    /// Decides the waiting grants, in the order of the queue. If every device is reserved for
    /// grants ahead of one, its plan is not run and its answer stays as it was. So a long queue
    /// costs as many plans as it has heads.
    pub(super) fn serve_queue(&mut self, reading: &HolderReading<'_>) {
        for (served, ticket) in self.grants.tickets().into_iter().enumerate() {
            if served > 0 && self.is_aging(reading.taken_at) {
                break; // The next reading comes soon.
            }

            let Some(mut grant) = self.grants.take_waiting(ticket) else {
                continue;
            };

            let request_id = grant.request_id();
            if grant.is_abandoned() {
                self.grants.cancel_taken(ticket, &grant);
                self.collect_events(Some(&request_id));
                continue;
            }

            if grant.answer.is_some() && self.is_blocked(ticket, reading) {
                self.grants.keep_waiting(ticket, grant);
                continue;
            }

            match self.decide(&grant, Some(ticket), reading) {
                Decision::NotNow(answer) => {
                    grant.answer = Some(*answer);
                    self.grants.keep_waiting(ticket, grant);
                }
                decision => {
                    self.grants.leave(ticket);
                    self.reply(grant, decision);
                }
            }

            self.collect_events(Some(&request_id));
        }
    }

    /// Decides a grant for the first time. If the answer is no and the client asked to wait, the
    /// grant joins the queue, unless waiting cannot help.
    pub(super) fn serve_new(&mut self, mut grant: PendingGrant, reading: &HolderReading<'_>) {
        if grant.is_abandoned() {
            return;
        }

        let request_id = grant.request_id();
        let decision = self.decide(&grant, None, reading);
        self.collect_events(Some(&request_id));
        let Decision::NotNow(answer) = decision else {
            return self.reply(grant, decision);
        };

        let command = &grant.command;
        let waits = command.wait > Duration::ZERO
            && decide::may_become_yes(&answer, command.strict)
            && decide::fits_when_idle(&command.plan, reading.snapshot, command.strict);
        if !waits {
            return grant.reply(Ok(*answer));
        }

        let deadline = Timestamp::now()
            .boottime
            .after(command.wait.min(self.config.max_wait));
        let candidates = decide::candidates(command.candidates.as_ref(), reading.snapshot);

        grant.answer = Some(*answer);
        self.grants.join_queue(grant, candidates, deadline);
        self.collect_events(Some(&request_id));
    }

    fn reply(&mut self, grant: PendingGrant, decision: Decision) {
        match decision {
            Decision::Answer(answer) => self
                .replies
                .push(grant.reply_to, Reply::without_lease(*answer)),
            Decision::NotNow(answer) => self
                .replies
                .push(grant.reply_to, Reply::without_lease(Ok(*answer))),
            Decision::Lease {
                answer,
                lease,
                is_new,
            } => {
                self.replies.remember_answer(&lease, &answer);
                self.replies.push_lease(LeaseReply {
                    reply_to: grant.reply_to,
                    request_id: grant.command.request_id,
                    answer: *answer,
                    lease_id: lease.id,
                    is_new,
                });
            }
        }
    }

    fn decide(
        &mut self,
        grant: &PendingGrant,
        ticket: Option<Ticket>,
        reading: &HolderReading<'_>,
    ) -> Decision {
        let (command, now) = (&grant.command, Timestamp::now());
        if let Some(key) = &command.idempotency_key {
            match self
                .ledger
                .recall(command.peer.uid, key, &command.digest, now)
            {
                Ok(Some(lease)) => return self.repeat(command, lease, reading),
                Ok(None) => {}
                Err(error) => return Decision::fail(error),
            }
        }

        if let Some(process) = grant.holder.process
            && !is_alive(&self.config.proc_root, &process)
        {
            return Decision::fail(HolderError::Gone { pid: process.pid });
        }

        if let Some(unreadable) = self.ledger.unreadable(now) {
            return Decision::fail(unreadable);
        }

        let claims = decide::claims(self.ledger.ledger(), reading);
        let reserved: BTreeSet<String> = reading
            .snapshot
            .devices
            .iter()
            .map(|device| &device.facts.uuid)
            .filter(|uuid| !self.may_take(ticket, uuid))
            .cloned()
            .collect();
        let open_claims = decide::claims_with_reserved(&claims, &reserved, reading.snapshot);
        let answer = match decide::run_plan(&command.plan, reading.snapshot, &open_claims) {
            Ok(answer) => answer,
            Err(problem) => return Decision::fail(problem),
        };

        if decide::is_grantable(&answer, command.strict) {
            return self.grant(grant, answer, reading, now);
        }

        if reserved.is_empty() {
            return Decision::NotNow(Box::new(decide::explain_strict(answer, command.strict)));
        }

        // The client gets the answer on all devices: a reserved device is closed to this grant for
        // now, not to the model.
        match decide::run_plan(&command.plan, reading.snapshot, &claims) {
            Ok(answer) if decide::is_grantable(&answer, command.strict) => {
                let ahead = self.count_ahead(ticket);
                Decision::NotNow(Box::new(decide::not_yet(answer, ahead)))
            }
            Ok(answer) => {
                Decision::NotNow(Box::new(decide::explain_strict(answer, command.strict)))
            }
            Err(problem) => Decision::fail(problem),
        }
    }

    /// How many grants are ahead in the queue: of `ticket`, or of a grant that has none.
    fn count_ahead(&self, ticket: Option<Ticket>) -> usize {
        let queue = self.grants.queue();
        ticket.map_or(queue.len(), |ticket| {
            queue.position(ticket).map_or(0, |position| position - 1)
        })
    }

    /// Whether every device is reserved for grants ahead.
    fn is_blocked(&self, ticket: Ticket, reading: &HolderReading<'_>) -> bool {
        reading
            .snapshot
            .devices
            .iter()
            .all(|device| !self.may_take(Some(ticket), &device.facts.uuid))
    }

    fn may_take(&self, ticket: Option<Ticket>, uuid: &str) -> bool {
        let queue = self.grants.queue();
        match ticket {
            Some(ticket) => queue.may_take(ticket, [uuid]),
            None => queue.may_pass([uuid]),
        }
    }

    fn grant(
        &mut self,
        grant: &PendingGrant,
        mut answer: Answer,
        reading: &HolderReading<'_>,
        now: Timestamp,
    ) -> Decision {
        let Some(devices) = decide::bytes_to_grant(&answer, self.ledger.ledger(), reading) else {
            return Decision::NotNow(Box::new(decide::not_yet(answer, 0)));
        };

        let command = &grant.command;
        let request = GrantRequest {
            devices,
            ttl: command.ttl.unwrap_or(self.config.default_ttl),
            holder: grant.holder.clone(),
            uid: command.peer.uid,
            idempotency_key: command.idempotency_key.clone(),
            question: QuestionSummary {
                model: command.model.clone(),
                engine: command.engine.clone(),
                digest: command.digest.clone(),
            },
        };

        match self.ledger.grant(request, reading, now) {
            Ok(Granted::New(lease)) => {
                answer.lease = Some(view::lease(&lease, now));
                self.readings.begin_after(now.boottime);
                Decision::Lease {
                    answer: Box::new(answer),
                    lease: Box::new(lease),
                    is_new: true,
                }
            }
            Ok(Granted::Existing(lease)) => self.repeat(command, lease, reading),
            Err(CommitError::Grant(GrantError::Insufficient { .. })) => {
                Decision::NotNow(Box::new(decide::not_yet(answer, 0)))
            }
            Err(error) => Decision::fail(error),
        }
    }

    /// Repeats the answer that an idempotency key got before. After a restart, and if the answer
    /// was long, it is computed again, as if nothing else were on the lease's devices.
    fn repeat(
        &self,
        command: &GrantCommand,
        lease: Lease,
        reading: &HolderReading<'_>,
    ) -> Decision {
        let answer = match self.replies.remembered_answer(&lease.id) {
            Some(answer) => Ok(answer),
            None => self.recompute_answer(command, &lease, reading),
        };
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(problem) => return Decision::fail(problem),
        };

        answer.lease = Some(view::lease(&lease, Timestamp::now()));
        Decision::Lease {
            answer: Box::new(answer),
            lease: Box::new(lease),
            is_new: false,
        }
    }

    fn recompute_answer(
        &self,
        command: &GrantCommand,
        lease: &Lease,
        reading: &HolderReading<'_>,
    ) -> Result<Answer, Problem> {
        let mut snapshot = reading.snapshot.clone();
        snapshot
            .devices
            .retain(|device| lease.devices.contains_key(&device.facts.uuid));
        let margin = self.ledger.ledger().settings().margin;

        for device in &mut snapshot.devices {
            let share = lease.devices.get(&device.facts.uuid);
            device.free_bytes =
                share.map(|share| share.granted_bytes + device.margin_bytes + margin);
        }

        decide::run_plan(&command.plan, &snapshot, &BTreeMap::new())
    }
}
