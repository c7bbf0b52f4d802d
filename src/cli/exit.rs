//! Exit codes of answers, health reports and failures.

use hf_mem_core::report::answer::{Answer, Verdict};
use hf_mem_core::report::problem::{Problem, Reason};

use crate::api::status::{HealthAnswer, HealthStatus};

/// The exit code that systemd's `ExecCondition=` treats as failed, not as "skip the unit".
///
/// Source: systemd.service(5).
const CONDITION_FAILED: u8 = 255;

/// Returns the exit code of an answer. With `strict`, "tight" counts as "does not fit".
pub(super) fn of_answer(answer: &Answer, strict: bool) -> u8 {
    match answer.verdict {
        Some(Verdict::Fits) | None => Reason::Fits.exit_code(),
        // A strict request that timed out in the queue may succeed later.
        Some(Verdict::Tight) if strict && answer.known_reason() == Some(Reason::WaitOver) => {
            Reason::WaitOver.exit_code()
        }
        Some(Verdict::Tight) if strict => Reason::InsufficientMemory.exit_code(),
        Some(Verdict::Tight) => Reason::Fits.exit_code(),
        Some(Verdict::DoesNotFit | Verdict::Unknown) => answer.known_reason().map_or_else(
            || {
                if answer.verdict == Some(Verdict::Unknown) {
                    3
                } else {
                    1
                }
            },
            Reason::exit_code,
        ),
    }
}

/// The exit code of `health --strict` if a part of the daemon is degraded.
const DEGRADED: u8 = 1;

/// Returns the exit code of a health report. With `strict`, a degraded part counts as a failure.
pub(super) fn of_health(health: &HealthAnswer, strict: bool) -> u8 {
    if strict && health.status != HealthStatus::Ok {
        DEGRADED
    } else {
        Reason::Fits.exit_code()
    }
}

/// Returns the exit code of a failure.
pub(super) fn of_problem(problem: &Problem) -> u8 {
    problem.reason.exit_code()
}

/// Maps an exit code for `--condition`: all but "fits" and "does not fit" become 255.
pub(super) fn condition(code: u8) -> u8 {
    if code <= 1 { code } else { CONDITION_FAILED }
}

#[cfg(test)]
mod tests {
    use hf_mem_core::wire_word::WireWord;

    use super::*;

    fn answer(verdict: Option<Verdict>, reason: &str) -> Answer {
        Answer {
            verdict,
            reason: Some(WireWord::new(reason)),
            ..Answer::default()
        }
    }

    #[test]
    fn condition_skips_only_on_no() {
        assert_eq!(
            [0, 1, 2, 3, 4, 5, 69, 75, 78].map(condition),
            [0, 1, 255, 255, 255, 255, 255, 255, 255]
        );
    }

    #[test]
    fn verdicts_map_to_exit_codes() {
        assert_eq!(of_answer(&answer(Some(Verdict::Fits), "fits"), true), 0);
        assert_eq!(of_answer(&answer(Some(Verdict::Tight), "fits"), false), 0);
        assert_eq!(of_answer(&answer(Some(Verdict::Tight), "fits"), true), 1);

        assert_eq!(
            of_answer(&answer(Some(Verdict::Tight), "wait_over"), true),
            75
        );
        assert_eq!(
            of_answer(&answer(Some(Verdict::DoesNotFit), "no_legal_split"), false),
            1
        );

        assert_eq!(
            of_answer(&answer(Some(Verdict::DoesNotFit), "memory_draining"), false),
            75
        );
        assert_eq!(
            of_answer(
                &answer(Some(Verdict::Unknown), "unsupported_architecture"),
                false
            ),
            3
        );

        assert_eq!(of_answer(&Answer::default(), true), 0, "an estimate");
    }
}
