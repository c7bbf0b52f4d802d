//! Shell completions and manual pages, generated from the command line's definition.

use clap::CommandFactory as _;
use clap_complete::Shell;
use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;

use super::arguments::Arguments;
use super::output::{self, Output};

const NAME: &str = "hf-mem-probe";

/// Prints the completion script for `shell`.
pub(super) fn completions(shell: Shell) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), NAME, &mut script);
    output::text(&String::from_utf8_lossy(&script));
    0
}

/// Prints the manual page of the command `path`, one word per level, or of the program if empty.
pub(super) fn manual(path: &[String]) -> u8 {
    // Each command has its own page, so `help` needs none.
    let mut command = Arguments::command().disable_help_subcommand(true);

    // Gives subcommands their full names.
    command.build();
    for word in path {
        let Some(found) = command
            .find_subcommand(word)
            .filter(|found| !found.is_hide_set())
        else {
            let detail = format!("unknown command `{NAME} {}`", path.join(" "));
            let problem = Problem::new(Reason::Usage, detail).hint("run hf-mem-probe --help");
            return Output { json: false }.problem(&problem);
        };

        command = found.clone();
    }

    let manual =
        clap_mangen::Man::new(command).source(concat!("hf-mem-probe ", env!("CARGO_PKG_VERSION")));
    let mut page = Vec::new();

    // Writing to a vector cannot fail.
    let _ = manual.render(&mut page);
    output::text(&String::from_utf8_lossy(&page));

    Reason::Fits.exit_code()
}
