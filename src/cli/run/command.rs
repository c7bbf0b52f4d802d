//! The command to start, with the engine's arguments inserted.

use std::ffi::OsString;

use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;

/// The placeholder for the engine's arguments in a command.
pub(super) const PLACEHOLDER: &str = "{args}";

/// A program and its arguments.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CommandLine {
    pub(super) program: OsString,
    pub(super) arguments: Vec<OsString>,
}

/// Replaces each `{args}` in `words` with the options of `launch`, or appends them with `append`.
///
/// The engine's command, subcommand and model are not options: `words` name these themselves.
pub(super) fn insert_arguments(
    words: &[OsString],
    launch: Option<&[String]>,
    append: bool,
) -> Result<CommandLine, Problem> {
    let has_placeholder = words.iter().any(|word| word == PLACEHOLDER);
    let wanted = append || has_placeholder;
    let options = match launch {
        Some(args) => args
            .iter()
            .skip_while(|arg| !arg.starts_with('-'))
            .map(OsString::from)
            .collect(),
        None if wanted => {
            let detail = "the answer has no arguments for this engine";
            return Err(Problem::new(Reason::Usage, detail).hint("remove --flags and {args}"));
        }
        None => Vec::new(),
    };

    let mut line = Vec::with_capacity(words.len().saturating_add(options.len()));
    for word in words {
        if word == PLACEHOLDER {
            line.extend(options.iter().cloned());
        } else {
            line.push(word.clone());
        }
    }

    if append && !has_placeholder {
        line.extend(options);
    }

    let mut line = line.into_iter();
    let program = line
        .next()
        .ok_or_else(|| Problem::new(Reason::Usage, "the command is empty"))?;

    Ok(CommandLine {
        program,
        arguments: line.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(command: &[&str], append: bool) -> Vec<String> {
        let launch =
            ["vllm", "serve", "owner/name", "--tensor-parallel-size", "2"].map(str::to_owned);
        let command: Vec<OsString> = command.iter().map(OsString::from).collect();
        let line = insert_arguments(&command, Some(&launch), append).unwrap();

        std::iter::once(line.program)
            .chain(line.arguments)
            .map(|word| word.into_string().unwrap())
            .collect()
    }

    #[test]
    fn options_replace_placeholder_or_append() {
        assert_eq!(line(&["serve", "x"], false), ["serve", "x"]);
        assert_eq!(
            line(&["serve", "x"], true),
            ["serve", "x", "--tensor-parallel-size", "2"]
        );

        assert_eq!(
            line(&["serve", "{args}", "x"], true),
            ["serve", "--tensor-parallel-size", "2", "x"]
        );
        assert_eq!(line(&["serve", "a{args}"], false), ["serve", "a{args}"]);
    }

    #[test]
    fn unknown_options_are_rejected() {
        let command = [OsString::from("serve"), OsString::from(PLACEHOLDER)];
        assert_eq!(
            insert_arguments(&command, None, false).unwrap_err().reason,
            Reason::Usage
        );
        assert!(insert_arguments(&command[..1], None, false).is_ok());
        assert!(insert_arguments(&[], None, false).is_err());
    }
}
