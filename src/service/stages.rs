//! Debug logging of the stages of a question (`log.filter = "debug"`).

use std::time::Duration;

use hf_mem_core::report::Problem;
use tracing::debug;

/// Logs how a stage ended: with the word that `describe` returns, or with the reason of its error.
pub(super) fn log_stage<T>(
    stage: &'static str,
    elapsed: Duration,
    outcome: &Result<T, Problem>,
    describe: impl FnOnce(&T) -> &str,
) {
    debug!(
        stage,
        outcome = match outcome {
            Ok(value) => describe(value),
            Err(problem) => problem.reason.word(),
        },
        elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
        "a stage has ended"
    );
}
