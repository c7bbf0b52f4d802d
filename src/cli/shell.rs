//! Completions and the manual page, made from the command line's own definition.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::arguments::Arguments;
use super::output;

const NAME: &str = "hf-mem-probe";

/// Completions for `shell`.
pub(super) fn completions(shell: Shell) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), NAME, &mut script);
    output::text(&String::from_utf8_lossy(&script));
    0
}

/// The manual page: one page for all commands.
pub(super) fn manual() -> u8 {
    let mut page = Vec::new();
    // Writing to a vector cannot fail.
    let _ = clap_mangen::Man::new(Arguments::command().flatten_help(true)).render(&mut page);
    output::text(&String::from_utf8_lossy(&page));
    0
}
