//! How long the owner has been at one step. One that hangs in the disk answers nobody: others must
//! be able to say so.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// When the owner's step began; nothing while it waits for something to do.
#[derive(Clone, Debug, Default)]
pub(super) struct StuckDetector(Arc<Mutex<Option<Instant>>>);

impl StuckDetector {
    /// The owner has something to do.
    pub(super) fn begin(&self) {
        self.set(Some(Instant::now()));
    }

    /// It is done with it.
    pub(super) fn end(&self) {
        self.set(None);
    }

    /// How long the step under way has lasted.
    pub(super) fn lasts(&self) -> Option<Duration> {
        let began = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        began.map(|began| began.elapsed())
    }

    fn set(&self, began: Option<Instant>) {
        // An instant is replaced whole: a panic elsewhere cannot have left half of one.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = began;
    }
}
