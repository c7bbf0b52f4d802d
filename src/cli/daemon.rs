//! `daemon`: runs the daemon until a signal stops it.

use std::time::SystemTime;

use super::arguments::DaemonArguments;
use super::output::Output;
use crate::daemon::Options;
use crate::service;

/// Runs the daemon: exit code 0 after an orderly stop, else the failure's code.
pub(super) fn run(arguments: DaemonArguments) -> u8 {
    let DaemonArguments {
        config,
        socket,
        gpus,
        nvml,
    } = arguments;

    // Checked here, so that the error names the flag and not the configuration.
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
