//! The command line: subcommands, flags and their help texts.

mod connection;
mod devices;
mod fits;
mod lease;
mod operate;
mod output;
mod question;
mod run;
mod values;

use clap::{Parser, Subcommand};

pub use self::connection::{ConnectionArguments, HostArguments};
pub use self::devices::{FreeArguments, GpusArguments, Unit};
pub use self::fits::{EstimateArguments, FitsArguments};
pub use self::lease::{LeaseAction, LeaseArguments};
pub use self::operate::{DaemonArguments, ExplainArguments, HealthArguments, PackArguments};
pub use self::output::{ColorArgument, DetailArguments};
pub use self::question::{ContextArgument, OffloadArgument, QuestionArguments, QuestionOptions};
pub use self::run::{LeaseBasis, RunArguments};

/// Examples and exit codes at the end of `hf-mem-probe --help`.
const AFTER_HELP: &str = "\
Examples:
  hf-mem-probe gpus
  hf-mem-probe fits Qwen/Qwen3-8B --context 32k --sequences 8
  hf-mem-probe fits unsloth/Qwen3-30B-A3B-GGUF --file Q4_K_M
  hf-mem-probe estimate deepseek-ai/DeepSeek-V3 --gpus 8xH200
  hf-mem-probe run Qwen/Qwen3-8B -- vllm serve Qwen/Qwen3-8B

Exit codes:
   0  fits (also \"tight\", unless you set --strict)
   1  does not fit
   2  invalid request
   3  unknown: the model, engine or parameter is not supported
   4  no usable GPU
   5  repository, file or lease not found or not accessible
  69  the daemon does not answer
  70  internal error
  75  temporary failure: try again later
  77  permission denied, or your user's lease limit reached
  78  invalid configuration";

/// Check whether a Hugging Face model fits on your GPUs right now, and how to start it.
///
/// hf-mem-probe reads only file headers of the model, never the weights, and reads free memory
/// through NVML. If a daemon runs on this host, it answers and counts the leases of other jobs.
/// Answers are advice: another process can still take the memory.
#[derive(Debug, Parser)]
#[command(
    name = "hf-mem-probe",
    version,
    max_term_width = 100,
    propagate_version = true,
    after_long_help = AFTER_HELP
)]
pub struct Arguments {
    /// When to print colors.
    #[arg(long, value_enum, global = true, value_name = "WHEN", default_value_t)]
    pub color: ColorArgument,
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// A subcommand.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check whether a model fits on your GPUs, and how to start it.
    Fits(Box<FitsArguments>),
    /// Estimate the memory that a model needs, on any host.
    ///
    /// Needs no GPU. Without --gpus, the answer has no verdict.
    Estimate(Box<EstimateArguments>),
    /// Show free memory, leases and processes of each GPU.
    Gpus(GpusArguments),
    /// Print the available memory of one GPU as a whole number.
    ///
    /// Use it in scripts that compare numbers. The command reads the device when you call it, and
    /// subtracts leased memory and the safety margin. If the figure is unknown, the command fails:
    /// it never prints 0 for an unknown figure.
    Free(FreeArguments),
    /// Wait for memory, lease it, and run a command on the leased GPUs.
    ///
    /// CMD finds its GPUs in CUDA_VISIBLE_DEVICES (by UUID, with CUDA_DEVICE_ORDER), and the
    /// lease's id in HF_MEM_PROBE_LEASE. The lease ends when CMD ends.
    ///
    /// hf-mem-probe forwards signals to CMD and exits with CMD's exit code (128 plus the signal
    /// number if a signal ended CMD). It exits with 127 if CMD was not found, with 126 if CMD could
    /// not be started, and with 75 if no memory became free within --wait. A restart of the daemon
    /// does not end CMD.
    ///
    /// A lease is advisory: every client of the daemon honors it, but it cannot stop other
    /// processes from taking the memory.
    Run(Box<RunArguments>),
    /// List, renew or release leases.
    ///
    /// A lease is advisory: every client of the daemon honors it, but it cannot stop other
    /// processes from taking the memory.
    Lease(LeaseArguments),
    /// Show the leases and processes of a past moment, such as an out-of-memory error.
    ///
    /// Reads the daemon's journal, which names the jobs of every user. With the packaged daemon,
    /// only root and the daemon's own user can read it; for other users the command exits with 77.
    Explain(ExplainArguments),
    /// Run the daemon: answer requests on a Unix socket and grant leases.
    Daemon(DaemonArguments),
    /// Check that the daemon answers, and show the state of its parts.
    ///
    /// Exits with 0 if the daemon answers, even if a part is degraded: a restart does not repair an
    /// unreachable Hub. With --strict, a degraded part gives exit code 1. Exit code 69 means that
    /// the daemon does not answer.
    Health(HealthArguments),
    /// Check a configuration file and report its errors.
    ///
    /// Exits with 0 if the daemon can use the file (warnings go to standard error), and with 78 if
    /// it cannot.
    CheckConfig {
        /// Configuration file to check.
        file: std::path::PathBuf,
    },
    /// Write a model's metadata into one small file, for hosts without a network.
    ///
    /// Pass the file to fits or estimate in place of a model. The file holds metadata only: no
    /// weights, no token, and no URL that needed a token.
    Pack(PackArguments),
    /// Print a completion script for your shell.
    Completions {
        /// Shell to complete in.
        shell: clap_complete::Shell,
    },
    /// Print a manual page, of the program or of one of its commands.
    #[command(hide = true)]
    Manual {
        /// Command to describe, such as "fits" or "lease renew".
        #[arg(value_name = "COMMAND")]
        command: Vec<String>,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
