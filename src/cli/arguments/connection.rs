//! Flags that say whom a command asks, and how it prints.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::values::parse_timeout;

/// The help heading of flags about the daemon and the output.
pub(super) const DAEMON_HEADING: &str = "Daemon and output";

/// Flags of commands that can read this host's GPUs without the daemon.
#[derive(Args, Clone, Debug, Default)]
pub struct HostArguments {
    /// Do not ask the daemon. Leases are then not counted.
    #[arg(long, help_heading = DAEMON_HEADING)]
    pub local: bool,
    /// Load the NVIDIA driver library (NVML) from this path.
    #[arg(long, value_name = "PATH", env = "HF_MEM_PROBE_NVML", help_heading = DAEMON_HEADING)]
    pub nvml: Option<PathBuf>,
}

/// Flags of commands that ask the daemon.
#[derive(Args, Debug)]
pub struct ConnectionArguments {
    /// Socket of the daemon.
    #[arg(
        long,
        value_name = "PATH",
        env = "HF_MEM_PROBE_SOCKET",
        default_value = crate::config::DEFAULT_PATH,
        help_heading = DAEMON_HEADING
    )]
    pub socket: PathBuf,
    /// Time limit for the daemon's answer, in addition to --wait [default: 5s for health and gpus,
    /// 15s for free and lease, 65s for other commands].
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = parse_timeout,
        help_heading = DAEMON_HEADING
    )]
    pub timeout: Option<Duration>,
    /// Print one JSON object, on failure too.
    #[arg(long, help_heading = DAEMON_HEADING)]
    pub json: bool,
}
