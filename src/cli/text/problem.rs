//! Failures as text.

use std::borrow::Cow;

use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;

use crate::cli::terminal::value;

/// Returns `error: ...`, and each hint on a line of its own.
pub fn problem(problem: &Problem) -> String {
    // A problem can quote foreign text, which must not look like a line of ours. A configuration
    // error quotes the user's own file, and marks the position on a line below.
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
