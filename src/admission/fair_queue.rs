//! A queue that serves users in turn, and each user's items in the order of their arrival. A user
//! with many or long requests delays only its own.
//!
//! The turns share the broker's time: they order the first decision on each request. Requests that
//! then wait for memory are served in the order of the lease queue.

use std::collections::{HashMap, VecDeque};

/// How many users' last turns are remembered. A forgotten user counts as never served and comes
/// first once.
const MOST_REMEMBERED: usize = 1024;

/// Items of several users.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    /// The items by user, the users in the order of their arrival.
    waiting: Vec<(u32, VecDeque<T>)>,
    /// The number of each user's last turn.
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

    /// Adds an item after all others of this user.
    pub(crate) fn push(&mut self, uid: u32, item: T) {
        if let Some((_, items)) = self.waiting.iter_mut().find(|(user, _)| *user == uid) {
            items.push_back(item);
        } else {
            self.waiting.push((uid, VecDeque::from([item])));
        }
    }

    /// Removes the next item: of the user who was served longest ago.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let (_, index, uid) = self
            .waiting
            .iter()
            .enumerate()
            .map(|(index, (uid, _))| (self.served.get(uid).copied(), index, *uid))
            .min()?;
        let (_, items) = self.waiting.get_mut(index)?;
        let item = items.pop_front();

        if items.is_empty() {
            self.waiting.remove(index);
        }

        self.turn = self.turn.saturating_add(1);
        if self.served.len() >= MOST_REMEMBERED && !self.served.contains_key(&uid) {
            self.served.clear();
        }

        self.served.insert(uid, self.turn);
        item
    }

    /// How many items of this user wait.
    pub(crate) fn len_for(&self, uid: u32) -> usize {
        self.waiting
            .iter()
            .find(|(user, _)| *user == uid)
            .map_or(0, |(_, items)| items.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Keeps the items for which `keep` returns true.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        for (_, items) in &mut self.waiting {
            items.retain(&mut keep);
        }
        self.waiting.retain(|(_, items)| !items.is_empty());
    }

    /// All items, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.waiting.iter().flat_map(|(_, items)| items)
    }

    /// Removes all items, in no particular order.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> + use<'_, T> {
        self.waiting.drain(..).flat_map(|(_, items)| items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pop_all(queue: &mut FairQueue<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn users_take_turns_in_order() {
        let mut queue = FairQueue::new();
        for (uid, item) in [
            (1, "a1"),
            (1, "a2"),
            (1, "a3"),
            (2, "b1"),
            (3, "c1"),
            (2, "b2"),
        ] {
            queue.push(uid, item);
        }

        assert_eq!(
            (queue.iter().count(), queue.len_for(1), queue.len_for(9)),
            (6, 3, 0)
        );
        assert_eq!(pop_all(&mut queue), ["a1", "b1", "c1", "a2", "b2", "a3"]);
        assert!(queue.is_empty());
    }

    #[test]
    fn new_user_precedes_served_user() {
        let mut queue = FairQueue::new();
        for item in ["a1", "a2", "a3"] {
            queue.push(1, item);
        }

        assert_eq!(queue.pop(), Some("a1"));
        queue.push(2, "b1");
        assert_eq!(queue.pop(), Some("b1"));

        // A user that leaves and comes back gains nothing.
        queue.push(2, "b2");
        assert_eq!(pop_all(&mut queue), ["a2", "b2", "a3"]);
    }

    #[test]
    fn removed_items_have_no_turn() {
        let mut queue = FairQueue::new();
        for (uid, item) in [(1, "a1"), (1, "gone"), (2, "gone"), (3, "c1"), (1, "a2")] {
            queue.push(uid, item);
        }
        queue.retain(|item| *item != "gone");
        assert_eq!(pop_all(&mut queue), ["a1", "c1", "a2"]);
    }

    #[test]
    fn remembered_users_are_bounded() {
        let mut queue = FairQueue::new();
        for uid in 0..5_000 {
            queue.push(uid, "x");
            assert_eq!(queue.pop(), Some("x"));
            assert!(queue.served.len() <= MOST_REMEMBERED);
        }
    }
}
