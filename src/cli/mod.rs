//! What a person sees: arguments in; an answer, a table or a failure out; an exit code.

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
    reason = "whether the state folder of the daemon is there"
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

use std::ffi::OsString;

use clap::Parser as _;
use hf_mem_core::report::problem::{Problem, Reason};

use self::arguments::{Arguments, Command};
use self::output::Output;

/// Runs one command line to its end; the result is the process's exit code.
pub fn run(line: impl IntoIterator<Item = OsString>) -> u8 {
    let line: Vec<OsString> = line.into_iter().collect();
    let arguments = match Arguments::try_parse_from(&line) {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error, &line),
    };

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

/// Help and version are data; anything else wrong with the command line is a failure with exit code
/// 2, in JSON where JSON was asked for.
fn usage(error: &clap::Error, line: &[OsString]) -> u8 {
    let output = Output {
        json: line.iter().any(|argument| argument == "--json"),
    };

    let sound = line
        .iter()
        .all(|argument| terminal::is_sound(&argument.to_string_lossy()));
    if !error.use_stderr() {
        output::usage(error, sound);
        return Reason::Fits.exit_code();
    }

    if output.json {
        let rendered = error.render().to_string();
        let said = rendered
            .lines()
            .map(str::trim)
            .take_while(|line| !line.starts_with("Usage:"));
        let said = said
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>()
            .join(" ");
        let detail = said.trim_start_matches("error: ").to_owned();
        output.problem(&Problem::new(Reason::Usage, detail).hint("see hf-mem-probe --help"));
    } else {
        output::usage(error, sound);
    }

    Reason::Usage.exit_code()
}
