//! `daemon`: serve until told to stop.

use super::arguments::DaemonArguments;
use super::output::Output;
use crate::daemon::{Options, program};

/// Exit code 0 after an orderly end; else that of what went wrong.
pub(super) fn run(arguments: DaemonArguments) -> u8 {
    let DaemonArguments { config, socket, gpus, nvml } = arguments;
    let options = Options { config_file: config, socket, gpus };
    program::main(&options, nvml).unwrap_or_else(|problem| Output { json: false }.problem(&problem))
}
