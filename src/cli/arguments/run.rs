//! Flags of `run`.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::connection::{ConnectionArguments, HostArguments};
use super::lease::LEASE_HEADING;
use super::question::QuestionOptions;
use super::values::parse_duration;

/// Examples at the end of `run --help`.
const EXAMPLES: &str = "\
Examples:
  hf-mem-probe run Qwen/Qwen3-8B -- vllm serve Qwen/Qwen3-8B
  hf-mem-probe run Qwen/Qwen3-8B --wait 10min --flags -- vllm serve Qwen/Qwen3-8B
  hf-mem-probe run unsloth/Qwen3-8B-GGUF --file Q4_K_M -- \\
    llama-server -hf unsloth/Qwen3-8B-GGUF:Q4_K_M {args}";

/// Flags of `run`.
#[derive(Args, Debug)]
// Only the daemon grants leases.
#[command(mut_arg("local", |local| local.requires("no_lease")), after_long_help = EXAMPLES)]
pub struct RunArguments {
    /// Model: owner/name, owner/name@revision, the address of its page, a local folder, a .gguf or
    /// .safetensors file, a file written by pack, ollama:NAME or lmstudio:PUBLISHER/NAME.
    #[arg(value_name = "MODEL", required_unless_present = "named_model")]
    pub model: Option<String>,
    /// The same as MODEL.
    #[arg(
        long = "model",
        id = "named_model",
        value_name = "MODEL",
        conflicts_with = "model"
    )]
    pub named_model: Option<String>,
    /// How the model is to run.
    #[command(flatten)]
    pub options: QuestionOptions,
    /// Time to wait in the queue for memory, such as 10min [default: do not wait].
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = parse_duration,
        default_value = "0s",
        hide_default_value = true,
        help_heading = LEASE_HEADING
    )]
    pub wait: Duration,
    /// Time that the lease lasts after its last renewal. hf-mem-probe renews it while CMD runs.
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = parse_duration,
        default_value = "120s",
        help_heading = LEASE_HEADING
    )]
    pub ttl: Duration,
    /// Append the engine's arguments for this placement to CMD.
    ///
    /// To put them elsewhere, write {args} as one argument of CMD.
    #[arg(long)]
    pub flags: bool,
    /// Memory to lease: what the model needs, or all memory that CMD takes from the GPU.
    ///
    /// [default: share if CMD starts vLLM or SGLang without --flags, else need]
    #[arg(long, value_enum, value_name = "need|share", help_heading = LEASE_HEADING)]
    pub lease: Option<LeaseBasis>,
    /// Run CMD without a lease. Other jobs can then be granted the same memory.
    ///
    /// Works without the daemon.
    #[arg(long, help_heading = LEASE_HEADING)]
    pub no_lease: bool,
    /// Become CMD, as the child of the supervisor with this pid. hf-mem-probe starts itself this
    /// way.
    #[arg(long = "become", hide = true, value_name = "PID")]
    pub supervisor: Option<i32>,
    /// Send the lease's id to the socket of this name. Only with --become.
    #[arg(
        long = "tell",
        hide = true,
        value_name = "NAME",
        requires = "supervisor"
    )]
    pub lease_id_socket: Option<String>,
    /// Reading without the daemon.
    #[command(flatten)]
    pub host: HostArguments,
    /// Daemon and output.
    #[command(flatten)]
    pub connection: ConnectionArguments,
    /// Command to run, and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// The memory that the lease of `run` covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LeaseBasis {
    /// The model's need, whatever CMD's memory flags are.
    Need,
    /// The share of the GPU that the engine takes by CMD's flags or by its default.
    Share,
}
