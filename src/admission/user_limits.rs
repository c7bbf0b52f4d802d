//! Limits on a resource that all users share, so that one user cannot take all of it. A reservation
//! that exceeds a limit fails at once; to make a user wait instead, see
//! [`super::per_user_semaphore`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::api::peer::Operators;
use crate::lock_ignoring_poison::lock_ignoring_poison;

/// How much can be reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LimitBounds {
    /// By one user; operators are exempt.
    pub(crate) per_user: usize,
    /// By all users together.
    pub(crate) total: usize,
    /// By operators in addition, so that they get through when other users hold the total.
    pub(crate) operator_reserve: usize,
}

/// The reservations of all users.
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

/// The limit that a reservation exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LimitExceeded {
    /// The limit per user.
    User,
    /// The limit of all users together.
    Global,
}

/// An amount that one client holds. Dropping it releases the amount.
#[derive(Debug)]
pub(crate) struct Reservation {
    limits: UserLimits,
    uid: u32,
    amount: usize,
}

/// The memory that a large request reserves. The task that works on the request holds it, also
/// after the client has disconnected. Dropping it releases the memory.
#[derive(Debug)]
pub struct BodyReservation {
    _reservation: Reservation,
}

impl From<Reservation> for BodyReservation {
    fn from(reservation: Reservation) -> Self {
        Self {
            _reservation: reservation,
        }
    }
}

impl UserLimits {
    /// Limits without reservations.
    pub(crate) fn new(bounds: LimitBounds, operators: Operators) -> Self {
        Self {
            bounds,
            operators,
            held: Arc::default(),
        }
    }

    /// Reserves `amount` for `uid`.
    pub(crate) fn reserve(&self, uid: u32, amount: usize) -> Result<Reservation, LimitExceeded> {
        let mut reservation = Reservation {
            limits: self.clone(),
            uid,
            amount: 0,
        };

        reservation.grow_to(amount)?;
        Ok(reservation)
    }

    fn held(&self) -> MutexGuard<'_, HeldByUser> {
        // The lock is held for a few instructions that cannot panic.
        lock_ignoring_poison(&self.held)
    }

    fn add(&self, uid: u32, amount: usize) -> Result<(), LimitExceeded> {
        let LimitBounds {
            per_user,
            total,
            operator_reserve,
        } = self.bounds;
        let is_operator = self.operators.include(uid);
        let mut held = self.held();
        let users_sum = held
            .by_uid
            .get(&uid)
            .copied()
            .unwrap_or_default()
            .saturating_add(amount);

        let sum = held.sum.saturating_add(amount);
        if users_sum > per_user && !is_operator {
            return Err(LimitExceeded::User);
        }

        let max_sum = if is_operator {
            total.saturating_add(operator_reserve)
        } else {
            total
        };
        if sum > max_sum {
            return Err(LimitExceeded::Global);
        }

        held.by_uid.insert(uid, users_sum);
        held.sum = sum;

        Ok(())
    }

    fn subtract(&self, uid: u32, amount: usize) {
        let mut held = self.held();
        held.sum = held.sum.saturating_sub(amount);

        if let Some(users_sum) = held.by_uid.get_mut(&uid) {
            *users_sum = users_sum.saturating_sub(amount);
            if *users_sum == 0 {
                held.by_uid.remove(&uid);
            }
        }
    }
}

impl Reservation {
    /// Grows the reservation to `amount` in total. On failure it keeps its size; it never shrinks.
    pub(crate) fn grow_to(&mut self, amount: usize) -> Result<(), LimitExceeded> {
        let more = amount.saturating_sub(self.amount);
        if more > 0 {
            self.limits.add(self.uid, more)?;
            self.amount = amount;
        }
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.amount > 0 {
            self.limits.subtract(self.uid, self.amount);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(per_user: usize, total: usize, operator_reserve: usize) -> UserLimits {
        let bounds = LimitBounds {
            per_user,
            total,
            operator_reserve,
        };
        UserLimits::new(bounds, Operators::with(990))
    }

    #[test]
    fn user_limit_is_released_on_drop() {
        let limits = limits(2, 9, 0);
        let first = limits.reserve(1000, 1).unwrap();
        let _second = limits.reserve(1000, 1).unwrap();
        assert_eq!(limits.reserve(1000, 1).unwrap_err(), LimitExceeded::User);
        assert!(
            limits.reserve(1001, 2).is_ok(),
            "another user has its own limit"
        );
        drop(first);
        assert!(limits.reserve(1000, 1).is_ok());
    }

    #[test]
    fn operator_reserve_is_for_operators_only() {
        let limits = limits(2, 4, 2);
        let mut held = vec![
            limits.reserve(1000, 2).unwrap(),
            limits.reserve(1001, 2).unwrap(),
        ];
        assert_eq!(limits.reserve(1002, 1).unwrap_err(), LimitExceeded::Global);
        held.push(limits.reserve(0, 1).unwrap());
        held.push(limits.reserve(990, 1).unwrap());
        assert_eq!(limits.reserve(0, 1).unwrap_err(), LimitExceeded::Global);
        drop(held);
        let all = limits.reserve(0, 6).unwrap();

        assert_eq!(
            limits.reserve(990, 1).unwrap_err(),
            LimitExceeded::Global,
            "an operator may exceed the limit per user, but not the total"
        );

        drop(all);
        assert!(
            limits.held().by_uid.is_empty() && limits.held().sum == 0,
            "users without a reservation are forgotten"
        );
    }

    #[test]
    fn failed_growth_keeps_size() {
        let limits = limits(10, 12, 0);
        let mut reservation = limits.reserve(1000, 4).unwrap();
        reservation.grow_to(10).unwrap();
        assert_eq!(reservation.grow_to(11).unwrap_err(), LimitExceeded::User);
        assert_eq!(limits.reserve(1001, 3).unwrap_err(), LimitExceeded::Global);
        reservation.grow_to(2).unwrap();
        assert_eq!(limits.held().sum, 10, "it never shrinks");
        drop(reservation);
        assert!(limits.reserve(1001, 10).is_ok());
    }
}
