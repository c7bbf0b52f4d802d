//! What all readings of this process may hold in memory together, and where what is long is worked
//! on.
//!
//! Repositories are written by anyone, and questions come at once. So few are read at the same
//! time; what is long and not yet parsed counts against one bound for all of them; and of readings
//! whose documents or headers are large, one goes on at a time, beside the others. One that turns
//! out to be large lets go of all that it has, its seat too, and begins again when its turn comes:
//! who waits for that turn keeps nobody from a seat. Parsing that takes longer than a moment is
//! done on a thread of its own: the server is one thread.

use std::sync::Arc;

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// What is small enough to be no matter, even many times over. Documents of nearly all models are,
/// all together.
pub(crate) const SMALL_BYTES: u64 = 1 << 20;
/// Long texts that are not parsed yet, of all readings together; a longer one takes all of it.
const UNPARSED_KIB: u32 = 64 << 10;
/// Work on less than this is done where it arises: it takes less than a millisecond.
const BRIEF_BYTES: u64 = 64 << 10;
/// Readings at once.
const READINGS: usize = 16;
/// Models that are brought from the disk at once.
const LOADS: usize = 2;

static UNPARSED: Semaphore = Semaphore::const_new(UNPARSED_KIB as usize);
static LARGE: Semaphore = Semaphore::const_new(1);
static LISTING: Semaphore = Semaphore::const_new(1);
static READING: Semaphore = Semaphore::const_new(READINGS);
static LOADING: Semaphore = Semaphore::const_new(LOADS);

/// The right to hold memory; given back where it is dropped. The semaphores are never closed, so
/// `None` is a right that needs none.
pub(crate) type ReadTurn = Option<SemaphorePermit<'static>>;

/// One reading's seat among all others, or the one of the large reading. Whoever works for it on
/// another thread takes a copy along, so that the seat is kept until that work has ended, even
/// where the asker has left.
#[derive(Clone, Debug)]
pub(crate) struct ReadSlot(Arc<HeldReads>);

#[derive(Debug)]
struct HeldReads {
    _turn: ReadTurn,
    is_large: bool,
    /// The reading turned out to be large and cannot go on here.
    outgrown: Notify,
}

impl ReadSlot {
    /// Waits for a seat of a reading that is small so far. Must not be waited for by who has one.
    pub(crate) async fn take() -> Self {
        Self::new(READING.acquire().await.ok(), false)
    }

    /// Waits for the seat of the large reading. Must not be waited for by who has a seat or
    /// [`unparsed`] bytes.
    pub(crate) async fn take_large() -> Self {
        Self::new(LARGE.acquire().await.ok(), true)
    }

    fn new(turn: ReadTurn, is_large: bool) -> Self {
        Self(Arc::new(HeldReads {
            _turn: turn,
            is_large,
            outgrown: Notify::new(),
        }))
    }

    /// Before `bytes` are held: goes on at once where they are small or this is the large reading.
    /// Else it never does, and [`ReadSlot::outgrown`] comes back: whoever runs the reading drops
    /// it.
    pub(crate) async fn hold(&self, bytes: u64) {
        if bytes > SMALL_BYTES && !self.is_large() {
            self.0.outgrown.notify_one();
            std::future::pending::<()>().await;
        }
    }

    /// Comes back when the reading needs the seat of the large one.
    pub(crate) async fn outgrown(&self) {
        self.0.outgrown.notified().await;
    }

    /// Whether this is the large reading.
    pub(crate) fn is_large(&self) -> bool {
        self.0.is_large
    }
}

/// Waits for the turn of a long list of files, to be kept for as long as the list is. Must not be
/// waited for by who has a seat.
pub(crate) async fn long_list() -> ReadTurn {
    LISTING.acquire().await.ok()
}

/// Waits for room for a text of `bytes`.
pub(crate) async fn unparsed(bytes: u64) -> ReadTurn {
    if bytes <= SMALL_BYTES {
        return None;
    }

    let kib = u32::try_from(bytes.div_ceil(1024))
        .unwrap_or(u32::MAX)
        .min(UNPARSED_KIB);
    UNPARSED.acquire_many(kib).await.ok()
}

/// Does `work` on `bytes`: here where that is brief, else on a thread of its own, which keeps
/// `held` until it is done.
pub(crate) async fn work<T: Send + 'static>(
    bytes: u64,
    held: impl Send + 'static,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    if bytes <= BRIEF_BYTES {
        return work();
    }

    let done = tokio::task::spawn_blocking(move || {
        let done = work();
        drop(held);
        done
    });

    match done.await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime is ending, and whoever waits for this with it.
        Err(Err(_)) => std::future::pending().await,
    }
}

/// Waits for the turn of a model from the disk, whose length does not say how much it is in memory.
pub(crate) async fn loading() -> ReadTurn {
    LOADING.acquire().await.ok()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn one_large_reading_at_a_time_and_it_keeps_its_turn_while_its_work_goes_on() {
        let first = ReadSlot::take_large().await;
        first.hold(u64::MAX).await;
        let mut waiting = Box::pin(ReadSlot::take_large());
        assert!(poll!(&mut waiting).is_pending());
        let (end, until) = mpsc::channel::<()>();
        let mut long = Box::pin(work(u64::MAX, first.clone(), move || until.recv().is_ok()));
        assert!(poll!(&mut long).is_pending());

        // The asker leaves; the thread goes on.
        drop((long, first));
        assert!(poll!(&mut waiting).is_pending());
        drop(end);
        waiting.await;
    }

    #[tokio::test]
    async fn what_is_large_does_not_go_on_in_a_seat_of_the_small() {
        let seat = ReadSlot::take().await;
        seat.hold(SMALL_BYTES).await;
        let mut outgrown = Box::pin(seat.outgrown());
        assert!(poll!(&mut outgrown).is_pending());
        let mut held = Box::pin(seat.hold(SMALL_BYTES + 1));
        assert!(poll!(&mut held).is_pending());
        outgrown.await;
        assert!(poll!(&mut held).is_pending() && !seat.is_large());
    }

    #[tokio::test]
    async fn one_long_list_at_a_time() {
        let first = long_list().await;
        let mut second = Box::pin(long_list());
        assert!(poll!(&mut second).is_pending());
        drop(first);
        assert!(second.await.is_some());
    }

    #[tokio::test]
    async fn a_text_longer_than_the_bound_takes_all_of_it() {
        let whole = unparsed(u64::MAX).await;
        let mut next = Box::pin(unparsed(2 << 20));
        assert!(poll!(&mut next).is_pending());
        assert!(unparsed(SMALL_BYTES).await.is_none());
        drop(whole);
        assert!(next.await.is_some());
    }

    #[tokio::test]
    async fn brief_work_is_done_here_and_long_work_elsewhere() {
        let here = std::thread::current().id();
        let on = |bytes| work(bytes, (), || std::thread::current().id());
        assert_eq!(on(BRIEF_BYTES).await, here);
        assert_ne!(on(BRIEF_BYTES + 1).await, here);
    }
}
