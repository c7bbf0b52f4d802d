//! The two ways out: data to standard output, everything else to standard error. Nothing leaves
//! here that others wrote and that could steer a terminal.

use std::io::Write as _;

use hf_mem_core::report::Problem;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cli::{terminal, text};

/// In which form a command's output goes out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    /// One JSON object on standard output, whatever happens.
    pub(super) json: bool,
}

impl Output {
    /// Data: `value` as JSON or the text made of it.
    pub(super) fn data<T: Serialize + DeserializeOwned>(
        self,
        value: &T,
        as_text: impl FnOnce(&T) -> String,
    ) {
        if self.json {
            text(&json(value));
        } else {
            text(&as_text(terminal::values(value).as_ref().unwrap_or(value)));
        }
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

/// Data. A closed pipe is the reader's choice, not a failure of ours.
pub(super) fn text(text: &str) {
    let _ = anstream::stdout().write_all(terminal::text(text).as_bytes());
}

/// One of a stream's objects, on a line; fails when nobody reads any more, which ends a stream.
pub(super) fn line<T: Serialize>(value: &T) -> std::io::Result<()> {
    let json = serde_json::to_string(value).unwrap_or_else(|_| "{}".to_owned());
    streamed(&(terminal::json(json) + "\n"))
}

/// A whole screen, line by line over the last one, so that nothing flickers; fails as [`line`]
/// does.
pub(super) fn screen(text: &str) -> std::io::Result<()> {
    streamed(&format!(
        "\x1b[H{}\x1b[J",
        terminal::text(text).replace('\n', "\x1b[K\n")
    ))
}

fn streamed(text: &str) -> std::io::Result<()> {
    let mut out = anstream::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Words about a failure.
pub(super) fn failure(text: &str) {
    let _ = anstream::stderr().write_all(terminal::text(text).as_bytes());
}

/// A remark for a person, such as where the answer comes from: one line.
pub(super) fn remark(remark: &str) {
    let _ = writeln!(anstream::stderr(), "{}", terminal::value(remark));
}

/// What clap says of a command line, in its colours; without them where the line itself holds what
/// could steer.
pub(super) fn usage(error: &clap::Error, sound: bool) {
    let rendered = error.render();
    if error.use_stderr() && !sound {
        failure(&rendered.to_string());
    } else if error.use_stderr() {
        let _ = write!(anstream::stderr(), "{}", rendered.ansi());
    } else {
        let _ = write!(anstream::stdout(), "{}", rendered.ansi());
    }
}

fn json<T: Serialize>(value: &T) -> String {
    // Wire types have string keys and no fallible fields, so this cannot fail; were it ever to, an
    // empty object is still one JSON object.
    terminal::json(serde_json::to_string_pretty(value).unwrap_or_else(|_| "{}".to_owned())) + "\n"
}
