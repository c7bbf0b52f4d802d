//! Output: data to standard output, everything else to standard error.
//!
//! Escapes control characters, because names and messages of other users could contain terminal
//! escape sequences.

use std::fmt::Write as _;
use std::io::Write as _;

use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cli::arguments::ColorArgument;
use crate::cli::text::page::{Page, PageLayout};
use crate::cli::{terminal, text};

/// The form of a command's output.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    /// Print one JSON object on standard output, on failure too.
    pub(super) json: bool,
}

impl Output {
    /// Prints `value` as JSON, or its text.
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

    /// Prints `value` as JSON, or the page that `as_page` lays out for standard output.
    pub(super) fn page<T: Serialize + DeserializeOwned>(
        self,
        value: &T,
        as_page: impl FnOnce(&T, PageLayout) -> Page,
    ) {
        if self.json {
            text(&json(value));
            return;
        }

        let escaped = terminal::values(value);
        let page = as_page(
            escaped.as_ref().unwrap_or(value),
            PageLayout::of_standard_output(),
        );
        print_page(&page);
    }

    /// Prints a failure as JSON on standard output or as text on standard error.
    ///
    /// Returns the exit code.
    pub(super) fn problem(self, problem: &Problem) -> u8 {
        if self.json {
            text(&json(problem));
        } else {
            failure(&text::problem::problem(problem));
        }
        super::exit::of_problem(problem)
    }
}

/// Prints a page on standard output, in color where the terminal takes it.
fn print_page(page: &Page) {
    let mut out = String::new();
    for (tone, piece) in page.pieces() {
        let style = tone.style();
        let piece = terminal::text(piece);
        let _ = write!(out, "{style}{piece}{style:#}");
    }

    let _ = anstream::stdout().write_all(out.as_bytes());
}

/// Sets when the output has colors.
pub(super) fn set_color(color: ColorArgument) {
    let choice = match color {
        ColorArgument::Auto => anstream::ColorChoice::Auto,
        ColorArgument::Always => anstream::ColorChoice::Always,
        ColorArgument::Never => anstream::ColorChoice::Never,
    };
    choice.write_global();
}

/// Prints text on standard output. A closed pipe is not an error.
pub(super) fn text(text: &str) {
    let _ = anstream::stdout().write_all(terminal::text(text).as_bytes());
}

/// Prints one object of a stream on a line. Fails if the pipe is closed, which ends the stream.
pub(super) fn line<T: Serialize>(value: &T) -> std::io::Result<()> {
    let json = serde_json::to_string(value).unwrap_or_else(|_| "{}".to_owned());
    write_and_flush(&(terminal::json(json) + "\n"))
}

/// The terminal's alternate screen, which keeps what the user typed before.
///
/// Dropping it shows the terminal's own screen again.
pub(super) struct AlternateScreen;

impl AlternateScreen {
    /// Switches to the alternate screen. Fails as [`line()`] does.
    pub(super) fn enter() -> std::io::Result<Self> {
        write_and_flush("\x1b[?1049h\x1b[?25l")?;
        Ok(Self)
    }

    /// Draws a whole screen over the last one, line by line to avoid flicker. Fails as [`line()`]
    /// does.
    #[expect(clippy::unused_self, reason = "only a switched terminal is drawn on")]
    pub(super) fn draw(&self, text: &str) -> std::io::Result<()> {
        let rows = terminal_size::terminal_size().map(|(_, rows)| usize::from(rows.0));
        let shown = first_rows(text, rows);
        write_and_flush(&format!(
            "\x1b[H{}\x1b[J",
            terminal::text(&shown).replace('\n', "\x1b[K\n")
        ))
    }
}

impl Drop for AlternateScreen {
    fn drop(&mut self) {
        let _ = write_and_flush("\x1b[?25h\x1b[?1049l");
    }
}

/// Returns the lines of `text` that `rows` have room for, and how many are left out.
fn first_rows(text: &str, rows: Option<usize>) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let Some(rows) = rows.filter(|rows| lines.len() >= *rows && *rows > 2) else {
        return text.to_owned();
    };

    // The last row stays empty, because a line break there scrolls the screen.
    let (shown, hidden) = lines.split_at(rows - 2);
    format!("{}\n... {} more lines\n", shown.join("\n"), hidden.len())
}

fn write_and_flush(text: &str) -> std::io::Result<()> {
    let mut out = anstream::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints text about a failure on standard error.
pub(super) fn failure(text: &str) {
    let _ = anstream::stderr().write_all(terminal::text(text).as_bytes());
}

/// Prints a one-line remark on standard error, such as where the answer comes from.
pub(super) fn remark(remark: &str) {
    let _ = writeln!(anstream::stderr(), "{}", terminal::value(remark));
}

/// Prints clap's help, version or usage error in color.
///
/// If the command line itself has control characters, a usage error is escaped and has no color.
pub(super) fn usage(error: &clap::Error, is_printable: bool) {
    let rendered = error.render();
    if error.use_stderr() && !is_printable {
        failure(&rendered.to_string());
    } else if error.use_stderr() {
        let _ = write!(anstream::stderr(), "{}", rendered.ansi());
    } else {
        let _ = write!(anstream::stdout(), "{}", rendered.ansi());
    }
}

/// Returns the problem of an async runtime that cannot start.
pub(super) fn runtime_problem(error: &std::io::Error) -> Problem {
    Problem::new(
        Reason::Internal,
        format!("cannot start the async runtime: {error}"),
    )
}

fn json<T: Serialize>(value: &T) -> String {
    // Wire types have string keys and no fallible fields, so serialization cannot fail. The
    // fallback keeps the output one JSON object.
    terminal::json(serde_json::to_string_pretty(value).unwrap_or_else(|_| "{}".to_owned())) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn screen_keeps_its_rows() {
        let text = "1\n2\n3\n4\n5\n";
        assert_eq!(first_rows(text, Some(6)), text);
        assert_eq!(first_rows(text, Some(5)), "1\n2\n3\n... 2 more lines\n");
        assert_eq!(first_rows(text, None), text);
    }
}
