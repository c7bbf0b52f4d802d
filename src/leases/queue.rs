//! The queue of waiting requests: first come, first served, and bounded.
//!
//! A request can pass those ahead only if that cannot delay them: if it takes memory only on
//! devices that no request ahead could use. Requests that do not wait obey the same rule. Otherwise
//! a stream of small requests would starve a large one at the head.

use std::collections::{BTreeSet, VecDeque};

use super::clock::Boottime;
use super::event::Event;

/// The id of a place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A waiting request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// Its ticket.
    pub ticket: Ticket,
    /// The user.
    pub uid: u32,
    /// The devices that it could be placed on; `None`: any.
    pub candidates: Option<BTreeSet<String>>,
    /// When its wait times out.
    pub deadline: Boottime,
    /// When the request arrived.
    pub since: Boottime,
}

/// Why a request cannot wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// The queue is full.
    #[error("the queue is full: {waiting} requests wait already; try again later")]
    Full {
        /// How many requests wait.
        waiting: usize,
    },
    /// The queue is full for this user.
    #[error(
        "this user has {waiting} requests in the queue, which is the limit per user; try again \
         later"
    )]
    FullForUser {
        /// How many requests of this user wait.
        waiting: usize,
    },
}

/// The queue.
#[derive(Clone, Debug)]
pub struct Queue {
    waiters: VecDeque<Waiter>,
    max_waiting: usize,
    max_per_user: usize,
    next: u64,
    events: Vec<Event>,
}

impl Queue {
    /// An empty queue of at most `max_waiting` requests, and at most `max_per_user` of one user.
    pub fn new(max_waiting: usize, max_per_user: usize) -> Self {
        Self {
            waiters: VecDeque::new(),
            max_waiting,
            max_per_user,
            next: 1,
            events: Vec::new(),
        }
    }

    /// Adds a request behind all that arrived before `since`, when it arrived. `candidates` are the
    /// devices that it could be placed on, whatever is free on them now; `None` if unknown.
    pub fn join(
        &mut self,
        uid: u32,
        candidates: Option<BTreeSet<String>>,
        deadline: Boottime,
        since: Boottime,
    ) -> Result<Ticket, QueueError> {
        let waiting = self.waiters.len();
        if waiting >= self.max_waiting {
            return Err(QueueError::Full { waiting });
        }

        let own = self
            .waiters
            .iter()
            .filter(|waiter| waiter.uid == uid)
            .count();
        if own >= self.max_per_user {
            return Err(QueueError::FullForUser { waiting: own });
        }

        let ticket = Ticket(self.next);
        self.next = self.next.saturating_add(1);

        let index = self
            .waiters
            .iter()
            .rposition(|waiter| waiter.since <= since)
            .map_or(0, |last| last + 1);
        self.waiters.insert(
            index,
            Waiter {
                ticket,
                uid,
                candidates,
                deadline,
                since,
            },
        );

        self.events.push(Event::Waiting {
            ticket: ticket.0,
            uid,
            position: index + 1,
        });

        Ok(ticket)
    }

    /// The position in the queue, 1 is the head; `None` if the ticket is not in it.
    pub fn position(&self, ticket: Ticket) -> Option<usize> {
        self.index(ticket).map(|index| index + 1)
    }

    /// All waiting requests, in order.
    pub fn waiters(&self) -> impl Iterator<Item = &Waiter> {
        self.waiters.iter()
    }

    /// How many requests wait.
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Whether no request waits.
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Whether this request can take memory on these devices now.
    pub fn may_take<'a>(&self, ticket: Ticket, devices: impl IntoIterator<Item = &'a str>) -> bool {
        self.index(ticket)
            .is_some_and(|index| self.delays_none(index, devices))
    }

    /// Whether a request that does not wait can take memory on these devices now, as if it were at
    /// the end.
    pub fn may_pass<'a>(&self, devices: impl IntoIterator<Item = &'a str>) -> bool {
        self.delays_none(self.waiters.len(), devices)
    }

    /// Removes a request that is answered. Returns whether it was in the queue.
    pub fn served(&mut self, ticket: Ticket) -> bool {
        self.remove(ticket)
    }

    /// Removes a request whose client has disconnected. Returns whether it was in the queue.
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        let removed = self.remove(ticket);
        if removed {
            self.events.push(Event::WaitEnded {
                ticket: ticket.0,
                timed_out: false,
            });
        }

        removed
    }

    /// Removes the requests whose wait has timed out. Returns their tickets.
    pub fn give_up(&mut self, now: Boottime) -> Vec<Ticket> {
        let due: Vec<_> = self
            .waiters
            .iter()
            .filter(|waiter| now >= waiter.deadline)
            .map(|waiter| waiter.ticket)
            .collect();
        for ticket in &due {
            self.remove(*ticket);
            self.events.push(Event::WaitEnded {
                ticket: ticket.0,
                timed_out: true,
            });
        }

        due
    }

    /// When the next wait times out.
    pub fn next_deadline(&self) -> Option<Boottime> {
        self.waiters.iter().map(|waiter| waiter.deadline).min()
    }

    /// The events since the last call.
    pub fn drain_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn index(&self, ticket: Ticket) -> Option<usize> {
        self.waiters
            .iter()
            .position(|waiter| waiter.ticket == ticket)
    }

    fn remove(&mut self, ticket: Ticket) -> bool {
        self.index(ticket)
            .and_then(|index| self.waiters.remove(index))
            .is_some()
    }

    /// Whether taking memory on these devices delays none of the first `ahead` requests.
    fn delays_none<'a>(&self, ahead: usize, devices: impl IntoIterator<Item = &'a str>) -> bool {
        let devices: Vec<&str> = devices.into_iter().collect();
        self.waiters
            .iter()
            .take(ahead)
            .all(|ahead| match &ahead.candidates {
                Some(candidates) => devices.iter().all(|device| !candidates.contains(*device)),
                None => false,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Boottime = Boottime::from_millis(1_000);
    const LATER: Boottime = Boottime::from_millis(60_000);

    #[expect(clippy::unnecessary_wraps, reason = "as `join` takes it")]
    fn named(devices: &[&str]) -> Option<BTreeSet<String>> {
        Some(devices.iter().map(|&device| device.to_owned()).collect())
    }

    #[test]
    fn first_request_is_served_first() {
        let mut queue = Queue::new(3, 2);
        let big = queue.join(1, named(&["a", "b"]), LATER, NOW).unwrap();
        let small = queue.join(1, named(&["a"]), LATER, NOW).unwrap();
        let other = queue.join(2, named(&["c"]), LATER, NOW).unwrap();

        assert_eq!(
            (
                queue.position(big),
                queue.position(small),
                queue.position(other)
            ),
            (Some(1), Some(2), Some(3))
        );

        assert!(queue.may_take(big, ["a", "b"]));
        assert!(!queue.may_take(small, ["a"]), "it would delay the head");
        assert!(queue.may_take(other, ["c"]), "it cannot delay the head");
        assert!(queue.served(big));
        assert!(queue.may_take(small, ["a"]));
        assert_eq!(queue.position(big), None);

        assert!(
            !queue.may_take(big, ["a"]),
            "a request outside the queue takes nothing"
        );
    }

    #[test]
    fn arrival_decides_position() {
        let mut queue = Queue::new(4, 4);
        let at = |millis| Boottime::from_millis(millis);
        let second = queue.join(1, None, LATER, at(20)).unwrap();
        let third = queue.join(2, None, LATER, at(20)).unwrap();
        let first = queue.join(3, named(&["a"]), LATER, at(10)).unwrap();
        let last = queue.join(1, None, LATER, at(30)).unwrap();
        assert_eq!(
            [first, second, third, last].map(|ticket| queue.position(ticket).unwrap()),
            [1, 2, 3, 4]
        );

        assert!(
            queue.may_take(first, ["a"])
                && !queue.may_take(second, ["a"])
                && queue.may_take(second, ["b"])
        );
    }

    #[test]
    fn unqueued_request_passes_none() {
        let mut queue = Queue::new(3, 3);
        assert!(queue.may_pass(["a"]));
        queue.join(1, named(&["a"]), LATER, NOW).unwrap();
        assert!(!queue.may_pass(["a"]));
        assert!(queue.may_pass(["b"]));
        queue.join(1, None, LATER, NOW).unwrap();

        assert!(
            !queue.may_pass(["b"]),
            "a request with unknown devices might use any"
        );
    }

    #[test]
    fn queue_is_bounded_per_user_too() {
        let mut queue = Queue::new(3, 2);
        queue.join(1, None, LATER, NOW).unwrap();
        queue.join(1, None, LATER, NOW).unwrap();

        assert_eq!(
            queue.join(1, None, LATER, NOW),
            Err(QueueError::FullForUser { waiting: 2 })
        );
        queue.join(2, None, LATER, NOW).unwrap();

        assert_eq!(
            queue.join(3, None, LATER, NOW),
            Err(QueueError::Full { waiting: 3 })
        );
    }

    #[test]
    fn cancelled_and_timed_out_requests_leave() {
        let mut queue = Queue::new(3, 3);
        let patient = queue.join(1, None, LATER, NOW).unwrap();
        let hasty = queue
            .join(2, None, Boottime::from_millis(2_000), NOW)
            .unwrap();
        let caller = queue.join(3, None, LATER, NOW).unwrap();
        assert_eq!(queue.next_deadline(), Some(Boottime::from_millis(2_000)));
        assert!(queue.cancel(caller));
        assert!(!queue.cancel(caller));
        assert_eq!(queue.give_up(Boottime::from_millis(2_000)), vec![hasty]);
        assert_eq!(queue.position(patient), Some(1));
        assert_eq!(queue.len(), 1);
        assert_eq!(queue.drain_events().len(), 5);
    }
}
