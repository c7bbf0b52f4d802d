//! Flags that describe the model, its engine, its workload and the GPUs to place it on.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use hf_mem_core::engines::EngineSpec;

use super::connection::DAEMON_HEADING;
use super::values::{parse_context, parse_setting};

/// The help heading of flags about the model and its engine.
const MODEL_HEADING: &str = "Model and engine";
/// The help heading of flags about the GPUs.
const GPUS_HEADING: &str = "GPUs";

/// A model, and how it is to run.
#[derive(Args, Debug)]
pub struct QuestionArguments {
    /// Model: owner/name, owner/name@revision, the address of its page, a local folder, a .gguf or
    /// .safetensors file, a file written by pack, ollama:NAME or lmstudio:PUBLISHER/NAME.
    pub model: String,
    /// How the model is to run.
    #[command(flatten)]
    pub options: QuestionOptions,
}

/// How a model is to run.
#[derive(Args, Clone, Debug)]
pub struct QuestionOptions {
    /// Use one file of the repository, by its name or quantization (Q4_K_M).
    #[arg(long, value_name = "FILE|QUANT", help_heading = MODEL_HEADING)]
    pub file: Option<String>,
    /// Draft model, which proposes tokens for MODEL to check: named as MODEL is.
    #[arg(long, value_name = "MODEL", help_heading = MODEL_HEADING)]
    pub draft: Option<String>,
    /// Use one file of the draft's repository, by its name or quantization.
    #[arg(
        long,
        value_name = "FILE|QUANT",
        requires = "draft",
        help_heading = MODEL_HEADING
    )]
    pub draft_file: Option<String>,
    /// Engine that runs the model: vllm, sglang, llama.cpp, ollama, transformers, diffusers,
    /// ctranslate2 or reference, with an optional version (vllm@0.19).
    #[arg(long, value_name = "NAME[@VERSION]", help_heading = MODEL_HEADING)]
    pub engine: Option<EngineSpec>,
    /// Tokens of one sequence, such as 32768 or 32k, or "max" [default: set by the engine].
    #[arg(long, value_name = "N|max", value_parser = parse_context, help_heading = MODEL_HEADING)]
    pub context: Option<ContextArgument>,
    /// Number of sequences in memory at once [default: 1].
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..),
        help_heading = MODEL_HEADING
    )]
    pub sequences: Option<u64>,
    /// dtype of the KV cache, by the engine's name for it (fp8, q8_0, ...).
    #[arg(long, value_name = "DTYPE", help_heading = MODEL_HEADING)]
    pub kv_cache_dtype: Option<String>,
    /// dtype that the engine casts the weights to, by the engine's name for it.
    #[arg(long, value_name = "DTYPE", help_heading = MODEL_HEADING)]
    pub dtype: Option<String>,
    /// Use exactly this tensor-parallel degree [default: the best that fits].
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=1024),
        help_heading = MODEL_HEADING
    )]
    pub tensor_parallel: Option<u32>,
    /// Use exactly this number of pipeline stages [default: the best that fits].
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=1024),
        help_heading = MODEL_HEADING
    )]
    pub pipeline_parallel: Option<u32>,
    /// Set an engine parameter by the engine's name for it, such as max_num_seqs=256. Repeat the
    /// flag for more parameters.
    #[arg(
        long,
        value_name = "KEY=VALUE",
        value_parser = parse_setting,
        help_heading = MODEL_HEADING
    )]
    pub set: Vec<(String, serde_json::Value)>,
    /// Use only these GPUs: UUIDs, indices or PCI addresses, separated by commas.
    #[arg(
        long,
        value_name = "GPU",
        value_delimiter = ',',
        help_heading = GPUS_HEADING
    )]
    pub on: Vec<String>,
    /// Place the model on these declared GPUs instead of this host's.
    ///
    /// Give cards or sizes (8xH100-80GB, or 2x24GiB,1x12GiB,host:64GiB) or a file that gpus --json
    /// wrote. docs/cards.md lists the known cards.
    #[arg(long, value_name = "SPEC|FILE", help_heading = GPUS_HEADING)]
    pub gpus: Option<String>,
    /// Whether layers, experts or components may stay in host memory.
    #[arg(long, value_enum, default_value_t = OffloadArgument::Deny, help_heading = GPUS_HEADING)]
    pub offload: OffloadArgument,
    /// With --local, take engine profiles, the default engine, margins and policy from this
    /// configuration file [default: /etc/hf-mem-probe/config.toml, if you can read it].
    #[arg(
        long,
        value_name = "FILE",
        requires = "local",
        help_heading = DAEMON_HEADING
    )]
    pub config: Option<PathBuf>,
}

/// A context length, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContextArgument {
    /// A number of tokens.
    Tokens(u64),
    /// The model's maximum.
    Max,
}

/// Whether the placement may use host memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OffloadArgument {
    /// Use host memory for what does not fit on the GPUs.
    Allow,
    /// Keep the whole model on the GPUs.
    Deny,
}
