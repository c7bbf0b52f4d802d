//! Detects a broker that is stuck in one step. A step that hangs on the disk answers no request, so
//! other threads must be able to report it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::lock_ignoring_poison::lock_ignoring_poison;

/// When the broker's current step began; `None` while the broker is idle.
#[derive(Clone, Debug, Default)]
pub(super) struct StuckDetector(Arc<Mutex<Option<Instant>>>);

impl StuckDetector {
    /// A step begins.
    pub(super) fn begin(&self) {
        *lock_ignoring_poison(&self.0) = Some(Instant::now());
    }

    /// The step has ended; the broker is idle.
    pub(super) fn end(&self) {
        *lock_ignoring_poison(&self.0) = None;
    }

    /// How long the current step has lasted.
    pub(super) fn step_duration(&self) -> Option<Duration> {
        let began = *lock_ignoring_poison(&self.0);
        began.map(|began| began.elapsed())
    }
}
