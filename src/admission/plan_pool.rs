//! Where work is done that a caller can make long: a model sent with its question, devices that are
//! only declared, many questions at once.
//!
//! The server is one thread; whoever could keep it busy for seconds would keep everybody waiting,
//! and the watchdog too. Questions about known models on this host's own devices take microseconds
//! to a few milliseconds and are answered where they arrive; all others come here. There are few
//! seats, so that such questions cost at most so many processors, and those who wait for one are
//! cut at the handler's deadline like anyone. One user stands in line no more often than there are
//! seats: whoever asks many such questions at once waits for itself, and the others take turns with
//! it.

use std::sync::Arc;

use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Span;

use super::per_user_semaphore::PerUserSemaphore;

/// Long pieces of work at once.
const SEATS: usize = 2;

/// The seats, and who stands in line for them.
#[derive(Debug)]
pub(crate) struct PlanPool {
    seats: Arc<Semaphore>,
    /// How often each user may work or stand in line.
    users: PerUserSemaphore,
}

impl Default for PlanPool {
    fn default() -> Self {
        Self {
            seats: Arc::new(Semaphore::new(SEATS)),
            users: PerUserSemaphore::new(SEATS),
        }
    }
}

impl PlanPool {
    /// Does `work` of the user `uid` on a thread of its own once there is a seat. A caller that
    /// leaves takes its place in line along; work that has begun is done to its end, and keeps its
    /// seat until then. A panic goes on to whoever waits.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        uid: u32,
        work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        self.seat(uid).await?.run(work).await
    }

    /// Waits for a seat of the user `uid`. What the work must not find old is read after that: the
    /// wait may be long.
    pub(crate) async fn seat(&self, uid: u32) -> Result<PlanSlot, Problem> {
        let turn = self.users.take(uid).await.ok_or_else(gone)?;
        let seat = Arc::clone(&self.seats)
            .acquire_owned()
            .await
            .map_err(|_| gone())?;

        Ok(PlanSlot {
            _turn: turn,
            _seat: seat,
        })
    }
}

/// One seat, with its user's turn.
pub(crate) struct PlanSlot {
    _turn: OwnedSemaphorePermit,
    _seat: OwnedSemaphorePermit,
}

impl PlanSlot {
    /// Does `work` on a thread of its own, which keeps the seat to its end.
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
                Err(_) => Err(gone()),
            },
        }
    }
}

fn gone() -> Problem {
    Problem::new(Reason::Busy, "the daemon is stopping").hint("ask again")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn the_server_goes_on_while_work_is_done_and_no_more_than_the_seats_are_taken() {
        let bench = Arc::new(PlanPool::default());
        let (began, begun) = mpsc::channel();
        let mut ends = Vec::new();
        let mut working = Vec::new();

        for number in 0..=SEATS {
            let (end, until) = mpsc::channel::<()>();
            ends.push(end);
            let (bench, began) = (Arc::clone(&bench), began.clone());
            working.push(tokio::spawn(async move {
                let work = move || {
                    began.send(number).unwrap();
                    // An error means that the sender is gone: the same.
                    let _end = until.recv();
                    Ok(number)
                };
                bench.run(7, work).await
            }));
        }
        // This very thread is the runtime's only one, and is not held up by work that waits.
        while bench.seats.available_permits() > 0 {
            tokio::task::yield_now().await;
        }

        let first: Vec<usize> = (0..SEATS).map(|_| begun.recv().unwrap()).collect();
        assert!(begun.try_recv().is_err(), "no more than {SEATS}: {first:?}");
        drop(ends);

        for (number, work) in working.into_iter().enumerate() {
            assert_eq!(work.await.unwrap().unwrap(), number);
        }

        assert_eq!(bench.seats.available_permits(), SEATS);
    }

    #[tokio::test]
    async fn who_asks_much_waits_for_itself_and_others_come_between() {
        let bench = Arc::new(PlanPool::default());
        let (began, begun) = mpsc::channel();
        let (mut ends, mut asked) = (Vec::new(), Vec::new());
        for uid in std::iter::repeat_n(1000, 10).chain([1001]) {
            let (end, until) = mpsc::channel::<()>();
            ends.push(end);
            let (bench, began) = (Arc::clone(&bench), began.clone());
            asked.push(tokio::spawn(async move {
                let work = move || {
                    began.send(uid).unwrap();
                    // An error means that the sender is gone: the same.
                    let _end = until.recv();
                    Ok(())
                };
                bench.run(uid, work).await
            }));
        }
        // Spawned in this order, they come into line in it.
        while bench.users.count() < 2 {
            tokio::task::yield_now().await;
        }
        // 1000 has its turns, which are the seats; its other works stand in no line but its own.
        for _ in 0..SEATS {
            assert_eq!(begun.recv().unwrap(), 1000);
        }
        // One seat at a time: no two workers can report in the wrong order.
        drop(ends.remove(0));

        let next = loop {
            match begun.try_recv() {
                Ok(uid) => break uid,
                Err(_) => tokio::task::yield_now().await,
            }
        };

        assert_eq!(next, 1001);
        drop(ends);

        for one in asked {
            one.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_panic_reaches_the_one_who_asked_and_frees_the_seat() {
        let bench = Arc::new(PlanPool::default());
        for _ in 0..=SEATS {
            let own = Arc::clone(&bench);
            let broken = tokio::spawn(async move {
                own.run(7, || -> Result<(), Problem> { panic!("told to") })
                    .await
            });
            assert!(broken.await.unwrap_err().is_panic());
        }

        assert_eq!(bench.run(7, || Ok(7)).await.unwrap(), 7);
    }
}
