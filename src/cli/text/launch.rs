//! The command that starts the engine.

use std::fmt::Write as _;

use hf_mem_core::report::answer::PlacementAnswer;

use super::{WIDTH, size, wrapped};

/// Appends the engine's command for this placement, and the memory that it takes.
pub(super) fn launch(out: &mut String, placement: &PlacementAnswer) {
    let Some(launch) = placement
        .launch
        .as_ref()
        .filter(|launch| !launch.args.is_empty())
    else {
        return;
    };

    out.push('\n');
    for (name, value) in &launch.env {
        let _ = writeln!(out, "  {name}={} \\", shell_quoted(value));
    }

    out.push_str("  ");
    let mut column = 2;

    for (place, argument) in launch.args.iter().enumerate() {
        let value = launch
            .args
            .get(place + 1)
            .filter(|next| !next.starts_with('-'))
            .map_or(0, |next| next.len() + 1);

        let argument = shell_quoted(argument);

        // A flag and its value stay on one line.
        if place > 0 && argument.starts_with('-') && column + argument.len() + value > WIDTH - 2 {
            out.push_str("\\\n    ");
            column = 4;
        }

        column += argument.len() + 1;
        out.push_str(&argument);
        out.push(' ');
    }

    let length = out.trim_end().len();
    out.truncate(length);
    out.push('\n');

    let takes: Vec<u64> = placement
        .devices
        .iter()
        .filter_map(|share| share.takes_bytes)
        .collect();

    if let Some(line) = takes_line(&takes) {
        let _ = writeln!(out, "\n  {}", wrapped(&line, 2, 2));
    }
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
