//! Flags of the commands that run and inspect the daemon, and of `pack`.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;

use super::connection::ConnectionArguments;
use super::values::parse_time;

/// Flags of `daemon`.
#[derive(Args, Debug)]
pub struct DaemonArguments {
    /// Configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Socket to listen on, instead of the one in the configuration.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Serve these declared GPUs instead of this host's, such as 8xH100-80GB. Useful for tests.
    #[arg(long, value_name = "SPEC|FILE")]
    pub gpus: Option<String>,
    /// Load the NVIDIA driver library (NVML) from this path.
    #[arg(long, value_name = "PATH", env = "HF_MEM_PROBE_NVML")]
    pub nvml: Option<PathBuf>,
}

/// Flags of `explain`.
#[derive(Args, Debug)]
pub struct ExplainArguments {
    /// Moment to explain: RFC 3339 (2026-11-23T15:04:05Z), "now", or a time ago such as 10min.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub at: SystemTime,
    /// State directory of the daemon, which holds its journal.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/hf-mem-probe")]
    pub journal: PathBuf,
    /// Number of journal entries to show before and after the moment.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub around: usize,
    /// Print one JSON object, on failure too.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `health`.
#[derive(Args, Debug)]
pub struct HealthArguments {
    /// Exit with 1 if a part of the daemon is degraded.
    #[arg(long)]
    pub strict: bool,
    /// Daemon and output.
    #[command(flatten)]
    pub connection: ConnectionArguments,
}

/// Flags of `pack`.
#[derive(Args, Debug)]
pub struct PackArguments {
    /// Model to pack: owner/name, owner/name@revision, a local folder, or a .gguf or .safetensors
    /// file.
    pub model: String,
    /// File to write. An existing file is replaced.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Use one file of the repository, by its name or quantization (Q4_K_M).
    #[arg(long, value_name = "FILE|QUANT")]
    pub file: Option<String>,
    /// Print one JSON object, on failure too.
    #[arg(long)]
    pub json: bool,
}
