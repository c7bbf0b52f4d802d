//! Flags of `fits` and `estimate`.

use std::time::Duration;

use clap::Args;

use super::connection::{ConnectionArguments, DAEMON_HEADING, HostArguments};
use super::lease::LEASE_HEADING;
use super::output::DetailArguments;
use super::question::QuestionArguments;
use super::values::{parse_duration, parse_holder};

/// Examples at the end of `fits --help`.
const FITS_EXAMPLES: &str = "\
Examples:
  hf-mem-probe fits Qwen/Qwen3-8B
  hf-mem-probe fits Qwen/Qwen3-8B --context max --sequences 4 --kv-cache-dtype fp8
  hf-mem-probe fits ./my-model --engine vllm@0.19 --set max_num_seqs=64
  hf-mem-probe fits ollama:llama3.2:3b --engine ollama
  hf-mem-probe fits Qwen/Qwen3-8B --gpus 2x24GiB
  hf-mem-probe fits Qwen/Qwen3-8B --reserve --ttl 2min --wait 5min";

/// Examples at the end of `estimate --help`.
const ESTIMATE_EXAMPLES: &str = "\
Examples:
  hf-mem-probe estimate deepseek-ai/DeepSeek-V3
  hf-mem-probe estimate Qwen/Qwen3-8B --engine reference --context 32k
  hf-mem-probe estimate Qwen/Qwen3-8B --gpus RTX-4090";

/// Flags of `fits`.
#[derive(Args, Debug)]
#[command(after_long_help = FITS_EXAMPLES)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub struct FitsArguments {
    /// The question.
    #[command(flatten)]
    pub question: QuestionArguments,
    /// Exit with 1 on "tight": the likely need fits, but its upper bound does not.
    #[arg(long)]
    pub strict: bool,
    /// Use exit codes for systemd's ExecCondition=.
    ///
    /// Exits with 0 for "fits", 1 for "does not fit", and 255 for everything else. Also exits with
    /// 255 if the model fits but a stopped daemon may hold leases that the answer does not count.
    #[arg(long)]
    pub condition: bool,
    /// Also compute the longest context for each number of sequences.
    #[arg(long)]
    pub frontier: bool,
    /// Lease the memory of the answer. Needs the daemon.
    ///
    /// A lease is advisory: every client of the daemon honors it, but it cannot stop other
    /// processes from taking the memory.
    #[arg(long, conflicts_with_all = ["local", "gpus"], help_heading = LEASE_HEADING)]
    pub reserve: bool,
    /// Time after which the lease ends unless you renew it, such as 2min [default: set by the
    /// daemon].
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = parse_duration,
        requires = "reserve",
        help_heading = LEASE_HEADING
    )]
    pub ttl: Option<Duration>,
    /// Time to wait in the queue for memory, such as 5min [default: do not wait].
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = parse_duration,
        requires = "reserve",
        help_heading = LEASE_HEADING
    )]
    pub wait: Option<Duration>,
    /// Name the holder of the lease. A named lease lasts until you release it or its time ends;
    /// without a name it also ends with the calling process.
    #[arg(
        long,
        value_name = "NAME",
        value_parser = parse_holder,
        requires = "reserve",
        help_heading = LEASE_HEADING
    )]
    pub holder: Option<String>,
    /// Reading without the daemon.
    #[command(flatten)]
    pub host: HostArguments,
    /// Detail of the answer.
    #[command(flatten)]
    pub detail: DetailArguments,
    /// Daemon and output.
    #[command(flatten)]
    pub connection: ConnectionArguments,
}

/// Flags of `estimate`.
#[derive(Args, Debug)]
#[command(after_long_help = ESTIMATE_EXAMPLES)]
pub struct EstimateArguments {
    /// The question.
    #[command(flatten)]
    pub question: QuestionArguments,
    /// Do not ask the daemon.
    #[arg(long, help_heading = DAEMON_HEADING)]
    pub local: bool,
    /// Detail of the answer.
    #[command(flatten)]
    pub detail: DetailArguments,
    /// Daemon and output.
    #[command(flatten)]
    pub connection: ConnectionArguments,
}
