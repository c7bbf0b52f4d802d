//! The command line: parses arguments, runs one command, prints its result as text or JSON.

pub mod arguments;
mod check_config;
mod connection;
mod daemon;
mod daemon_only;
mod exit;
mod explain;
mod fits;
mod free;
mod gpus;
mod health;
mod in_process;
mod lease;
#[expect(
    clippy::disallowed_methods,
    reason = "checks for the daemon's state directory"
)]
mod offline_leases;
mod output;
mod pack;
mod question;
mod reserve;
mod run;
mod shell;
mod site;
mod terminal;
pub mod text;
mod version;

use std::ffi::OsString;

use clap::Parser as _;
use clap::error::ErrorKind;
use hf_mem_core::report::problem::{Problem, Reason};

use self::arguments::{Arguments, Command};
use self::output::Output;

/// Runs one command line and returns the process's exit code.
pub fn run(line: impl IntoIterator<Item = OsString>) -> u8 {
    let line: Vec<OsString> = line.into_iter().collect();
    let arguments = match Arguments::try_parse_from(&line) {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error, &line),
    };

    output::set_color(arguments.color);
    match arguments.command {
        Command::Fits(arguments) => fits::fits(&arguments),
        Command::Estimate(arguments) => fits::estimate(&arguments),
        Command::Gpus(arguments) => gpus::run(&arguments),
        Command::Free(arguments) => free::run(&arguments),
        Command::Run(arguments) => run::run(*arguments),
        Command::Lease(arguments) => lease::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Daemon(arguments) => daemon::run(arguments),
        Command::Health(arguments) => health::run(&arguments),
        Command::CheckConfig { file } => check_config::run(&file),
        Command::Pack(arguments) => pack::run(&arguments),
        Command::Completions { shell } => shell::completions(shell),
        Command::Manual { command } => shell::manual(&command),
    }
}

/// Whether the line asks for the verified engines too: `--version -v`.
fn asks_for_details(line: &[OsString]) -> bool {
    line.iter().any(|part| part == "-v" || part == "--verbose")
}

/// Prints help, the version, or a usage error, and returns the exit code.
///
/// Help and version are data. A usage error has exit code 2, and is JSON with `--json`.
fn usage(error: &clap::Error, line: &[OsString]) -> u8 {
    let output = Output {
        json: line.iter().any(|argument| argument == "--json"),
    };

    let is_printable = line
        .iter()
        .all(|argument| terminal::is_printable(&argument.to_string_lossy()));
    if !error.use_stderr() {
        output::usage(error, is_printable);
        if error.kind() == ErrorKind::DisplayVersion && asks_for_details(line) {
            version::print_engines();
        }
        return Reason::Fits.exit_code();
    }

    if output.json {
        let rendered = error.render().to_string();
        let message = rendered
            .lines()
            .map(str::trim)
            .take_while(|line| !line.starts_with("Usage:"))
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>()
            .join(" ");
        let detail = message.trim_start_matches("error: ").to_owned();
        output.problem(&Problem::new(Reason::Usage, detail).hint("run hf-mem-probe --help"));
    } else {
        output::usage(error, is_printable);
    }

    Reason::Usage.exit_code()
}
