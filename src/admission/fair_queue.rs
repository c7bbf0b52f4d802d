//! Whose question is planned next: each user's in the order in which they came, and the users by
//! turns. Whoever asks much, or asks what takes long, waits for itself.
//!
//! This is about the owner's time only. Memory is given in the order of the line: see
//! [`crate::leases::queue`].

use std::collections::{HashMap, VecDeque};

/// Users whose last turn is remembered. One that is forgotten counts as never served: it comes
/// first once more.
const MOST_REMEMBERED: usize = 1024;

/// Askers whose turn is to come.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    /// By user, the users in the order in which they came.
    waiting: Vec<(u32, VecDeque<T>)>,
    /// When a user was served last, counted in turns.
    served: HashMap<u32, u64>,
    turn: u64,
}

impl<T> FairQueue<T> {
    pub(crate) fn new() -> Self {
        Self {
            waiting: Vec::new(),
            served: HashMap::new(),
            turn: 0,
        }
    }

    /// Comes after all that this user asked before.
    pub(crate) fn push(&mut self, uid: u32, asker: T) {
        if let Some((_, askers)) = self.waiting.iter_mut().find(|(user, _)| *user == uid) {
            askers.push_back(asker);
        } else {
            self.waiting.push((uid, VecDeque::from([asker])));
        }
    }

    /// The next one: of the user who was served longest ago.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let turns = self.waiting.iter().enumerate();
        let (place, uid) = turns
            .map(|(place, (uid, _))| (self.served.get(uid).copied(), place, *uid))
            .min()
            .map(|(_, place, uid)| (place, uid))?;
        let (_, askers) = self.waiting.get_mut(place)?;
        let asker = askers.pop_front();

        if askers.is_empty() {
            self.waiting.remove(place);
        }

        self.turn = self.turn.saturating_add(1);
        if self.served.len() >= MOST_REMEMBERED && !self.served.contains_key(&uid) {
            self.served.clear();
        }

        self.served.insert(uid, self.turn);
        asker
    }

    /// How many of this user's wait.
    pub(crate) fn of(&self, uid: u32) -> usize {
        self.waiting
            .iter()
            .find(|(user, _)| *user == uid)
            .map_or(0, |(_, askers)| askers.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Keeps those of which `keep` says so.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        for (_, askers) in &mut self.waiting {
            askers.retain(&mut keep);
        }
        self.waiting.retain(|(_, askers)| !askers.is_empty());
    }

    /// All of them, in no order that matters.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.waiting.iter().flat_map(|(_, askers)| askers)
    }

    /// All of them, in no order that matters; none is left.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> + use<'_, T> {
        self.waiting.drain(..).flat_map(|(_, askers)| askers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(turns: &mut FairQueue<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| turns.pop()).collect()
    }

    #[test]
    fn users_take_turns_and_each_ones_questions_stay_in_order() {
        let mut turns = FairQueue::new();
        for (uid, asker) in [
            (1, "a1"),
            (1, "a2"),
            (1, "a3"),
            (2, "b1"),
            (3, "c1"),
            (2, "b2"),
        ] {
            turns.push(uid, asker);
        }

        assert_eq!((turns.iter().count(), turns.of(1), turns.of(9)), (6, 3, 0));
        assert_eq!(all(&mut turns), ["a1", "b1", "c1", "a2", "b2", "a3"]);
        assert!(turns.is_empty());
    }

    #[test]
    fn one_that_comes_anew_is_before_one_that_was_just_served() {
        let mut turns = FairQueue::new();
        for asker in ["a1", "a2", "a3"] {
            turns.push(1, asker);
        }

        assert_eq!(turns.pop(), Some("a1"));
        turns.push(2, "b1");
        assert_eq!(turns.pop(), Some("b1"));

        // To leave and to come back gains nothing.
        turns.push(2, "b2");
        assert_eq!(all(&mut turns), ["a2", "b2", "a3"]);
    }

    #[test]
    fn those_who_left_have_no_turn() {
        let mut turns = FairQueue::new();
        for (uid, asker) in [(1, "a1"), (1, "gone"), (2, "gone"), (3, "c1"), (1, "a2")] {
            turns.push(uid, asker);
        }
        turns.retain(|asker| *asker != "gone");
        assert_eq!(all(&mut turns), ["a1", "c1", "a2"]);
    }

    #[test]
    fn users_are_forgotten_before_they_are_too_many() {
        let mut turns = FairQueue::new();
        for uid in 0..5_000 {
            turns.push(uid, "x");
            assert_eq!(turns.pop(), Some("x"));
            assert!(turns.served.len() <= MOST_REMEMBERED);
        }
    }
}
