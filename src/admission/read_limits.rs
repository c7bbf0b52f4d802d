//! Limits on the memory that all repository reads hold together, and on the work of the server's
//! thread.
//!
//! Anyone can write a repository, and many questions can arrive at once. So:
//!
//! - Few repositories are read at the same time.
//! - Long texts that are not parsed yet count against one bound for all reads.
//! - A single read with large documents or headers runs at a time, in addition to the small ones. A
//!   read that turns out to be large releases all that it has, its slot too, and begins again in
//!   the large slot. While it waits for that slot, it occupies no small one.
//! - Parsing that takes longer than a moment runs on a separate thread, because the server is one
//!   thread.

use std::sync::Arc;

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// Sizes up to this are small: many of them at once do no harm. The documents of nearly all models
/// are small, all together.
pub(crate) const SMALL_BYTES: u64 = 1 << 20;
/// The bound on unparsed long texts of all reads together; a longer text takes all of it.
const UNPARSED_KIB: u32 = 64 << 10;
/// Work on up to this many bytes takes less than a millisecond and runs in place.
const BRIEF_BYTES: u64 = 64 << 10;
/// Small reads at once.
const READS: usize = 16;
/// Models that are loaded from the disk at once.
const LOADS: usize = 2;

static UNPARSED: Semaphore = Semaphore::const_new(UNPARSED_KIB as usize);
static LARGE: Semaphore = Semaphore::const_new(1);
static LISTING: Semaphore = Semaphore::const_new(1);
static READING: Semaphore = Semaphore::const_new(READS);
static LOADING: Semaphore = Semaphore::const_new(LOADS);

/// A permit to hold memory; dropping it releases it. The semaphores are never closed, so `None`
/// means that no permit is needed.
pub(crate) type ReadPermit = Option<SemaphorePermit<'static>>;

/// A small read's slot, or the one large slot. Work on another thread holds a clone, so that the
/// slot stays occupied until that work has ended, even after the client has disconnected.
#[derive(Clone, Debug)]
pub(crate) struct ReadSlot(Arc<HeldReads>);

/// Proof that a read released its small slot. Only such a read can wait for the large one.
#[derive(Debug)]
pub(crate) struct ReleasedSlot(());

#[derive(Debug)]
struct HeldReads {
    _permit: ReadPermit,
    is_large: bool,
    /// The read turned out to be large and cannot continue in this slot.
    outgrown: Notify,
}

impl ReadSlot {
    /// Waits for a small slot. A task that has a slot must not wait for another.
    pub(crate) async fn take() -> Self {
        Self::new(READING.acquire().await.ok(), false)
    }

    /// Releases this handle of the slot. Drop all clones and all [`unparsed`] permits too before
    /// you wait for the large slot.
    pub(crate) fn release(self) -> ReleasedSlot {
        drop(self);
        ReleasedSlot(())
    }

    /// Waits for the large slot. A task that has a slot or an [`unparsed`] permit must not wait for
    /// it.
    pub(crate) async fn take_large(_released: ReleasedSlot) -> Self {
        Self::new(LARGE.acquire().await.ok(), true)
    }

    fn new(permit: ReadPermit, is_large: bool) -> Self {
        Self(Arc::new(HeldReads {
            _permit: permit,
            is_large,
            outgrown: Notify::new(),
        }))
    }

    /// Call this before you hold `bytes`. It returns at once if they are small or this is the large
    /// slot. Otherwise it never returns, and [`ReadSlot::outgrown`] does: the task that drives the
    /// read then drops it.
    pub(crate) async fn hold(&self, bytes: u64) {
        if bytes > SMALL_BYTES && !self.is_large() {
            self.0.outgrown.notify_one();
            std::future::pending::<()>().await;
        }
    }

    /// Returns when the read needs the large slot.
    pub(crate) async fn outgrown(&self) {
        self.0.outgrown.notified().await;
    }

    /// Whether this is the large slot.
    pub(crate) fn is_large(&self) -> bool {
        self.0.is_large
    }
}

/// Waits for the permit of a long list of files; keep it for as long as the list. A task that has a
/// slot must not wait for it.
pub(crate) async fn long_list() -> ReadPermit {
    LISTING.acquire().await.ok()
}

/// Waits for a permit to hold an unparsed text of `bytes`.
pub(crate) async fn unparsed(bytes: u64) -> ReadPermit {
    if bytes <= SMALL_BYTES {
        return None;
    }

    let kib = u32::try_from(bytes.div_ceil(1024))
        .unwrap_or(u32::MAX)
        .min(UNPARSED_KIB);
    UNPARSED.acquire_many(kib).await.ok()
}

/// Does `work` on `bytes`: in place if that is brief, otherwise on a separate thread, which keeps
/// `held` until the work is done.
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
        // The runtime is ending, and the caller with it.
        Err(Err(_)) => std::future::pending().await,
    }
}

/// Waits for a permit to load a model from the disk. Its length on disk does not show its size in
/// memory.
pub(crate) async fn loading() -> ReadPermit {
    LOADING.acquire().await.ok()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::poll;

    use super::*;

    async fn take_large() -> ReadSlot {
        let small = ReadSlot::take().await;
        ReadSlot::take_large(small.release()).await
    }

    #[tokio::test]
    async fn large_slot_outlasts_its_client() {
        let first = take_large().await;
        first.hold(u64::MAX).await;
        let mut waiting = Box::pin(take_large());
        assert!(poll!(&mut waiting).is_pending());
        let (end, until) = mpsc::channel::<()>();
        let mut long = Box::pin(work(u64::MAX, first.clone(), move || until.recv().is_ok()));
        assert!(poll!(&mut long).is_pending());

        // The client disconnects; the thread continues.
        drop((long, first));
        assert!(poll!(&mut waiting).is_pending());
        drop(end);
        waiting.await;
    }

    #[tokio::test]
    async fn large_read_stops_in_small_slot() {
        let slot = ReadSlot::take().await;
        slot.hold(SMALL_BYTES).await;
        let mut outgrown = Box::pin(slot.outgrown());
        assert!(poll!(&mut outgrown).is_pending());
        let mut held = Box::pin(slot.hold(SMALL_BYTES + 1));
        assert!(poll!(&mut held).is_pending());
        outgrown.await;
        assert!(poll!(&mut held).is_pending() && !slot.is_large());
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
    async fn overlong_text_takes_whole_bound() {
        let whole = unparsed(u64::MAX).await;
        let mut next = Box::pin(unparsed(2 << 20));
        assert!(poll!(&mut next).is_pending());
        assert!(unparsed(SMALL_BYTES).await.is_none());
        drop(whole);
        assert!(next.await.is_some());
    }

    #[tokio::test]
    async fn only_brief_work_runs_in_place() {
        let own_thread = std::thread::current().id();
        let thread_of = |bytes| work(bytes, (), || std::thread::current().id());
        assert_eq!(thread_of(BRIEF_BYTES).await, own_thread);
        assert_ne!(thread_of(BRIEF_BYTES + 1).await, own_thread);
    }
}
