//! The command with the engine's arguments in it.

use std::ffi::OsString;

use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;

/// What stands for the engine's arguments in a command.
pub(super) const PLACE: &str = "{args}";

/// What to start.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CommandLine {
    pub(super) program: OsString,
    pub(super) arguments: Vec<OsString>,
}

/// `words`, with each `{args}` replaced by the options of `launch`, or with them at the end if
/// `append` says so. The engine's command, subcommand and model are not options: those the words
/// name themselves.
pub(super) fn words(
    words: &[OsString],
    launch: Option<&[String]>,
    append: bool,
) -> Result<CommandLine, Problem> {
    let wanted = append || words.iter().any(|word| word == PLACE);
    let options = match launch {
        Some(args) => args
            .iter()
            .skip_while(|arg| !arg.starts_with('-'))
            .map(OsString::from)
            .collect(),
        None if wanted => {
            let detail = "the engine's arguments are asked for, but none are known for this engine";
            return Err(Problem::new(Reason::Usage, detail).hint("leave out --flags and {args}"));
        }
        None => Vec::new(),
    };

    let placed = words.iter().any(|word| word == PLACE);
    let mut line = Vec::with_capacity(words.len().saturating_add(options.len()));
    for word in words {
        if word == PLACE {
            line.extend(options.iter().cloned());
        } else {
            line.push(word.clone());
        }
    }

    if append && !placed {
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
        let line = words(&command, Some(&launch), append).unwrap();

        std::iter::once(line.program)
            .chain(line.arguments)
            .map(|word| word.into_string().unwrap())
            .collect()
    }

    #[test]
    fn options_go_where_they_are_asked_for() {
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
    fn options_that_are_not_known_are_not_made_up() {
        let command = [OsString::from("serve"), OsString::from(PLACE)];
        assert_eq!(
            words(&command, None, false).unwrap_err().reason,
            Reason::Usage
        );
        assert!(words(&command[..1], None, false).is_ok());
        assert!(words(&[], None, false).is_err());
    }
}
