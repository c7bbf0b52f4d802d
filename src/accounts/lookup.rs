//! Runs a lookup on a thread of its own, with a deadline.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;

/// The most lookups of one purpose that run at once. A lookup that hangs keeps its thread until the
/// name service answers; this bounds their number.
const MAX_LOOKUPS: usize = 6;

/// The purposes of lookups. Each has slots of its own, so that hanging lookups of one kind do not
/// keep the others from running.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// Names in the configuration.
    Configuration,
    /// The groups of a caller.
    Groups,
    /// The names of users that hold memory.
    UserNames,
}

/// Why a lookup has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LookupError {
    #[error("the name service failed: {0}")]
    Failed(Errno),
    #[error("the name service has not answered for {} s", .0.as_secs_f32())]
    TimedOut(Duration),
    #[error("{MAX_LOOKUPS} such lookups already wait for the name service")]
    TooMany,
    #[error("cannot start a thread for the lookup: {0}")]
    NoThread(String),
}

/// A slot of the [`MAX_LOOKUPS`]. It is released when the lookup ends, not when its caller stops
/// waiting.
struct LookupSlot(&'static AtomicUsize);

static RUNNING: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];

impl LookupSlot {
    fn take(purpose: Purpose) -> Option<Self> {
        let running = &RUNNING[purpose as usize];
        running
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |running| {
                (running < MAX_LOOKUPS).then_some(running + 1)
            })
            .is_ok()
            .then_some(Self(running))
    }
}

impl Drop for LookupSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs `work` on a thread of its own and waits up to `deadline` for its result. Never call it on
/// the runtime of a daemon that answers.
pub(super) fn look_up<T: Send + 'static>(
    purpose: Purpose,
    deadline: Duration,
    work: impl FnOnce() -> Result<T, Errno> + Send + 'static,
) -> Result<T, LookupError> {
    let slot = LookupSlot::take(purpose).ok_or(LookupError::TooMany)?;
    let (sender, receiver) = mpsc::sync_channel(1);
    let run_lookup = move || {
        let found = work();
        drop(slot);
        // An error means that the caller no longer waits.
        let _ = sender.send(found);
    };

    thread::Builder::new()
        .name("accounts".to_owned())
        .spawn(run_lookup)
        .map_err(|error| LookupError::NoThread(error.to_string()))?;

    match receiver.recv_timeout(deadline) {
        Ok(found) => found.map_err(LookupError::Failed),
        Err(_) => Err(LookupError::TimedOut(deadline)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hanging_lookup_times_out() {
        let (end, until) = mpsc::channel::<()>();
        let deadline = Duration::from_millis(20);
        let hanging = look_up(Purpose::Groups, deadline, move || {
            // An error means that the test dropped its end.
            let _ = until.recv();
            Ok(())
        });

        assert_eq!(hanging, Err(LookupError::TimedOut(deadline)));
        drop(end);
        assert_eq!(
            look_up(Purpose::Groups, Duration::from_secs(10), || Ok(7)),
            Ok(7)
        );
    }
}
