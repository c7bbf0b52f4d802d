//! The command line, as clap reads it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Args, Parser, Subcommand, ValueEnum};
use hf_mem_core::engines::EngineSpec;

use crate::api::bounds::reject_control_characters;

/// Does this Hugging Face model fit on this host's GPUs right now, and how?
///
/// Reads headers only, never the weights; reads free memory through NVML; asks the daemon where one
/// runs. Answers are advice: nothing here can stop another process from taking the memory.
#[derive(Debug, Parser)]
#[command(
    name = "hf-mem-probe",
    version,
    max_term_width = 100,
    propagate_version = true
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Whether and how a model fits here, now.
    Fits(Box<FitsArguments>),
    /// What a model needs, whatever is installed here.
    Estimate(Box<EstimateArguments>),
    /// What is free, and who holds what.
    Gpus(GpusArguments),
    /// What can be given on one device, as one whole number: for programs that compare numbers.
    Free(FreeArguments),
    /// Waits for room, holds it by a lease, and runs a command there.
    ///
    /// CMD gets the devices in its environment (CUDA_VISIBLE_DEVICES by UUID, CUDA_DEVICE_ORDER)
    /// and the lease's id in HF_MEM_PROBE_LEASE. Its exit code is passed on (128 and the signal's
    /// number where a signal ended it), and so are the signals that this program gets; where CMD
    /// cannot be started it is 127 (not found) or 126. 75: no memory came free within --wait. A
    /// restart of the daemon is waited out, and never ends CMD.
    ///
    /// A lease is advisory: it is honoured by everyone who asks here, and cannot stop a process
    /// that does not.
    Run(Box<RunArguments>),
    /// The leases that are held.
    ///
    /// A lease is advisory: it is honoured by everyone who asks here, and cannot stop a process
    /// that does not.
    Lease(LeaseArguments),
    /// Who had been promised what, and who had taken what, at a time: for after an out-of-memory.
    ///
    /// It reads the daemon's journal, which names everybody's jobs: as the packages install the
    /// daemon, only root and the daemon's own user may read it (exit code 77 for others).
    Explain(ExplainArguments),
    /// Serves questions on a Unix socket.
    Daemon(DaemonArguments),
    /// Whether the daemon answers, and how each of its parts is.
    ///
    /// The exit code is 0 when it answers, also where parts of it are degraded: a Hub that is down
    /// is no reason to restart it. With --strict it is then 1. 69: the daemon does not answer.
    Health(HealthArguments),
    /// Reads a configuration file as the daemon would, and says what is wrong with it.
    CheckConfig {
        /// The file.
        file: PathBuf,
    },
    /// Writes all that an answer needs of a model into one small file, for hosts without a network.
    ///
    /// fits and estimate take the file in place of a model and answer as they would with the Hub at
    /// hand. Nothing but metadata is in it: no weights, no token, no address that a token was
    /// needed for.
    Pack(PackArguments),
    /// Writes shell completions to standard output.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Writes a manual page to standard output: the program's own, or that of one of its commands.
    #[command(hide = true)]
    Manual {
        /// The command, such as "fits" or "lease renew".
        #[arg(value_name = "COMMAND")]
        command: Vec<String>,
    },
}

/// `fits`.
#[derive(Args, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub struct FitsArguments {
    /// The question.
    #[command(flatten)]
    pub question: QuestionArguments,
    /// Exit with 1 when it fits only by its likely need, not by the high end ("tight").
    #[arg(long)]
    pub strict: bool,
    /// For systemd's ExecCondition=: exit with 255 on everything but "fits" (0) and "does not fit"
    /// (1). A "fits" that does not count the leases of a stopped daemon is no "fits" here.
    #[arg(long)]
    pub condition: bool,
    /// Also compute the largest context for each number of sequences.
    #[arg(long)]
    pub frontier: bool,
    /// Hold what is answered by a lease (needs the daemon). A lease is advisory: it is honoured by
    /// everyone who asks here, and cannot stop a process that does not.
    #[arg(long, conflicts_with_all = ["local", "gpus"])]
    pub reserve: bool,
    /// How long the lease lives unless renewed [default: the daemon's own].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "reserve")]
    pub ttl: Option<Duration>,
    /// How long to wait in line for memory.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "reserve")]
    pub wait: Option<Duration>,
    /// Hold the lease by this name, until it is released or its time is up, instead of by the
    /// calling process.
    #[arg(long, value_name = "NAME", value_parser = parse_holder, requires = "reserve")]
    pub holder: Option<String>,
    /// What is read here.
    #[command(flatten)]
    pub here: HereArguments,
    /// Where to ask, and how to print.
    #[command(flatten)]
    pub connection: ConnectionArguments,
}

/// `estimate`.
#[derive(Args, Debug)]
pub struct EstimateArguments {
    /// The question.
    #[command(flatten)]
    pub question: QuestionArguments,
    /// Do not ask the daemon.
    #[arg(long)]
    pub local: bool,
    /// Where to ask, and how to print.
    #[command(flatten)]
    pub connection: ConnectionArguments,
}

/// `run`.
#[derive(Args, Debug)]
// Only the daemon gives leases.
#[command(mut_arg("local", |local| local.requires("no_lease")))]
pub struct RunArguments {
    /// owner/name, owner/name@revision, a local folder, a .gguf or .safetensors file, a bundle,
    /// ollama:NAME or lmstudio:PUBLISHER/NAME.
    #[arg(long = "model", value_name = "MODEL")]
    pub model: String,
    /// The rest of the question.
    #[command(flatten)]
    pub options: QuestionOptions,
    /// How long to wait in line for memory [default: not at all].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "0s", hide_default_value = true)]
    pub wait: Duration,
    /// How long the lease outlives this program if it can no longer renew it.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "120s")]
    pub ttl: Duration,
    /// Append the engine's arguments for this placement to CMD. An argument of CMD that is "{args}"
    /// is replaced by them.
    #[arg(long)]
    pub flags: bool,
    /// What to hold: what the model needs, or the whole share of the device that the engine takes
    /// by CMD's flags or by its own default [default: share for a CMD that starts vLLM or SGLang
    /// without --flags, else need].
    #[arg(long, value_enum, value_name = "need|share")]
    pub lease: Option<LeaseBasis>,
    /// Run without a lease: another may be told that the same memory is free. Works without the
    /// daemon.
    #[arg(long)]
    pub no_lease: bool,
    /// Be the process that becomes CMD, started by the process of this pid: this program's own way
    /// to start itself.
    #[arg(long = "become", hide = true, value_name = "PID")]
    pub becomes_command: Option<i32>,
    /// Say the lease's id to the socket of this name, with --become.
    #[arg(long, hide = true, value_name = "NAME", requires = "becomes_command")]
    pub tell: Option<String>,
    /// What is read here.
    #[command(flatten)]
    pub here: HereArguments,
    /// Where to ask, and how to print.
    #[command(flatten)]
    pub connection: ConnectionArguments,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// `lease`.
#[derive(Args, Debug)]
pub struct LeaseArguments {
    /// What to do with them.
    #[command(subcommand)]
    pub action: LeaseAction,
}

/// What to do with leases.
#[derive(Debug, Subcommand)]
pub enum LeaseAction {
    /// All leases, and who waits for one.
    List {
        /// Where to ask, and how to print.
        #[command(flatten)]
        connection: ConnectionArguments,
    },
    /// Makes a lease go on. One that has ended stays ended.
    Renew {
        /// The lease.
        id: String,
        /// How long from now [default: its own time to live].
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        ttl: Option<Duration>,
        /// Where to ask, and how to print.
        #[command(flatten)]
        connection: ConnectionArguments,
    },
    /// Gives a lease back.
    Release {
        /// The lease.
        id: String,
        /// Where to ask, and how to print.
        #[command(flatten)]
        connection: ConnectionArguments,
    },
}

/// `explain`.
#[derive(Args, Debug)]
pub struct ExplainArguments {
    /// The time: RFC 3339 (2026-11-23T15:04:05Z), "now", or how long ago (10min).
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub at: SystemTime,
    /// The daemon's state directory, where its journal is.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/hf-mem-probe")]
    pub journal: PathBuf,
    /// How many lines of the journal to show before and after.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub around: usize,
    /// Print one JSON object, on failure too.
    #[arg(long)]
    pub json: bool,
}

/// What is asked.
#[derive(Args, Debug)]
pub struct QuestionArguments {
    /// owner/name, owner/name@revision, a local folder, a .gguf or .safetensors file, a bundle,
    /// ollama:NAME or lmstudio:PUBLISHER/NAME.
    pub model: String,
    /// The rest of the question.
    #[command(flatten)]
    pub options: QuestionOptions,
}

/// `pack`.
#[derive(Args, Debug)]
pub struct PackArguments {
    /// owner/name, owner/name@revision, a local folder, or a .gguf or .safetensors file.
    pub model: String,
    /// The file to write; one that is there already is replaced.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// One file of the repository, or the name of a quantisation (Q4_K_M).
    #[arg(long, value_name = "FILE|QUANT")]
    pub file: Option<String>,
    /// Print one JSON object, on failure too.
    #[arg(long)]
    pub json: bool,
}

/// What is asked of a model.
#[derive(Args, Clone, Debug)]
pub struct QuestionOptions {
    /// One file of the repository, or the name of a quantisation (Q4_K_M).
    #[arg(long, value_name = "FILE|QUANT")]
    pub file: Option<String>,
    /// vllm, sglang, llama.cpp, ollama, transformers, diffusers or reference, with an optional
    /// version.
    #[arg(long, value_name = "NAME[@VERSION]")]
    pub engine: Option<EngineSpec>,
    /// Tokens of one sequence, or "max" [default: the engine's own].
    #[arg(long, value_name = "N|max", value_parser = parse_context)]
    pub context: Option<ContextArgument>,
    /// Sequences held at once [default: 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub sequences: Option<u64>,
    /// dtype of the KV cache, by the engine's own name (fp8, q8_0, ...).
    #[arg(long, value_name = "DTYPE")]
    pub kv_cache_dtype: Option<String>,
    /// dtype that weights are cast to, by the engine's own name.
    #[arg(long, value_name = "DTYPE")]
    pub dtype: Option<String>,
    /// Exactly this tensor-parallel degree.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub tensor_parallel: Option<u32>,
    /// Exactly this many pipeline stages.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub pipeline_parallel: Option<u32>,
    /// An engine parameter by the engine's own name, such as max_num_seqs=256. May be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting)]
    pub set: Vec<(String, serde_json::Value)>,
    /// Only these devices, by UUID.
    #[arg(long, value_name = "UUID", value_delimiter = ',')]
    pub on: Vec<String>,
    /// Declared devices instead of this host's: 8xH100-80GB, 2x24GiB,1x12GiB,host:64GiB, or a file
    /// written by gpus --json. docs/cards.md lists the names.
    #[arg(long, value_name = "SPEC|FILE")]
    pub gpus: Option<String>,
    /// Whether layers, experts or components may stay in host memory.
    #[arg(long, value_enum, default_value_t = OffloadArgument::Deny)]
    pub offload: OffloadArgument,
    /// With --local: the configuration whose engine profiles, default engine, margins and policy
    /// apply [default: the daemon's, /etc/hf-mem-probe/config.toml, where it can be read].
    #[arg(long, value_name = "FILE", requires = "local")]
    pub config: Option<PathBuf>,
}

/// What this process reads of the host itself, for the commands that can do without the daemon.
#[derive(Args, Clone, Debug, Default)]
pub struct HereArguments {
    /// Do not ask the daemon: its leases are then not counted.
    #[arg(long)]
    pub local: bool,
    /// The driver's library, where it is not found by its usual name.
    #[arg(long, value_name = "PATH", env = "HF_MEM_PROBE_NVML")]
    pub nvml: Option<PathBuf>,
}

/// Where to ask, and how to print.
#[derive(Args, Debug)]
pub struct ConnectionArguments {
    /// The daemon's socket.
    #[arg(long, value_name = "PATH", env = "HF_MEM_PROBE_SOCKET", default_value = crate::config::DEFAULT_PATH)]
    pub socket: PathBuf,
    /// How long to wait for the daemon to answer, on top of --wait [default: 5s for health and
    /// gpus, 15s for free and lease, 65s for the others].
    #[arg(long, value_name = "DURATION", value_parser = parse_timeout)]
    pub timeout: Option<Duration>,
    /// Print one JSON object, on failure too.
    #[arg(long)]
    pub json: bool,
}

/// `health`.
#[derive(Args, Debug)]
pub struct HealthArguments {
    /// Exit with 1 when any part of the daemon is degraded.
    #[arg(long)]
    pub strict: bool,
    /// Where to ask, and how to print.
    #[command(flatten)]
    pub connection: ConnectionArguments,
}

/// `gpus`.
#[derive(Args, Debug)]
pub struct GpusArguments {
    /// Print anew whenever something changes.
    #[arg(long)]
    pub watch: bool,
    /// Show how the devices are wired.
    #[arg(long)]
    pub topology: bool,
    /// Declared devices instead of this host's.
    #[arg(long, value_name = "SPEC|FILE")]
    pub gpus: Option<String>,
    /// What is read here.
    #[command(flatten)]
    pub here: HereArguments,
    /// Where to ask, and how to print.
    #[command(flatten)]
    pub connection: ConnectionArguments,
}

/// `free`.
#[derive(Args, Debug)]
pub struct FreeArguments {
    /// The device, by UUID or index; needed where there is more than one.
    #[arg(long, value_name = "UUID|INDEX")]
    pub gpu: Option<String>,
    /// The unit; rounded down to whole ones.
    #[arg(long, value_enum, default_value_t = Unit::MiB)]
    pub unit: Unit,
    /// Declared devices instead of this host's.
    #[arg(long, value_name = "SPEC|FILE")]
    pub gpus: Option<String>,
    /// What is read here.
    #[command(flatten)]
    pub here: HereArguments,
    /// Where to ask, and how to print.
    #[command(flatten)]
    pub connection: ConnectionArguments,
}

/// A unit of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Unit {
    /// Bytes.
    #[value(name = "B")]
    B,
    /// 1024 bytes.
    #[value(name = "KiB")]
    KiB,
    /// 1024 KiB.
    #[value(name = "MiB")]
    MiB,
    /// 1024 MiB.
    #[value(name = "GiB")]
    GiB,
}

impl Unit {
    /// Its bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::B => 1,
            Self::KiB => 1 << 10,
            Self::MiB => 1 << 20,
            Self::GiB => 1 << 30,
        }
    }
}

/// `daemon`.
#[derive(Args, Debug)]
pub struct DaemonArguments {
    /// Configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Socket to serve on, instead of the configuration's.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Declared devices instead of this host's: for trying things out, and for tests.
    #[arg(long, value_name = "SPEC|FILE")]
    pub gpus: Option<String>,
    /// The driver's library, where it is not found by its usual name.
    #[arg(long, value_name = "PATH", env = "HF_MEM_PROBE_NVML")]
    pub nvml: Option<PathBuf>,
}

/// A context, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContextArgument {
    /// This many tokens.
    Tokens(u64),
    /// The model's maximum.
    Max,
}

/// What a lease of `run` is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LeaseBasis {
    /// What the model needs for the question, whatever the command's memory flags say.
    Need,
    /// What the engine takes when it is started with these flags.
    Share,
}

/// Whether host memory may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OffloadArgument {
    /// It may.
    Allow,
    /// It may not.
    Deny,
}

fn parse_context(text: &str) -> Result<ContextArgument, String> {
    if text == "max" {
        return Ok(ContextArgument::Max);
    }

    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1024),
        None => (text, 1),
    };

    let tokens = digits
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(unit))
        .filter(|tokens| *tokens > 0);

    tokens
        .map(ContextArgument::Tokens)
        .ok_or_else(|| "not a number of tokens such as 32768 or 32k, nor \"max\"".to_owned())
}

/// `key=value`: numbers, booleans and null as JSON reads them, anything else as a string.
fn parse_setting(text: &str) -> Result<(String, serde_json::Value), String> {
    let (key, value) = text.split_once('=').ok_or("not of the form KEY=VALUE")?;
    let key = key.trim().trim_start_matches("--").replace('-', "_");
    if key.is_empty() {
        return Err("the parameter's name is empty".to_owned());
    }

    let value = match serde_json::from_str::<serde_json::Value>(value) {
        Ok(parsed) if !parsed.is_object() => parsed,
        _ => serde_json::Value::String(value.to_owned()),
    };

    Ok((key, value))
}

/// A holder's name as the daemon takes it.
fn parse_holder(text: &str) -> Result<String, String> {
    reject_control_characters("--holder", text).map_err(|problem| problem.detail)?;
    Ok(text.to_owned())
}

/// The longest that anybody waits for anything.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

/// A duration such as `120s` or `5min`; used by the commands that wait.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("not a duration such as 120s or 5min: {error}"))?;

    // No clock counts any number of seconds from now.
    if duration > LONGEST {
        Err("longer than a hundred years".to_owned())
    } else {
        Ok(duration)
    }
}

/// A duration in which an answer can come.
fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = parse_duration(text)?;
    if timeout.is_zero() {
        Err("no answer comes in no time: give a duration such as 5s".to_owned())
    } else {
        Ok(timeout)
    }
}

/// A time as a person has it at hand.
fn parse_time(text: &str) -> Result<SystemTime, String> {
    if text == "now" {
        return Ok(SystemTime::now());
    }

    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        return Ok(time);
    }

    let ago = humantime::parse_duration(text).map_err(|_| {
        "not a time such as 2026-11-23T15:04:05Z, \"now\", or 10min for ten minutes ago".to_owned()
    })?;

    // RFC 3339 in its usual form, as the journal has it, begins there.
    let time = SystemTime::now()
        .checked_sub(ago)
        .filter(|time| *time >= SystemTime::UNIX_EPOCH);

    time.ok_or_else(|| "a time before 1970: no journal goes back that far".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn contexts_and_settings_are_read_as_typed() {
        assert_eq!(parse_context("32k"), Ok(ContextArgument::Tokens(32768)));
        assert_eq!(parse_context("max"), Ok(ContextArgument::Max));
        assert!(parse_context("0").is_err());
        assert!(parse_context("18446744073709551615k").is_err());

        assert_eq!(
            parse_setting("--max-num-seqs=256"),
            Ok(("max_num_seqs".to_owned(), 256.into()))
        );
        assert_eq!(
            parse_setting("dtype=bfloat16"),
            Ok(("dtype".to_owned(), "bfloat16".into()))
        );

        assert_eq!(
            parse_setting("enforce_eager=true"),
            Ok(("enforce_eager".to_owned(), true.into()))
        );
        assert!(parse_setting("=3").is_err());
    }

    #[test]
    fn times_that_no_clock_shows_are_refused() {
        assert!(parse_time("10min").unwrap() < SystemTime::now());
        assert!(parse_time("2026-11-23T15:04:05Z").is_ok());

        for before in ["60y", "100000d", "584542046090y", "1969-12-31T23:59:59Z"] {
            assert!(parse_time(before).is_err(), "{before}");
        }

        assert_eq!(parse_duration("5min"), Ok(Duration::from_secs(300)));
        assert!(parse_duration("500000000000y").is_err());
    }
}
