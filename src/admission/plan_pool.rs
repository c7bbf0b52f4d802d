//! The pool for work that a client can make long: a model sent with its question, declared devices,
//! many questions at once.
//!
//! The server is one thread. A client that kept it busy for seconds would delay all other clients,
//! and the watchdog too. Questions about known models on this host's own devices take microseconds
//! to a few milliseconds, and the server answers them itself. All others run in the pool. Its few
//! slots bound the processors that such questions use. A request that waits for a slot ends at the
//! handler's deadline, like any other. One user can have as many requests in the queue as there are
//! slots: a user who sends more waits for its own requests, and takes turns with other users.

use std::sync::Arc;

use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Span;

use super::per_user_semaphore::{PerUserSemaphore, UserPermit};

/// How many pieces of work run at once.
const SLOTS: usize = 2;

/// The slots, and the users that wait for them.
#[derive(Debug)]
pub(crate) struct PlanPool {
    slots: Arc<Semaphore>,
    /// How many pieces of work each user can have running or queued.
    users: PerUserSemaphore,
}

impl Default for PlanPool {
    fn default() -> Self {
        Self {
            slots: Arc::new(Semaphore::new(SLOTS)),
            users: PerUserSemaphore::new(SLOTS),
        }
    }
}

impl PlanPool {
    /// Runs `work` of the user `uid` on a separate thread once a slot is free. Dropping the future
    /// leaves the queue; work that has begun runs to its end and keeps its slot until then. A panic
    /// of the work resumes in the caller.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        uid: u32,
        work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        self.slot(uid).await?.run(work).await
    }

    /// Waits for a slot for the user `uid`. Read what must be recent after that: the wait may be
    /// long.
    pub(crate) async fn slot(&self, uid: u32) -> Result<PlanSlot, Problem> {
        let user = self.users.acquire(uid).await.ok_or_else(stopping)?;
        self.slot_with(user).await
    }

    /// Waits for a slot. It takes the user's permit, so that no request waits for a slot before it
    /// has one.
    async fn slot_with(&self, user: UserPermit) -> Result<PlanSlot, Problem> {
        let slot = Arc::clone(&self.slots)
            .acquire_owned()
            .await
            .map_err(|_| stopping())?;

        Ok(PlanSlot {
            _user: user,
            _slot: slot,
        })
    }
}

/// A slot, with its user's permit.
pub(crate) struct PlanSlot {
    _user: UserPermit,
    _slot: OwnedSemaphorePermit,
}

impl PlanSlot {
    /// Runs `work` on a separate thread, which keeps the slot until the work ends.
    pub(crate) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let span = Span::current();
        let done = tokio::task::spawn_blocking(move || {
            let _held = self;
            span.in_scope(work)
        });

        match done.await {
            Ok(outcome) => outcome,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(stopping()),
            },
        }
    }
}

fn stopping() -> Problem {
    Problem::new(Reason::Busy, "the daemon is stopping").hint("ask again")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn work_is_bounded_by_slots() {
        let pool = Arc::new(PlanPool::default());
        let (began, begun) = mpsc::channel();
        let mut ends = Vec::new();
        let mut working = Vec::new();

        for number in 0..=SLOTS {
            let (end, until) = mpsc::channel::<()>();
            ends.push(end);
            let (pool, began) = (Arc::clone(&pool), began.clone());
            working.push(tokio::spawn(async move {
                let work = move || {
                    began.send(number).unwrap();
                    // An error means that the sender was dropped, which also ends the work.
                    let _end = until.recv();
                    Ok(number)
                };
                pool.run(7, work).await
            }));
        }
        // This is the runtime's only thread, and blocked work does not block it.
        while pool.slots.available_permits() > 0 {
            tokio::task::yield_now().await;
        }

        let first: Vec<usize> = (0..SLOTS).map(|_| begun.recv().unwrap()).collect();
        assert!(begun.try_recv().is_err(), "no more than {SLOTS}: {first:?}");
        drop(ends);

        for (number, work) in working.into_iter().enumerate() {
            assert_eq!(work.await.unwrap().unwrap(), number);
        }

        assert_eq!(pool.slots.available_permits(), SLOTS);
    }

    #[tokio::test]
    async fn users_take_turns_for_slots() {
        let pool = Arc::new(PlanPool::default());
        let (began, begun) = mpsc::channel();
        let (mut ends, mut asked) = (Vec::new(), Vec::new());
        for uid in std::iter::repeat_n(1000, 10).chain([1001]) {
            let (end, until) = mpsc::channel::<()>();
            ends.push(end);
            let (pool, began) = (Arc::clone(&pool), began.clone());
            asked.push(tokio::spawn(async move {
                let work = move || {
                    began.send(uid).unwrap();
                    // An error means that the sender was dropped, which also ends the work.
                    let _end = until.recv();
                    Ok(())
                };
                pool.run(uid, work).await
            }));
        }
        // The tasks join the queue in the order in which they are spawned.
        while pool.users.count() < 2 {
            tokio::task::yield_now().await;
        }
        // User 1000 has all slots; its other work waits for its own permits.
        for _ in 0..SLOTS {
            assert_eq!(begun.recv().unwrap(), 1000);
        }
        // Free one slot at a time, so that no two workers report in the wrong order.
        drop(ends.remove(0));

        let next = loop {
            match begun.try_recv() {
                Ok(uid) => break uid,
                Err(_) => tokio::task::yield_now().await,
            }
        };

        assert_eq!(next, 1001);
        drop(ends);

        for answer in asked {
            answer.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn panic_reaches_caller_and_frees_slot() {
        let pool = Arc::new(PlanPool::default());
        for _ in 0..=SLOTS {
            let shared = Arc::clone(&pool);
            let broken = tokio::spawn(async move {
                shared
                    .run(7, || -> Result<(), Problem> { panic!("on purpose") })
                    .await
            });
            assert!(broken.await.unwrap_err().is_panic());
        }

        assert_eq!(pool.run(7, || Ok(7)).await.unwrap(), 7);
    }
}
