//! The command that starts the engine.

use hf_mem_core::report::answer::PlacementAnswer;

use super::page::{Page, PageLayout, Tone};
use super::{size, wrapped_to};

/// Appends the engine's command for this placement, and the memory that it takes.
pub(super) fn launch(page: &mut Page, placement: &PlacementAnswer, layout: PageLayout) {
    let Some(launch) = placement
        .launch
        .as_ref()
        .filter(|launch| !launch.args.is_empty())
    else {
        return;
    };

    page.end_line();
    for (name, value) in &launch.env {
        page.line(format!("  {name}={} \\", shell_quoted(value)));
    }
    page.line(command(&launch.args, layout.columns));

    let takes: Vec<u64> = placement
        .devices
        .iter()
        .filter_map(|share| share.takes_bytes)
        .collect();

    if let Some(line) = takes_line(&takes) {
        let line = wrapped_to(layout.columns, &line, 4, 4);
        page.push(Tone::Dim, format!("  # {line}"));
        page.end_line();
    }
}

/// Returns the command in lines of at most `columns`. A longer word has a line of its own.
fn command(arguments: &[String], columns: usize) -> String {
    let mut out = String::from("  ");
    let mut column = 2;

    for (place, argument) in arguments.iter().enumerate() {
        let value = arguments
            .get(place + 1)
            .filter(|next| !next.starts_with('-'))
            .map_or(0, |next| next.len() + 1);

        let argument = shell_quoted(argument);

        // A flag and its value stay on one line.
        let is_flag = place > 0 && argument.starts_with('-');
        if is_flag && column + argument.len() + value > columns.saturating_sub(2) {
            out.push_str("\\\n    ");
            column = 4;
        }

        column += argument.len() + 1;
        out.push_str(&argument);
        out.push(' ');
    }

    out.trim_end().to_owned()
}

/// Returns the memory that the engine takes with this command, if the engine itself decides it.
fn takes_line(takes: &[u64]) -> Option<String> {
    let first = *takes.first()?;
    if takes.iter().all(|bytes| *bytes == first) {
        let each = if takes.len() > 1 {
            " on each device"
        } else {
            ""
        };
        return Some(format!(
            "started this way, the engine takes {}{each}",
            size(first)
        ));
    }

    let each: Vec<String> = takes.iter().map(|bytes| size(*bytes)).collect();
    Some(format!(
        "started this way, the engine takes {}",
        each.join(", ")
    ))
}

/// Returns an argument quoted for a POSIX shell.
pub(super) fn shell_quoted(argument: &str) -> String {
    if !argument.is_empty() && argument.bytes().all(is_plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

/// Whether a POSIX shell takes `byte` as it is.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_=/.,:@%+".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_words_are_quoted() {
        assert_eq!(shell_quoted("GPU-1,GPU-2"), "GPU-1,GPU-2");
        assert_eq!(shell_quoted("it's"), r"'it'\''s'");
        assert_eq!(shell_quoted(""), "''");
    }
}
