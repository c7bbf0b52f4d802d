//! A failure as a person reads it.

use crate::api::Problem;

/// `error: ...` and the cure on a line of its own.
pub fn problem(problem: &Problem) -> String {
    let mut out = format!("error: {}\n", problem.detail);
    if let Some(hint) = &problem.hint {
        out.push_str(&format!("hint: {hint}\n"));
    }
    if let Some(seconds) = problem.retry_after_seconds {
        out.push_str(&format!("hint: try again in {seconds} s\n"));
    }
    out
}
