//! From an answer or a failure to the process's exit code: the one place where that is decided.

use hf_mem_core::report::answer::{Answer, Verdict};
use hf_mem_core::report::problem::{Problem, Reason};

use crate::api::status::{HealthAnswer, HealthStatus};

/// What systemd's `ExecCondition=` takes as a failure rather than "skip": see systemd.service(5).
const CONDITION_FAILED: u8 = 255;

/// The exit code of an answer. `strict` counts "tight" as a no.
pub(super) fn of_answer(answer: &Answer, strict: bool) -> u8 {
    match answer.verdict {
        Some(Verdict::Fits) | None => Reason::Fits.exit_code(),
        // A strict wait that timed out may be a yes another time, as any other.
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

/// A daemon that answers and is not well in all its parts, with `--strict`.
const DEGRADED: u8 = 1;

/// The exit code of a daemon's health. `strict` counts a degraded part as a no.
pub(super) fn of_health(health: &HealthAnswer, strict: bool) -> u8 {
    if strict && health.status != HealthStatus::Ok {
        DEGRADED
    } else {
        Reason::Fits.exit_code()
    }
}

/// The exit code of a failure.
pub(super) fn of_problem(problem: &Problem) -> u8 {
    problem.reason.exit_code()
}

/// What `--condition` makes of an exit code: everything but "fits" and "does not fit" is a failure.
pub(super) fn condition(code: u8) -> u8 {
    if code <= 1 { code } else { CONDITION_FAILED }
}

#[cfg(test)]
mod tests {
    use hf_mem_core::wire_word::WireWord;

    use super::*;

    #[test]
    fn a_condition_skips_only_on_a_plain_no() {
        assert_eq!(
            [0, 1, 2, 3, 4, 5, 69, 75, 78].map(condition),
            [0, 1, 255, 255, 255, 255, 255, 255, 255]
        );
    }

    #[test]
    fn every_verdict_has_its_code() {
        let answer = |verdict, reason: &str| Answer {
            verdict,
            reason: Some(WireWord::new(reason)),
            ..Answer::default()
        };

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
