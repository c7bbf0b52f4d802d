//! The grants that are not decided yet: before a reading, on a reading, or in the queue.
//!
//! Each pending grant is in exactly one of the three places. Each ticket of the queue belongs to
//! one waiting grant, except while [`PendingGrants::take_waiting`] has it out for a decision.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use hf_mem_core::report::{Answer, Problem};
use tokio::sync::oneshot;

use crate::admission::fair_queue::FairQueue;
use crate::leases::broker::BrokerConfig;
use crate::leases::broker::event_log::RequestId;
use crate::leases::broker::grant_command::GrantCommand;
use crate::leases::broker::reply::Reply;
use crate::leases::clock::Boottime;
use crate::leases::event::Event;
use crate::leases::holder::ProcessIdentity;
use crate::leases::lease::Holder;
use crate::leases::queue::{Queue, Ticket};

/// A grant that is not decided yet.
pub(super) struct PendingGrant {
    pub(super) command: GrantCommand,
    /// When the command arrived. It decides the position in the queue.
    pub(super) arrived_at: Boottime,
    pub(super) holder: Holder,
    pub(super) reply_to: oneshot::Sender<Reply>,
    /// The answer if its wait ended now.
    pub(super) answer: Option<Answer>,
}

impl PendingGrant {
    /// Replies without a lease.
    pub(super) fn reply(self, answer: Result<Answer, Problem>) {
        let _client_gone = self.reply_to.send(Reply::without_lease(answer));
    }

    /// Whether the client has disconnected.
    pub(super) fn is_abandoned(&self) -> bool {
        self.reply_to.is_closed()
    }

    pub(super) fn request_id(&self) -> RequestId {
        RequestId::clone(&self.command.request_id)
    }
}

/// A wait whose deadline has passed.
pub(super) struct TimedOutWait {
    pub(super) grant: PendingGrant,
    pub(super) waited: Duration,
    /// Its position when the wait ended, 1 is the head.
    pub(super) position: usize,
    /// How many waited at that time.
    pub(super) queue_length: usize,
}

/// All grants that are not decided yet.
pub(super) struct PendingGrants {
    /// Grants that no reading has begun for, in the order of their arrival.
    arrived: Vec<PendingGrant>,
    /// Grants to decide on the ongoing reading, or left over from the one before.
    on_reading: FairQueue<PendingGrant>,
    waiting: HashMap<Ticket, PendingGrant>,
    queue: Queue,
    /// Events of the queue, each with the request whose wait it is.
    events: Vec<(Event, Option<RequestId>)>,
}

impl PendingGrants {
    pub(super) fn new(config: &BrokerConfig) -> Self {
        Self {
            arrived: Vec::new(),
            on_reading: FairQueue::new(),
            waiting: HashMap::new(),
            queue: Queue::new(config.max_waiting, config.max_waiting_per_user),
            events: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, grant: PendingGrant) {
        self.arrived.push(grant);
    }

    /// Whether a grant needs a reading to be decided on.
    pub(super) fn need_reading(&self) -> bool {
        !self.arrived.is_empty() || !self.on_reading.is_empty()
    }

    /// Whether a grant waits in the queue.
    pub(super) fn any_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Moves the grants that have arrived to the reading that begins now.
    pub(super) fn begin_reading(&mut self) {
        for grant in self.arrived.drain(..) {
            self.on_reading.push(grant.command.peer.uid, grant);
        }
    }

    /// The next grant to decide on the reading; users take turns.
    pub(super) fn pop_on_reading(&mut self) -> Option<PendingGrant> {
        self.on_reading.pop()
    }

    /// Replies to all grants on a reading that failed.
    pub(super) fn fail_on_reading(&mut self, problem: &Problem) {
        for grant in self.on_reading.drain() {
            grant.reply(Err(problem.clone()));
        }
    }

    /// The holders that are processes, of the grants to decide on the reading and of the waiting
    /// ones.
    pub(super) fn holders_to_decide(&self) -> impl Iterator<Item = ProcessIdentity> {
        self.on_reading
            .iter()
            .chain(self.waiting.values())
            .filter_map(|grant| grant.holder.process)
    }

    /// The holders of all pending grants that are processes.
    pub(super) fn holders(&self) -> impl Iterator<Item = ProcessIdentity> {
        self.arrived
            .iter()
            .filter_map(|grant| grant.holder.process)
            .chain(self.holders_to_decide())
    }

    /// The queue, to read.
    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// The process for which `ticket` waits, if a process is to hold the lease.
    pub(super) fn waiting_pid(&self, ticket: Ticket) -> Option<u32> {
        let holder = &self.waiting.get(&ticket)?.holder;
        holder.process.map(|process| process.pid)
    }

    /// The tickets of all waiting grants, in the queue's order.
    pub(super) fn tickets(&self) -> Vec<Ticket> {
        self.queue.waiters().map(|waiter| waiter.ticket).collect()
    }

    /// Takes a waiting grant out for a decision; its ticket stays in the queue. End the decision
    /// with [`Self::keep_waiting`], [`Self::leave`] or [`Self::cancel_taken`].
    pub(super) fn take_waiting(&mut self, ticket: Ticket) -> Option<PendingGrant> {
        self.waiting.remove(&ticket)
    }

    /// Puts a grant back that was taken out for a decision.
    pub(super) fn keep_waiting(&mut self, ticket: Ticket, grant: PendingGrant) {
        self.waiting.insert(ticket, grant);
    }

    /// Removes the ticket of a grant that was taken out and is decided.
    pub(super) fn leave(&mut self, ticket: Ticket) {
        self.queue.served(ticket);
    }

    /// Removes the ticket of a grant that was taken out and whose client has disconnected.
    pub(super) fn cancel_taken(&mut self, ticket: Ticket, grant: &PendingGrant) {
        self.queue.cancel(ticket);
        self.attribute_events(&grant.request_id());
    }

    /// Adds a grant to the queue, or rejects it if the queue is full.
    pub(super) fn join_queue(
        &mut self,
        grant: PendingGrant,
        candidates: Option<BTreeSet<String>>,
        deadline: Boottime,
    ) {
        let uid = grant.command.peer.uid;
        match self.queue.join(uid, candidates, deadline, grant.arrived_at) {
            Ok(ticket) => {
                self.attribute_events(&grant.request_id());
                self.waiting.insert(ticket, grant);
            }
            Err(full) => grant.reply(Err(full.into())),
        }
    }

    /// Removes the waiting grants of a process that has exited.
    pub(super) fn cancel_held_by(&mut self, process: ProcessIdentity) -> Vec<PendingGrant> {
        self.cancel_where(|grant| grant.holder.process == Some(process))
    }

    /// Removes the grants whose clients have disconnected. Returns whether one of them waited.
    pub(super) fn remove_abandoned(&mut self) -> bool {
        // Their memory may be large, and the next reading may be far away.
        self.arrived.retain(|grant| !grant.is_abandoned());
        self.on_reading.retain(|grant| !grant.is_abandoned());
        !self.cancel_where(PendingGrant::is_abandoned).is_empty()
    }

    /// Removes the grants whose wait is over.
    pub(super) fn time_out(&mut self, now: Boottime) -> Vec<TimedOutWait> {
        let positions: HashMap<Ticket, (usize, Boottime)> = self
            .queue
            .waiters()
            .zip(1..)
            .map(|(waiter, position)| (waiter.ticket, (position, waiter.since)))
            .collect();

        let mut timed_out = Vec::new();
        for ticket in self.queue.give_up(now) {
            let Some(grant) = self.waiting.remove(&ticket) else {
                continue;
            };
            let (position, since) = positions.get(&ticket).copied().unwrap_or((0, now));
            timed_out.push((
                ticket,
                TimedOutWait {
                    waited: now.since(since),
                    position,
                    queue_length: positions.len(),
                    grant,
                },
            ));
        }

        for event in self.queue.drain_events() {
            let request_id = timed_out.iter().find_map(|(ticket, wait)| match &event {
                Event::WaitEnded { ticket: ended, .. } if *ended == ticket.0 => {
                    Some(wait.grant.request_id())
                }
                _ => None,
            });
            self.events.push((event, request_id));
        }

        timed_out.into_iter().map(|(_, wait)| wait).collect()
    }

    /// Removes all grants.
    pub(super) fn drain(&mut self) -> Vec<PendingGrant> {
        self.arrived
            .drain(..)
            .chain(self.on_reading.drain())
            .chain(self.waiting.drain().map(|(_, grant)| grant))
            .collect()
    }

    /// The events since the last call, each with the request whose wait it is.
    pub(super) fn drain_events(&mut self) -> Vec<(Event, Option<RequestId>)> {
        std::mem::take(&mut self.events)
    }

    fn cancel_where(&mut self, matches: impl Fn(&PendingGrant) -> bool) -> Vec<PendingGrant> {
        let tickets: Vec<Ticket> = self
            .waiting
            .iter()
            .filter(|(_, grant)| matches(grant))
            .map(|(ticket, _)| *ticket)
            .collect();

        let mut cancelled = Vec::new();
        for ticket in tickets {
            self.queue.cancel(ticket);
            if let Some(grant) = self.waiting.remove(&ticket) {
                self.attribute_events(&grant.request_id());
                cancelled.push(grant);
            }
        }

        cancelled
    }

    fn attribute_events(&mut self, request_id: &RequestId) {
        for event in self.queue.drain_events() {
            self.events
                .push((event, Some(RequestId::clone(request_id))));
        }
    }
}
