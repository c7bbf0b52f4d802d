//! The state that the sampler's handle shares with the sampling thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hf_mem_core::device::{Device, Snapshot, UnusableReason};
use tokio::sync::watch;

use super::Reading;
use crate::devices::error::DevicesError;
use crate::devices::nvml::XidLog;

/// The state that the sampler's handle shares with the sampling thread.
#[derive(Debug)]
pub(super) struct Shared {
    control: Mutex<Control>,
    pub(super) changed: Condvar,
    pub(super) readings: watch::Sender<Option<Arc<Reading>>>,
    /// The same readings, for receivers that do not request any.
    pub(super) passive_readings: watch::Sender<Option<Arc<Reading>>>,
    /// The state of the driver's library, for tasks that wait until it is closed.
    pub(super) library: watch::Sender<LibraryState>,
    pub(super) errors: AtomicU64,
    xids: Mutex<XidLog>,
}

/// The state of the driver's library.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LibraryState {
    pub(super) open: bool,
    /// The number of times it was closed.
    pub(super) closings: u64,
}

/// The requests to the thread, and its current step.
#[derive(Debug)]
pub(super) struct Control {
    /// The time of the last request for a reading. A reading that began earlier is too old.
    pub(super) reading_wanted_at: Option<Instant>,
    /// The time of the last client request.
    pub(super) last_request_at: Instant,
    pub(super) released_until: Option<Instant>,
    /// The span of the request that released the driver, for the log.
    pub(super) released_by: tracing::Span,
    /// Whether a task waits until the library is closed, however short the release is.
    pub(super) close_requested: bool,
    pub(super) busy: Option<(&'static str, Instant)>,
    pub(super) stop: bool,
}

impl Control {
    /// Returns the time from `now` until the release ends.
    pub(super) fn release_remaining(&self, now: Instant) -> Option<Duration> {
        self.released_until
            .and_then(|until| until.checked_duration_since(now))
            .filter(|remaining| !remaining.is_zero())
    }
}

impl Shared {
    /// Returns the state before the first reading, which is requested at `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            control: Mutex::new(Control {
                reading_wanted_at: Some(now),
                last_request_at: now,
                released_until: None,
                released_by: tracing::Span::none(),
                close_requested: false,
                busy: None,
                stop: false,
            }),
            changed: Condvar::new(),
            readings: watch::Sender::new(None),
            passive_readings: watch::Sender::new(None),
            library: watch::Sender::default(),
            errors: AtomicU64::new(0),
            xids: Mutex::default(),
        }
    }

    pub(super) fn control(&self) -> MutexGuard<'_, Control> {
        // No code panics while it holds the lock, and the state is valid at every moment.
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the step that the thread begins now.
    pub(super) fn set_busy(&self, step: &'static str) {
        self.control().busy = Some((step, Instant::now()));
    }

    pub(super) fn set_open(&self, open: bool) {
        self.library.send_if_modified(|library| {
            let changed = library.open != open;
            library.open = open;
            library.closings += u64::from(changed && !open);
            changed
        });
    }

    pub(super) fn xids(&self) -> MutexGuard<'_, XidLog> {
        self.xids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a failed reading, or the devices that a reading could not read.
    pub(super) fn count_errors(&self, outcome: &Result<Arc<Snapshot>, DevicesError>) {
        let count = outcome.as_ref().map_or(1, |snapshot| {
            let unreadable = snapshot
                .devices
                .iter()
                .filter(|device| is_unreadable(device));
            unreadable.count()
        });

        self.errors
            .fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// Whether a device has no reading, although it is awake.
fn is_unreadable(device: &Device) -> bool {
    device.free_bytes.is_none()
        && device
            .unusable
            .as_ref()
            .is_none_or(|why| why.reason != UnusableReason::Asleep)
}
