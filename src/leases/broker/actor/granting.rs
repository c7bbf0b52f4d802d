//! Cases: planned on a reading, given a place in line, promised.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hf_mem_core::report::answer::Answer;

use super::super::decide;
use super::BrokerActor;
use super::pending_grant::{Decision, PendingGrant};
use crate::admission::limits::MAX_CACHED_ANSWER_BYTES;
use crate::leases::attribution::HolderReading;
use crate::leases::broker::attributed_event::RequestId;
use crate::leases::broker::grant_command::GrantCommand;
use crate::leases::broker::pending_reply::PendingReply;
use crate::leases::clock::Now;
use crate::leases::durable_ledger::CommitError;
use crate::leases::holder::{HolderError, is_alive};
use crate::leases::lease::{Lease, QuestionSummary};
use crate::leases::ledger::{GrantError, GrantRequest, Granted};
use crate::leases::queue::Ticket;
use crate::leases::view;

impl BrokerActor {
    /// Those in line, in their order. Where every device belongs to one ahead, nothing is planned:
    /// its answer stays as it was, and so a long line costs as many plans as it has heads.
    pub(super) fn serve_line(&mut self, reading: &HolderReading<'_>) {
        let tickets: Vec<Ticket> = self.queue.waiters().map(|waiter| waiter.ticket).collect();
        for (served, ticket) in tickets.into_iter().enumerate() {
            if served > 0 && self.is_old(reading.taken_at) {
                break; // The next reading is not far.
            }

            let Some(mut case) = self.in_line.remove(&ticket) else {
                continue;
            };

            let request_id = RequestId::clone(&case.ask.request_id);
            if case.reply.is_closed() {
                self.queue.cancel(ticket);
                self.gather(Some(&request_id));
                continue;
            }

            if case.answer.is_some() && self.is_behind_others(ticket, reading) {
                self.in_line.insert(ticket, case);
                continue;
            }

            match self.decide(&case, Some(ticket), reading) {
                Decision::NotNow(answer) => {
                    case.answer = Some(*answer);
                    self.in_line.insert(ticket, case);
                }
                decision => {
                    self.queue.served(ticket);
                    self.reply(case, decision);
                }
            }

            self.gather(Some(&request_id));
        }
    }

    pub(super) fn serve_new(&mut self, mut case: PendingGrant, reading: &HolderReading<'_>) {
        if case.reply.is_closed() {
            return;
        }

        let request_id = RequestId::clone(&case.ask.request_id);
        let decision = self.decide(&case, None, reading);
        self.gather(Some(&request_id));
        let Decision::NotNow(answer) = decision else {
            return self.reply(case, decision);
        };

        let waits = case.ask.wait > Duration::ZERO
            && decide::may_turn(&answer, case.ask.strict)
            && decide::could_ever(&case.ask.plan, reading.snapshot, case.ask.strict);
        if !waits {
            return case.tell(Ok(*answer));
        }

        let now = Now::read().boottime;
        let deadline = now.after(case.ask.wait.min(self.settings.longest_wait));

        // In the order in which they came, whoever was planned for first.
        let since = case.came;
        let candidates = decide::candidates(case.ask.candidates.as_ref(), reading.snapshot);

        match self
            .queue
            .join(case.ask.peer.uid, candidates, deadline, since)
        {
            Ok(ticket) => {
                case.answer = Some(*answer);
                self.in_line.insert(ticket, case);
                self.gather(Some(&request_id));
            }
            Err(full) => case.tell(Err(full.into())),
        }
    }

    fn reply(&mut self, case: PendingGrant, decision: Decision) {
        match decision {
            Decision::Answer(answer) => self
                .deliveries
                .plain(case.reply, PendingReply::plain(*answer)),
            Decision::NotNow(answer) => self
                .deliveries
                .plain(case.reply, PendingReply::plain(Ok(*answer))),
            Decision::Lease(answer, lease, new) => {
                if lease.idempotency_key.is_some()
                    && !self.given.contains_key(&lease.id)
                    && let Some(text) = short(&answer)
                {
                    self.given.insert(lease.id.clone(), text);
                }
                self.deliveries
                    .lease((case.reply, case.ask.request_id), *answer, lease.id, new);
            }
        }
    }

    fn decide(
        &mut self,
        case: &PendingGrant,
        ticket: Option<Ticket>,
        reading: &HolderReading<'_>,
    ) -> Decision {
        let (ask, now) = (&case.ask, Now::read());
        if let Some(key) = &ask.idempotency_key {
            match self.keeper.recall(ask.peer.uid, key, &ask.digest, now) {
                Ok(Some(lease)) => return self.again(ask, lease, reading),
                Ok(None) => {}
                Err(error) => return Decision::Answer(Box::new(Err(error.into()))),
            }
        }

        if let Some(process) = case.holder.process
            && !is_alive(&self.settings.proc_root, &process)
        {
            return Decision::Answer(Box::new(Err(HolderError::Gone { pid: process.pid }.into())));
        }

        if let Some(blind) = self.keeper.blind(now) {
            return Decision::Answer(Box::new(Err(blind.into())));
        }

        let claims = decide::claims(self.keeper.ledger(), reading);
        let uuids = reading
            .snapshot
            .devices
            .iter()
            .map(|device| &device.facts.uuid);

        let closed: BTreeSet<String> = uuids
            .filter(|uuid| !self.may_take(ticket, uuid))
            .cloned()
            .collect();
        let open_claims = decide::with_closed(&claims, &closed, reading.snapshot);
        let answer = match decide::run(&ask.plan, reading.snapshot, &open_claims) {
            Ok(answer) => answer,
            Err(problem) => return Decision::Answer(Box::new(Err(problem))),
        };

        if decide::is_yes(&answer, ask.strict) {
            return self.hold(case, answer, reading, now);
        }

        if closed.is_empty() {
            return Decision::NotNow(Box::new(decide::not_held(answer, ask.strict)));
        }
        // The answer for the asker is that on all devices: nothing there is closed to the model,
        // only to its turn.
        let ahead = ticket.map_or(self.queue.len(), |ticket| {
            self.queue.position(ticket).map_or(0, |place| place - 1)
        });

        match decide::run(&ask.plan, reading.snapshot, &claims) {
            Ok(answer) if decide::is_yes(&answer, ask.strict) => {
                Decision::NotNow(Box::new(decide::in_line(answer, ahead)))
            }
            Ok(answer) => Decision::NotNow(Box::new(decide::not_held(answer, ask.strict))),
            Err(problem) => Decision::Answer(Box::new(Err(problem))),
        }
    }

    fn is_behind_others(&self, ticket: Ticket, reading: &HolderReading<'_>) -> bool {
        reading
            .snapshot
            .devices
            .iter()
            .all(|device| !self.queue.may_take(ticket, [device.facts.uuid.as_str()]))
    }

    fn may_take(&self, ticket: Option<Ticket>, uuid: &str) -> bool {
        match ticket {
            Some(ticket) => self.queue.may_take(ticket, [uuid]),
            None => self.queue.may_pass([uuid]),
        }
    }

    fn hold(
        &mut self,
        case: &PendingGrant,
        mut answer: Answer,
        reading: &HolderReading<'_>,
        now: Now,
    ) -> Decision {
        let Some(devices) = decide::promise(&answer, self.keeper.ledger(), reading) else {
            return Decision::NotNow(Box::new(decide::in_line(answer, 0)));
        };

        let ask = &case.ask;
        let request = GrantRequest {
            devices,
            ttl: ask.ttl.unwrap_or(self.settings.default_ttl),
            holder: case.holder.clone(),
            uid: ask.peer.uid,
            idempotency_key: ask.idempotency_key.clone(),
            question: QuestionSummary {
                model: ask.model.clone(),
                engine: ask.engine.clone(),
                digest: ask.digest.clone(),
            },
        };

        match self.keeper.grant(request, reading, now) {
            Ok(Granted::Now(lease)) => {
                answer.lease = printed(&lease, now);
                self.before_next = self.before_next.max(now.boottime);
                Decision::Lease(Box::new(answer), Box::new(lease), true)
            }
            Ok(Granted::Before(lease)) => self.again(ask, lease, reading),
            Err(CommitError::Grant(GrantError::Insufficient { .. })) => {
                Decision::NotNow(Box::new(decide::in_line(answer, 0)))
            }
            Err(error) => Decision::Answer(Box::new(Err(error.into()))),
        }
    }

    /// The answer that a key was given before. After a restart, and where it was a long one, it is
    /// worked out anew, as if nothing else were on the lease's devices.
    fn again(&self, ask: &GrantCommand, lease: Lease, reading: &HolderReading<'_>) -> Decision {
        let given = self
            .given
            .get(&lease.id)
            .and_then(|text| serde_json::from_slice(text).ok());
        let mut answer: Answer = if let Some(answer) = given {
            answer
        } else {
            let mut snapshot = reading.snapshot.clone();
            snapshot
                .devices
                .retain(|device| lease.devices.contains_key(&device.facts.uuid));
            let margin = self.keeper.ledger().settings().margin;

            for device in &mut snapshot.devices {
                let share = lease.devices.get(&device.facts.uuid);
                device.free_bytes =
                    share.map(|share| share.granted_bytes + device.margin_bytes + margin);
            }

            match decide::run(&ask.plan, &snapshot, &BTreeMap::new()) {
                Ok(answer) => answer,
                Err(problem) => return Decision::Answer(Box::new(Err(problem))),
            }
        };

        answer.lease = printed(&lease, Now::read());
        Decision::Lease(Box::new(answer), Box::new(lease), false)
    }
}

/// `answer` as it is kept: as text, for that is what its bound is of. `None` where it is long.
fn short(answer: &Answer) -> Option<Box<[u8]>> {
    let text = serde_json::to_vec(answer).ok()?;
    (text.len() <= MAX_CACHED_ANSWER_BYTES).then(|| text.into())
}

fn printed(lease: &Lease, now: Now) -> Option<serde_json::Value> {
    // A struct of plain fields: this cannot fail.
    serde_json::to_value(view::lease(lease, now)).ok()
}
