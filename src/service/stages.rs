//! The stages of a question's path, told to whoever looks closer (`log.filter = "debug"`).

use std::time::Duration;

use hf_mem_core::report::Problem;
use tracing::debug;

/// Tells how a stage ended: with a word of its own, or the reason for which it failed.
pub(super) fn tell<T>(
    stage: &'static str,
    took: Duration,
    ended: &Result<T, Problem>,
    well: impl FnOnce(&T) -> &str,
) {
    debug!(
        stage,
        outcome = match ended {
            Ok(value) => well(value),
            Err(problem) => problem.reason.word(),
        },
        elapsed_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        "a stage has ended"
    );
}
