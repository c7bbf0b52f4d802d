//! Flags that say how a command prints.

use clap::{Args, ValueEnum};

use super::connection::DAEMON_HEADING;

/// How much of an answer a command prints.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct DetailArguments {
    /// Print one line.
    #[arg(short, long, conflicts_with_all = ["verbose", "json"], help_heading = DAEMON_HEADING)]
    pub quiet: bool,
    /// Print every component, assumption and alternative; twice, all that the answer holds.
    #[arg(short, long, action = clap::ArgAction::Count, help_heading = DAEMON_HEADING)]
    pub verbose: u8,
}

/// When to print colors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorArgument {
    /// At a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}
