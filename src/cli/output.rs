//! The two ways out: data to standard output, everything else to standard error.

use std::io::Write as _;

use serde::Serialize;

use crate::api::Problem;
use crate::cli::text;

/// In which form a command's output goes out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    /// One JSON object on standard output, whatever happens.
    pub(super) json: bool,
}

impl Output {
    /// Data: `value` as JSON or the text made of it.
    pub(super) fn data<T: Serialize>(self, value: &T, as_text: impl FnOnce(&T) -> String) {
        text(&if self.json { json(value) } else { as_text(value) });
    }

    /// A failure: JSON on standard output, or words on standard error. Gives its exit code.
    pub(super) fn problem(self, problem: &Problem) -> u8 {
        if self.json {
            text(&json(problem));
        } else {
            failure(&text::problem::problem(problem));
        }
        super::exit::of_problem(problem)
    }
}

/// Data as it is. A closed pipe is the reader's choice, not a failure of ours.
pub(super) fn text(text: &str) {
    let _ = anstream::stdout().write_all(text.as_bytes());
}

/// One of a stream's lines, as it is; fails when nobody reads any more, which ends a stream.
pub(super) fn line(text: &str) -> std::io::Result<()> {
    let mut out = anstream::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Words about a failure.
pub(super) fn failure(text: &str) {
    let _ = anstream::stderr().write_all(text.as_bytes());
}

/// A remark for a person, such as where the answer comes from.
pub(super) fn remark(remark: &str) {
    let _ = writeln!(anstream::stderr(), "{remark}");
}

fn json<T: Serialize>(value: &T) -> String {
    // Wire types have string keys and no fallible fields, so this cannot fail; were it ever to, an empty object is still
    // one JSON object.
    serde_json::to_string_pretty(value).unwrap_or_else(|_| "{}".to_owned()) + "\n"
}
