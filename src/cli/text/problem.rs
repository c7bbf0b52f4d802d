//! A failure as a person reads it.

use std::borrow::Cow;

use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;

use crate::cli::terminal::value;

/// `error: ...` and the cure on a line of its own.
pub fn problem(problem: &Problem) -> String {
    // What others wrote may stand in a problem, and must not look like a line of ours. A
    // configuration is the reader's own, and is shown with the place of its error marked below it.
    let detail = match problem.reason {
        Reason::BadConfiguration => Cow::Borrowed(problem.detail.as_str()),
        _ => value(&problem.detail),
    };

    let mut out = format!("error: {detail}\n");
    if let Some(hint) = &problem.hint {
        out.push_str(&format!("hint: {}\n", value(hint)));
    }

    if let Some(seconds) = problem.retry_after_seconds {
        out.push_str(&format!("hint: try again in {seconds} s\n"));
    }

    out
}
