//! `daemon`: serve until told to stop.

use std::time::SystemTime;

use super::arguments::DaemonArguments;
use super::output::Output;
use crate::daemon::Options;
use crate::service;

/// Exit code 0 after an orderly end; else that of what went wrong.
pub(super) fn run(arguments: DaemonArguments) -> u8 {
    let DaemonArguments {
        config,
        socket,
        gpus,
        nvml,
    } = arguments;

    // What is wrong with a flag is not the configuration's fault.
    if let Some(Err(error)) = gpus
        .as_deref()
        .map(|spec| crate::devices::snapshot_file::resolve(spec, SystemTime::now()))
    {
        return Output { json: false }.problem(&error.into());
    }

    let options = Options {
        config_file: config,
        socket,
        gpus,
    };

    service::main(&options, nvml).unwrap_or_else(|problem| Output { json: false }.problem(&problem))
}
