//! What is there once and wanted by many users: how much each holds, so that one cannot take all of
//! it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::api::peer::Operators;

/// How much may be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LimitBounds {
    /// By one user; operators are not held to it.
    pub(crate) each: usize,
    /// By all together.
    pub(crate) all: usize,
    /// On top of that by operators, who must get through when all others hold all.
    pub(crate) reserve: usize,
}

/// What is held, by user.
#[derive(Clone, Debug)]
pub(crate) struct UserLimits {
    bounds: LimitBounds,
    operators: Operators,
    held: Arc<Mutex<HeldByUser>>,
}

#[derive(Debug, Default)]
struct HeldByUser {
    by_uid: HashMap<u32, usize>,
    sum: usize,
}

/// Which bound stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LimitExceeded {
    /// The user's own.
    Each,
    /// Everybody's.
    All,
}

/// What one caller holds; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Reservation {
    of: UserLimits,
    uid: u32,
    amount: usize,
}

/// What a large request takes of the memory that is kept for such: whoever works on the request
/// holds it, also when the asker is gone. Dropping it gives it back.
#[derive(Debug)]
pub struct BodyReservation {
    _share: Reservation,
}

impl From<Reservation> for BodyReservation {
    fn from(share: Reservation) -> Self {
        Self { _share: share }
    }
}

impl UserLimits {
    /// Nothing is held yet.
    pub(crate) fn new(bounds: LimitBounds, operators: Operators) -> Self {
        Self {
            bounds,
            operators,
            held: Arc::default(),
        }
    }

    /// `amount` for `uid`, unless it would be too much.
    pub(crate) fn take(&self, uid: u32, amount: usize) -> Result<Reservation, LimitExceeded> {
        let mut share = Reservation {
            of: self.clone(),
            uid,
            amount: 0,
        };

        share.reach(amount)?;
        Ok(share)
    }

    fn held(&self) -> MutexGuard<'_, HeldByUser> {
        // Held for a few instructions that cannot panic.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn more(&self, uid: u32, amount: usize) -> Result<(), LimitExceeded> {
        let LimitBounds { each, all, reserve } = self.bounds;
        let privileged = self.operators.include(uid);
        let mut held = self.held();
        let mine = held
            .by_uid
            .get(&uid)
            .copied()
            .unwrap_or_default()
            .saturating_add(amount);

        let sum = held.sum.saturating_add(amount);
        if mine > each && !privileged {
            return Err(LimitExceeded::Each);
        }

        if sum
            > if privileged {
                all.saturating_add(reserve)
            } else {
                all
            }
        {
            return Err(LimitExceeded::All);
        }

        held.by_uid.insert(uid, mine);
        held.sum = sum;

        Ok(())
    }

    fn less(&self, uid: u32, amount: usize) {
        let mut held = self.held();
        held.sum = held.sum.saturating_sub(amount);

        if let Some(mine) = held.by_uid.get_mut(&uid) {
            *mine = mine.saturating_sub(amount);
            if *mine == 0 {
                held.by_uid.remove(&uid);
            }
        }
    }
}

impl Reservation {
    /// Holds `amount` in all, or as much as before where that would be too much.
    pub(crate) fn reach(&mut self, amount: usize) -> Result<(), LimitExceeded> {
        let more = amount.saturating_sub(self.amount);
        if more > 0 {
            self.of.more(self.uid, more)?;
            self.amount = amount;
        }
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.amount > 0 {
            self.of.less(self.uid, self.amount);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(each: usize, all: usize, reserve: usize) -> UserLimits {
        UserLimits::new(LimitBounds { each, all, reserve }, Operators::with(990))
    }

    #[test]
    fn one_user_holds_its_share_and_gives_it_back() {
        let shares = shares(2, 9, 0);
        let first = shares.take(1000, 1).unwrap();
        let _second = shares.take(1000, 1).unwrap();
        assert_eq!(shares.take(1000, 1).unwrap_err(), LimitExceeded::Each);
        assert!(shares.take(1001, 2).is_ok(), "another user is not held up");
        drop(first);
        assert!(shares.take(1000, 1).is_ok());
    }

    #[test]
    fn what_is_left_for_root_is_left_for_nobody_else() {
        let shares = shares(2, 4, 2);
        let mut held = vec![shares.take(1000, 2).unwrap(), shares.take(1001, 2).unwrap()];
        assert_eq!(shares.take(1002, 1).unwrap_err(), LimitExceeded::All);
        held.push(shares.take(0, 1).unwrap());
        held.push(shares.take(990, 1).unwrap());
        assert_eq!(shares.take(0, 1).unwrap_err(), LimitExceeded::All);
        drop(held);
        let all = shares.take(0, 6).unwrap();

        assert_eq!(
            shares.take(990, 1).unwrap_err(),
            LimitExceeded::All,
            "more than one may hold, but not more than there is"
        );

        drop(all);
        assert!(
            shares.held().by_uid.is_empty() && shares.held().sum == 0,
            "nothing is kept of users who left"
        );
    }

    #[test]
    fn a_share_that_cannot_grow_stays_what_it_is() {
        let shares = shares(10, 12, 0);
        let mut share = shares.take(1000, 4).unwrap();
        share.reach(10).unwrap();
        assert_eq!(share.reach(11).unwrap_err(), LimitExceeded::Each);
        assert_eq!(shares.take(1001, 3).unwrap_err(), LimitExceeded::All);
        share.reach(2).unwrap();
        assert_eq!(shares.held().sum, 10, "it never shrinks");
        drop(share);
        assert!(shares.take(1001, 10).is_ok());
    }
}
