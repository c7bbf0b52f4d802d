//! What is answered. Bytes are integers in keys that end in `_bytes`; what could not be read is
//! `null`, never 0.

use std::collections::BTreeMap;

use serde::ser::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::file::FilesAnswer;
use super::lease::LeaseAnswer;
use super::problem::Reason;
use crate::engines::{Basis, ComponentName};
use crate::model::Format;
use crate::placement::Strategy;
use crate::wire_word::{WireWord, Word, words};

/// The verdict of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The high end of the need is available.
    Fits,
    /// The likely need is available, the high end is not.
    Tight,
    /// The likely need is not available.
    DoesNotFit,
    /// Cannot be told.
    Unknown,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Answer {
    /// Version of these types.
    pub schema_version: u32,
    /// Whether it fits; `null` for an estimate without devices.
    pub verdict: Option<Verdict>,
    /// A stable word: `fits`, `insufficient_memory`, `no_legal_split`, `unsupported_architecture`,
    /// ...; `null` where there is no verdict.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub reason: Option<WireWord<Reason>>,
    /// One sentence for a person.
    pub message: String,
    /// The model.
    pub model: ModelAnswer,
    /// The engine; `null` where none could be chosen.
    pub engine: Option<EngineAnswer>,
    /// The workload in force.
    pub workload: Option<WorkloadAnswer>,
    /// What it needs, summed over the devices of the recommended split.
    pub requirement: Option<Requirement>,
    /// Where it goes; for a "no" the placement that came nearest.
    pub placement: Option<PlacementAnswer>,
    /// Other ways, next best first.
    pub alternatives: Vec<Alternative>,
    /// What to change, least harm first; each one computed.
    pub suggestions: Vec<Suggestion>,
    /// Bytes that are short, summed over devices; 0 when it fits, `null` when it cannot be told,
    /// absent where there is no verdict.
    #[serde(default, skip_serializing_if = "Shortfall::is_not_judged")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u64>))]
    pub short_by_bytes: Shortfall,
    /// The lease, when one was asked for and granted.
    #[serde(default, serialize_with = "with_sorted_keys")]
    pub lease: Option<LeaseAnswer>,
    /// When the devices were read, RFC 3339; `null` where none were.
    pub sampled_at: Option<String>,
    /// Whether that reading, or the model's metadata, is older than it should be.
    pub stale: bool,
    /// What the figures rest on that was not asked for.
    pub assumptions: Vec<String>,
    /// Doubts and dangers.
    pub warnings: Vec<String>,
    /// Every file of a repository of many GGUF models, each with its verdict, where none was asked
    /// for by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FilesAnswer>,
    /// Largest context for each number of sequences, when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frontier: Option<Vec<FrontierPoint>>,
}

impl Answer {
    /// The reason, where it is one of the words of this program.
    pub fn known_reason(&self) -> Option<Reason> {
        self.reason.as_ref().and_then(WireWord::known)
    }

    /// The answer as one of `reason`.
    pub fn set_reason(&mut self, reason: Reason) {
        self.reason = Some(reason.into());
    }

    /// The answer without any judgement: devices were assumed, and whether it fits was not asked.
    pub fn withdraw_verdict(&mut self) {
        (self.verdict, self.reason) = (None, None);
        self.short_by_bytes = Shortfall::NotJudged;

        for share in self
            .placement
            .iter_mut()
            .flat_map(|placement| &mut placement.devices)
        {
            share.short_by_bytes = None;
        }
    }
}

/// Writes the keys of a lease in alphabetical order, as clients of schema version 1 receive them.
fn with_sorted_keys<S: Serializer>(
    lease: &Option<LeaseAnswer>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serde_json::to_value(lease)
        .map_err(S::Error::custom)?
        .serialize(serializer)
}

/// Bytes that are short of what is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shortfall {
    /// Whether it fits was not asked; the key is absent.
    #[default]
    NotJudged,
    /// It cannot be told; `null`.
    Unknown,
    /// So many bytes are short; 0 when it fits.
    Bytes(u64),
}

impl Shortfall {
    /// Whether the key is absent.
    pub fn is_not_judged(&self) -> bool {
        *self == Self::NotJudged
    }
}

impl Serialize for Shortfall {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bytes(bytes) => serializer.serialize_some(bytes),
            Self::NotJudged | Self::Unknown => serializer.serialize_none(),
        }
    }
}

impl<'de> Deserialize<'de> for Shortfall {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Unknown, Self::Bytes))
    }
}

/// The model, as it was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ModelAnswer {
    /// `owner/name`, or the path.
    pub repo: String,
    /// The revision asked for.
    pub revision: Option<String>,
    /// The commit that it stands for.
    pub commit: Option<String>,
    /// The one file asked for or chosen.
    pub file: Option<String>,
    /// `safetensors`, `gguf`, `diffusers`, `pytorch_bin`.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub format: Option<WireWord<Format>>,
    /// The class or GGUF architecture.
    pub architecture: Option<String>,
    /// Logical parameters.
    pub parameters: Option<u64>,
    /// Stored bytes of the weights.
    pub weights_bytes: Option<u64>,
    /// Stored bytes by dtype.
    pub weights_by_dtype_bytes: BTreeMap<String, u64>,
    /// Stored bytes by component of a pipeline (empty for single models).
    pub weights_by_component_bytes: BTreeMap<String, u64>,
    /// Stored bytes of routed experts, for a mixture of experts.
    pub expert_weights_bytes: Option<u64>,
    /// Quantisation method.
    pub quantization: Option<String>,
    /// Longest context that the model is configured for.
    pub max_context: Option<u64>,
    /// Files that hold the weights.
    pub weight_files: Option<u32>,
    /// The adapter that was asked for; all other figures are of its base model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterAnswer>,
}

impl Word for Format {
    const ALL: &'static [Self] = &[
        Self::Safetensors,
        Self::Gguf,
        Self::Diffusers,
        Self::PytorchBin,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Gguf => "gguf",
            Self::Diffusers => "diffusers",
            Self::PytorchBin => "pytorch_bin",
        }
    }
}

/// An adapter and the model that it changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AdapterAnswer {
    /// The base model's `owner/name` or path.
    pub base_repo: String,
    /// The commit of the base model.
    pub base_commit: Option<String>,
    /// `lora`, `loha`, `ia3`, ...
    pub method: String,
    /// The largest rank of its matrices.
    pub rank: Option<u64>,
    /// Stored bytes of its own tensors.
    pub stored_bytes: u64,
}

/// The engine in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EngineAnswer {
    /// Its name.
    pub name: String,
    /// The profile in force.
    pub profile: String,
    /// Parameters that entered the figures.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub parameters: BTreeMap<String, Value>,
}

/// The workload in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkloadAnswer {
    /// Tokens of one sequence.
    pub context: u64,
    /// Where the context comes from: `asked`, `model_maximum`, `engine_default`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub context_from: WireWord<ContextSource>,
    /// Sequences held at once.
    pub sequences: u64,
    /// dtype of the cache after `auto`.
    pub kv_cache_dtype: String,
}

words! {
    /// Where a context length comes from.
    pub enum ContextSource {
        /// The question names it.
        Asked = "asked",
        /// The question asks for the model's maximum.
        ModelMaximum = "model_maximum",
        /// The engine's default.
        EngineDefault = "engine_default",
    }
}

/// Bytes by component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Requirement {
    /// The sum over devices; `null` where a part of it is unknown.
    pub total: Option<IntervalAnswer>,
    /// Its parts.
    pub components: Vec<ComponentAnswer>,
    /// The cache's own figures.
    pub kv_cache: KvCacheAnswer,
}

/// Low, likely and high bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IntervalAnswer {
    /// The least that was or could be seen.
    pub low_bytes: u64,
    /// The best single figure.
    pub likely_bytes: u64,
    /// The most; what "fits" is judged by.
    pub high_bytes: u64,
}

/// One component of a requirement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ComponentAnswer {
    /// What the bytes are for.
    pub name: ComponentName,
    /// The least that was or could be seen.
    pub low_bytes: u64,
    /// The best single figure.
    pub likely_bytes: u64,
    /// The most.
    pub high_bytes: u64,
    /// On what the figure rests.
    pub basis: Basis,
    /// How it came about.
    pub detail: String,
}

/// The cache's own figures, logical and unsharded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KvCacheAnswer {
    /// Bytes of one more token.
    pub bytes_per_token: u64,
    /// Bytes of recurrent state a sequence.
    pub state_bytes_per_sequence: u64,
    /// Its dtype after `auto`.
    pub dtype: String,
}

/// Where a model goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PlacementAnswer {
    /// `single`, `tensor_parallel`, `pipeline_parallel`, `tensor_pipeline_parallel`, `layer_split`,
    /// `expert_offload`, `layer_offload`, `component_offload`, `leaf_offload`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub strategy: WireWord<Strategy>,
    /// Tensor-parallel degree.
    pub tensor_parallel: u32,
    /// Pipeline stages.
    pub pipeline_parallel: u32,
    /// The devices, one for each rank.
    pub devices: Vec<DeviceShare>,
    /// Host memory that it takes, where it takes any worth a line.
    pub host: Option<HostShare>,
    /// Largest context at one sequence that fits this way; `null` where nothing grows with the
    /// context.
    pub max_context: Option<u64>,
    /// Sequences at the context in force that fit this way.
    pub max_sequences: Option<u64>,
    /// Tokens that the cache is expected to hold once the engine is started by `launch` ("GPU KV
    /// cache size" in vLLM's log); `null` unless a share of the device was asked for
    /// (`gpu_memory_utilization`, `mem_fraction_static`), and where it does not fit.
    #[serde(default)]
    pub kv_cache_tokens: Option<u64>,
    /// Tokens that the cache holds at the least, likewise.
    #[serde(default)]
    pub kv_cache_low_tokens: Option<u64>,
    /// Sequences of the context in force that the cache is expected to hold at once, to a hundredth
    /// ("Maximum concurrency" in vLLM's log); `null` as `kv_cache_tokens`.
    #[serde(default)]
    pub max_concurrency: Option<f64>,
    /// The launch line.
    pub launch: Option<LaunchAnswer>,
}

/// One device's share of a placement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceShare {
    /// Its UUID.
    pub uuid: String,
    /// The driver's index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// All its memory.
    pub total_bytes: u64,
    /// Bytes nobody has allocated.
    pub free_bytes: Option<u64>,
    /// Bytes that leases still claim.
    pub leased_bytes: u64,
    /// Bytes that can be given now.
    pub available_bytes: Option<u64>,
    /// Bytes that this model needs here: the high end that "fits" is judged by.
    pub required_bytes: u64,
    /// Bytes missing here; 0 where it fits, absent where there is no verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short_by_bytes: Option<u64>,
    /// Bytes the engine will really take when started by the launch line, where that is more than
    /// it needs.
    pub takes_bytes: Option<u64>,
    /// First layer and the one after the last.
    pub layers: (u32, u32),
    /// Parts of the need.
    pub components: Vec<ComponentAnswer>,
}

/// Host memory of a placement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostShare {
    /// Bytes available on the host; `null` where not read.
    pub available_bytes: Option<u64>,
    /// Bytes needed there.
    pub required_bytes: u64,
    /// Parts of the need.
    pub components: Vec<ComponentAnswer>,
}

/// A launch line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LaunchAnswer {
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Command and arguments.
    pub args: Vec<String>,
}

/// Another way to place the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Alternative {
    /// As in [`PlacementAnswer`].
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub strategy: WireWord<Strategy>,
    /// Tensor-parallel degree.
    pub tensor_parallel: u32,
    /// Pipeline stages.
    pub pipeline_parallel: u32,
    /// UUIDs of its devices.
    pub devices: Vec<String>,
    /// Whether it fits.
    pub verdict: Verdict,
    /// Why it was not recommended, or not possible.
    pub reason: String,
    /// Bytes that are short.
    pub short_by_bytes: Option<u64>,
}

/// A change that would help.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Suggestion {
    /// `context=32768`, `kv_cache_dtype=fp8`, `stop pid 4121`, ...
    pub change: String,
    /// A sentence for a person.
    pub message: String,
    /// What it leads to; computed, never guessed.
    pub verdict: Verdict,
    /// Bytes that it saves, summed over devices.
    pub saves_bytes: u64,
}

/// A point of the frontier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FrontierPoint {
    /// Sequences held at once.
    pub sequences: u64,
    /// Largest context of each that fits.
    pub context: u64,
}
