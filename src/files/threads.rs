//! A bounded number of threads that access files, each with a deadline.
//!
//! They are threads of the standard library, not the runtime's: the process can exit while one of
//! them hangs.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;
use tracing::Span;

use super::{Disk, FileError};
use crate::lock_ignoring_poison::lock_ignoring_poison;

/// Deadline of [`wait`].
const DEADLINE: Duration = Duration::from_secs(10);

type Outcome<T> = Result<T, Box<dyn Any + Send>>;

/// A pool of threads that access files. A clone is another handle on the same threads.
#[derive(Clone, Debug)]
pub(crate) struct FileThreads {
    deadline: Duration,
    max: usize,
    permits: Arc<Semaphore>,
    running: Arc<Mutex<RunningWork>>,
}

/// The work in progress.
#[derive(Debug, Default)]
struct RunningWork {
    next: u64,
    work: Vec<Work>,
}

#[derive(Debug)]
struct Work {
    number: u64,
    place: PathBuf,
    began: Instant,
}

/// A folder or file whose hangs the threads track.
#[derive(Clone, Debug)]
pub(crate) struct FilePlace {
    threads: FileThreads,
    place: PathBuf,
}

impl FilePlace {
    /// Runs `work` on files of this place, as [`FileThreads::run`] does.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Disk) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.threads.run(&self.place, work).await?
    }
}

/// Entry of a thread in the list, and its permit. Both end with the work, not when the caller
/// stops waiting.
struct HeldThread {
    number: u64,
    running: Arc<Mutex<RunningWork>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for HeldThread {
    fn drop(&mut self) {
        lock(&self.running)
            .work
            .retain(|work| work.number != self.number);
    }
}

impl FileThreads {
    /// Creates a pool of at most `max` threads, with `deadline` for each piece of work.
    pub(crate) fn new(max: usize, deadline: Duration) -> Self {
        Self {
            deadline,
            max,
            permits: Arc::new(Semaphore::new(max)),
            running: Arc::default(),
        }
    }

    /// Returns a handle on these threads for files below `place`.
    pub(crate) fn at(&self, place: &Path) -> FilePlace {
        FilePlace {
            threads: self.clone(),
            place: place.to_owned(),
        }
    }

    /// Runs `work` on files below `place`, off the runtime. Fails at once while earlier work on the
    /// same place hangs, or while all threads hang.
    ///
    /// A panic in `work` continues in the caller. Work that misses the deadline continues, and its
    /// result is dropped.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        place: &Path,
        work: impl FnOnce(&Disk) -> T + Send + 'static,
    ) -> Result<T, FileError> {
        self.check_hung(place)?;
        let Ok(permit) = timeout(self.deadline, Arc::clone(&self.permits).acquire_owned()).await
        else {
            return Err(self.trouble().unwrap_or_else(|| self.hung_error(place)));
        };

        // The semaphore is never closed.
        let permit = permit.map_err(|error| no_thread(place, &error))?;
        self.check_hung(place)?;

        let (done, result) = oneshot::channel();
        self.start(place, permit, work, move |outcome| drop(done.send(outcome)))?;

        match timeout(self.deadline, result).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(panic))) => resume_unwind(panic),
            Ok(Err(_)) | Err(_) => Err(self.hung_error(place)),
        }
    }

    /// Runs `work` if a thread is free now, and does not wait: for optional work.
    pub(crate) fn try_detached(&self, place: &Path, work: impl FnOnce(&Disk) + Send + 'static) {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return;
        };

        if self.check_hung(place).is_ok() {
            // No caller waits for the result, so an error has no receiver.
            let _ = self.start(place, permit, work, drop);
        }
    }

    /// Returns the work that has hung for longest; `None` if none hangs.
    pub(crate) fn trouble(&self) -> Option<FileError> {
        let running = lock(&self.running);
        let oldest = running
            .work
            .iter()
            .filter(|work| self.is_late(work))
            .min_by_key(|work| work.began)?;

        Some(FileError::Hung {
            place: oldest.place.clone(),
            since: oldest.began.elapsed(),
        })
    }

    fn start<T: Send + 'static>(
        &self,
        place: &Path,
        permit: OwnedSemaphorePermit,
        work: impl FnOnce(&Disk) -> T + Send + 'static,
        done: impl FnOnce(Outcome<T>) + Send + 'static,
    ) -> Result<(), FileError> {
        let held = self.register(place, permit);
        let span = Span::current();
        let body = move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| span.in_scope(|| work(&Disk::new()))));
            drop(held);
            done(outcome);
        };

        spawn(place, body)
    }

    fn register(&self, place: &Path, permit: OwnedSemaphorePermit) -> HeldThread {
        let mut running = lock(&self.running);
        let number = running.next;
        running.next += 1;

        running.work.push(Work {
            number,
            place: place.to_owned(),
            began: Instant::now(),
        });

        HeldThread {
            number,
            running: Arc::clone(&self.running),
            _permit: permit,
        }
    }

    fn check_hung(&self, place: &Path) -> Result<(), FileError> {
        let running = lock(&self.running);
        let late_work = || running.work.iter().filter(|work| self.is_late(work));
        let all_hang = late_work().count() >= self.max;

        match late_work().find(|work| all_hang || work.place == place) {
            Some(work) => Err(FileError::Hung {
                place: work.place.clone(),
                since: work.began.elapsed(),
            }),
            None => Ok(()),
        }
    }

    fn is_late(&self, work: &Work) -> bool {
        work.began.elapsed() >= self.deadline
    }

    fn hung_error(&self, place: &Path) -> FileError {
        FileError::Hung {
            place: place.to_owned(),
            since: self.deadline,
        }
    }
}

/// Runs `work` on files below `place` on a separate thread, and blocks until it ends. Call it
/// before there is a runtime, or on a thread that may block. Never call it on the runtime of a
/// running daemon.
pub(crate) fn wait<T: Send + 'static>(
    place: &Path,
    work: impl FnOnce(&Disk) -> T + Send + 'static,
) -> Result<T, FileError> {
    let (done, result) = mpsc::sync_channel(1);
    let body = move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| work(&Disk::new())));
        // An error means that the caller has stopped waiting.
        let _ = done.send(outcome);
    };

    spawn(place, body)?;
    match result.recv_timeout(DEADLINE) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => Err(FileError::Hung {
            place: place.to_owned(),
            since: DEADLINE,
        }),
    }
}

/// As [`wait`], for work that may fail. Returns one error for both kinds of failure.
pub(crate) fn try_wait<T: Send + 'static>(
    place: &Path,
    work: impl FnOnce(&Disk) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    wait(place, work)?
}

fn spawn(place: &Path, body: impl FnOnce() + Send + 'static) -> Result<(), FileError> {
    let spawned = thread::Builder::new().name("files".to_owned()).spawn(body);
    spawned.map(drop).map_err(|error| no_thread(place, &error))
}

fn no_thread(place: &Path, why: &dyn std::error::Error) -> FileError {
    FileError::NoThread {
        place: place.to_owned(),
        why: why.to_string(),
    }
}

fn lock(running: &Mutex<RunningWork>) -> MutexGuard<'_, RunningWork> {
    // Each change of the list is complete.
    lock_ignoring_poison(running)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    /// Returns work that continues until the sender is dropped.
    fn hanging() -> (mpsc::Sender<()>, impl FnOnce(&Disk) + Send + 'static) {
        let (end, until) = mpsc::channel::<()>();
        let work = move |_: &Disk| {
            // An error means that the sender was dropped, which is the signal.
            let _ = until.recv();
        };
        (end, work)
    }

    #[tokio::test]
    async fn hung_place_is_skipped_until_return() {
        let threads = FileThreads::new(4, SHORT);
        let (place, other) = (Path::new("/cache"), Path::new("/other"));
        let (end, work) = hanging();
        let late = threads.run(place, work).await.unwrap_err();
        assert!(
            matches!(&late, FileError::Hung { place: at, .. } if at == place),
            "{late}"
        );

        let refused = threads
            .run(place, |_| unreachable!("the place hangs"))
            .await
            .unwrap_err();
        assert_eq!(
            threads.trouble().map(|hung| hung.to_string()),
            Some(refused.to_string())
        );

        assert_eq!(
            threads.run(other, |_| 7).await,
            Ok(7),
            "another place goes on"
        );

        drop(end);
        while threads.trouble().is_some() {
            tokio::task::yield_now().await;
        }

        assert_eq!(threads.run(place, |_| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn hung_threads_block_every_place() {
        let threads = FileThreads::new(2, SHORT);
        let (ends, works): (Vec<_>, Vec<_>) = (0..2).map(|_| hanging()).unzip();
        let places = ["/a", "/b"].map(Path::new);
        let late = places
            .iter()
            .zip(works)
            .map(|(place, work)| threads.run(place, work));
        assert!(
            futures_util::future::join_all(late)
                .await
                .iter()
                .all(Result::is_err)
        );

        threads.run(Path::new("/c"), |_| ()).await.unwrap_err();
        threads.try_detached(Path::new("/c"), |_| unreachable!("no thread is free"));
        drop(ends);

        while threads.trouble().is_some() {
            tokio::task::yield_now().await;
        }

        threads.run(Path::new("/c"), |_| ()).await.unwrap();
    }

    #[tokio::test]
    async fn panic_reaches_the_caller() {
        let threads = FileThreads::new(1, Duration::from_secs(10));
        let broken = tokio::spawn({
            let threads = threads.clone();
            async move {
                threads
                    .run(Path::new("/a"), |_| -> () { panic!("on purpose") })
                    .await
            }
        });

        assert!(broken.await.unwrap_err().is_panic());
        assert_eq!(
            threads.run(Path::new("/a"), |_| 1).await,
            Ok(1),
            "its thread is free again"
        );
    }

    #[test]
    fn wait_returns_the_result() {
        assert!(wait(Path::new("/"), |disk| disk.is_folder(Path::new("/"))).unwrap());
    }
}
