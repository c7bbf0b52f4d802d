//! The line of those who wait: first come, first served, and bounded.
//!
//! One who stands behind may pass only if that cannot delay anyone ahead: when it takes memory on
//! no device that one ahead could use. Those who do not wait obey the same rule, or a stream of
//! small askers would starve the big one at the head.

use std::collections::{BTreeSet, VecDeque};

use super::clock::Boottime;
use super::event::Event;

/// A place in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// One who waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// Its place's name.
    pub ticket: Ticket,
    /// Who asks.
    pub uid: u32,
    /// The devices it could be placed on; `None`: any.
    pub candidates: Option<BTreeSet<String>>,
    /// When it gives up.
    pub deadline: Boottime,
    /// Since when it waits: when it asked.
    pub since: Boottime,
}

/// Why one cannot wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// The line is as long as it may be.
    #[error("{waiting} others wait already, which is the most that may; try again later")]
    Full {
        /// How many wait.
        waiting: usize,
    },
    /// This user has as many in line as one may.
    #[error(
        "this user has {waiting} in line already, which is the most that one may have; try again later"
    )]
    FullForUser {
        /// How many of this user wait.
        waiting: usize,
    },
}

/// The line.
#[derive(Clone, Debug)]
pub struct Queue {
    waiters: VecDeque<Waiter>,
    most: usize,
    most_for_one_user: usize,
    next: u64,
    events: Vec<Event>,
}

impl Queue {
    /// An empty line of at most `most` waiters, and `most_for_one_user` of one user.
    pub fn new(most: usize, most_for_one_user: usize) -> Self {
        Self {
            waiters: VecDeque::new(),
            most,
            most_for_one_user,
            next: 1,
            events: Vec::new(),
        }
    }

    /// Joins behind all who have asked before: `since` is when this one did. `candidates` are the
    /// devices it could be placed on, whatever is free on them now; `None` if that is not known.
    pub fn join(
        &mut self,
        uid: u32,
        candidates: Option<BTreeSet<String>>,
        deadline: Boottime,
        since: Boottime,
    ) -> Result<Ticket, QueueError> {
        let waiting = self.waiters.len();
        if waiting >= self.most {
            return Err(QueueError::Full { waiting });
        }

        let own = self
            .waiters
            .iter()
            .filter(|waiter| waiter.uid == uid)
            .count();
        if own >= self.most_for_one_user {
            return Err(QueueError::FullForUser { waiting: own });
        }

        let ticket = Ticket(self.next);
        self.next = self.next.saturating_add(1);

        let behind = self
            .waiters
            .iter()
            .rposition(|waiter| waiter.since <= since)
            .map_or(0, |last| last + 1);
        self.waiters.insert(
            behind,
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
            position: behind + 1,
        });

        Ok(ticket)
    }

    /// The place in line, 1 is the head; `None` for one who is not in it.
    pub fn position(&self, ticket: Ticket) -> Option<usize> {
        self.place(ticket).map(|place| place + 1)
    }

    /// All who wait, in order.
    pub fn waiters(&self) -> impl Iterator<Item = &Waiter> {
        self.waiters.iter()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Whether this waiter may take memory on these devices now.
    pub fn may_take<'a>(&self, ticket: Ticket, devices: impl IntoIterator<Item = &'a str>) -> bool {
        self.place(ticket)
            .is_some_and(|place| self.delays_nobody(place, devices))
    }

    /// Whether one who does not wait may take memory on these devices now: as if it stood at the
    /// end.
    pub fn may_pass<'a>(&self, devices: impl IntoIterator<Item = &'a str>) -> bool {
        self.delays_nobody(self.waiters.len(), devices)
    }

    /// Leaves with what it waited for.
    pub fn served(&mut self, ticket: Ticket) -> bool {
        self.take(ticket)
    }

    /// Leaves because the asker hung up; whether it was in line.
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        let left = self.take(ticket);
        if left {
            self.events.push(Event::WaitEnded {
                ticket: ticket.0,
                timed_out: false,
            });
        }

        left
    }

    /// Sends away those whose time is up, and says who they were.
    pub fn give_up(&mut self, now: Boottime) -> Vec<Ticket> {
        let due: Vec<_> = self
            .waiters
            .iter()
            .filter(|waiter| now >= waiter.deadline)
            .map(|w| w.ticket)
            .collect();
        for ticket in &due {
            self.take(*ticket);
            self.events.push(Event::WaitEnded {
                ticket: ticket.0,
                timed_out: true,
            });
        }

        due
    }

    /// When the next waiter gives up, for the owner's timer.
    pub fn next_deadline(&self) -> Option<Boottime> {
        self.waiters.iter().map(|waiter| waiter.deadline).min()
    }

    /// What happened since this was last called.
    pub fn drain_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn place(&self, ticket: Ticket) -> Option<usize> {
        self.waiters
            .iter()
            .position(|waiter| waiter.ticket == ticket)
    }

    fn take(&mut self, ticket: Ticket) -> bool {
        self.place(ticket)
            .and_then(|place| self.waiters.remove(place))
            .is_some()
    }

    fn delays_nobody<'a>(&self, place: usize, devices: impl IntoIterator<Item = &'a str>) -> bool {
        let devices: Vec<&str> = devices.into_iter().collect();
        self.waiters
            .iter()
            .take(place)
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
    fn on(devices: &[&str]) -> Option<BTreeSet<String>> {
        Some(devices.iter().map(|&device| device.to_owned()).collect())
    }

    #[test]
    fn first_come_first_served_with_a_visible_place() {
        let mut queue = Queue::new(3, 2);
        let big = queue.join(1, on(&["a", "b"]), LATER, NOW).unwrap();
        let small = queue.join(1, on(&["a"]), LATER, NOW).unwrap();
        let other = queue.join(2, on(&["c"]), LATER, NOW).unwrap();

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
            "who is not in line takes nothing"
        );
    }

    #[test]
    fn who_asked_first_is_first_whoever_was_come_to_first() {
        let mut queue = Queue::new(4, 4);
        let at = |millis| Boottime::from_millis(millis);
        let second = queue.join(1, None, LATER, at(20)).unwrap();
        let third = queue.join(2, None, LATER, at(20)).unwrap();
        let first = queue.join(3, on(&["a"]), LATER, at(10)).unwrap();
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
    fn those_who_do_not_wait_pass_nobody_either() {
        let mut queue = Queue::new(3, 3);
        assert!(queue.may_pass(["a"]));
        queue.join(1, on(&["a"]), LATER, NOW).unwrap();
        assert!(!queue.may_pass(["a"]));
        assert!(queue.may_pass(["b"]));
        queue.join(1, None, LATER, NOW).unwrap();

        assert!(
            !queue.may_pass(["b"]),
            "one whose devices are not known might use any"
        );
    }

    #[test]
    fn the_line_is_bounded_for_all_and_for_one() {
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
    fn who_hangs_up_or_waits_too_long_leaves() {
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
