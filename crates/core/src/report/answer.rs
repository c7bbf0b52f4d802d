//! The answer. Bytes are integers in keys that end in `_bytes`. A figure that could not be read is
//! `null`, never 0.

use std::collections::BTreeMap;

use serde::ser::Error;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

pub use super::model::{AdapterAnswer, DraftAnswer, ModelAnswer, ModelTask};
pub use super::shortfall::Shortfall;
pub use super::verdict::Verdict;

use super::file::FilesAnswer;
use super::lease::LeaseAnswer;
use super::problem::Reason;
use crate::engines::{Basis, ComponentName};
use crate::report::strategy::Strategy;
use crate::wire_word::{WireWord, words};

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Answer {
    /// The version of these types.
    pub schema_version: u32,
    /// Whether it fits; `null` for an estimate without devices.
    pub verdict: Option<Verdict>,
    /// A stable word: `fits`, `insufficient_memory`, `no_legal_split`, `unsupported_architecture`,
    /// ...; `null` without a verdict.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub reason: Option<WireWord<Reason>>,
    /// One sentence for a person.
    pub message: String,
    /// The model.
    pub model: ModelAnswer,
    /// The engine; `null` if none could be chosen.
    pub engine: Option<EngineAnswer>,
    /// The workload in force.
    pub workload: Option<WorkloadAnswer>,
    /// The need, summed over the devices of the recommended split.
    pub requirement: Option<Requirement>,
    /// The recommended placement; for a "no" the one that lacks the fewest bytes.
    pub placement: Option<PlacementAnswer>,
    /// Other placements, next best first.
    pub alternatives: Vec<Alternative>,
    /// Changes that would help, least harm first; each one is computed.
    pub suggestions: Vec<Suggestion>,
    /// Bytes that are short, summed over devices; 0 if it fits, `null` if unknown, absent without a
    /// verdict.
    #[serde(default, skip_serializing_if = "Shortfall::is_not_judged")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u64>))]
    pub short_by_bytes: Shortfall,
    /// The lease, if one was requested and granted.
    #[serde(default, serialize_with = "with_sorted_keys")]
    pub lease: Option<LeaseAnswer>,
    /// The time of the device reading, RFC 3339; `null` without a reading.
    pub sampled_at: Option<String>,
    /// Whether the reading or the model's metadata is older than it should be.
    pub stale: bool,
    /// Assumptions behind the figures that the question does not state.
    pub assumptions: Vec<String>,
    /// Uncertainties and risks.
    pub warnings: Vec<String>,
    /// Every file of a repository of many GGUF models, each with its verdict, if the question names
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FilesAnswer>,
    /// The largest context for each number of sequences, if requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frontier: Option<Vec<FrontierPoint>>,
}

impl Answer {
    /// Returns the reason, if this version knows the word.
    pub fn known_reason(&self) -> Option<Reason> {
        self.reason.as_ref().and_then(WireWord::known)
    }

    /// Sets the reason.
    pub fn set_reason(&mut self, reason: Reason) {
        self.reason = Some(reason.into());
    }

    /// Removes the verdict and all that follows from it: the devices are assumed, not those of a
    /// host.
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
#[expect(clippy::ref_option, reason = "serde's signature")]
fn with_sorted_keys<S: Serializer>(
    lease: &Option<LeaseAnswer>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serde_json::to_value(lease)
        .map_err(S::Error::custom)?
        .serialize(serializer)
}

/// The engine in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EngineAnswer {
    /// The name of the engine.
    pub name: String,
    /// The profile in force.
    pub profile: String,
    /// The newest release of the engine whose figures were verified against the engine's own code
    /// or its logs; absent for an engine without versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_verified: Option<String>,
    /// Parameters that the figures depend on.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub parameters: BTreeMap<String, Value>,
}

/// The workload in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkloadAnswer {
    /// Tokens of one sequence.
    pub context: u64,
    /// The source of the context: `asked`, `model_maximum`, `engine_default`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub context_from: WireWord<ContextSource>,
    /// Sequences held at the same time.
    pub sequences: u64,
    /// The dtype of the cache, with `auto` resolved.
    pub kv_cache_dtype: String,
}

words! {
    /// The source of a context length.
    pub enum ContextSource {
        /// The question names it.
        Asked = "asked",
        /// The question requests the model's maximum.
        ModelMaximum = "model_maximum",
        /// The engine's default.
        EngineDefault = "engine_default",
    }
}

/// Bytes by component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Requirement {
    /// The sum over devices; `null` if a part is unknown.
    pub total: Option<IntervalAnswer>,
    /// The parts.
    pub components: Vec<ComponentAnswer>,
    /// The cache's own figures.
    pub kv_cache: KvCacheAnswer,
}

/// Low, likely and high bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IntervalAnswer {
    /// The lowest figure that was observed or is possible.
    pub low_bytes: u64,
    /// The best estimate.
    pub likely_bytes: u64,
    /// The highest figure; "fits" depends on it.
    pub high_bytes: u64,
}

/// One component of a requirement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ComponentAnswer {
    /// The purpose of the bytes.
    pub name: ComponentName,
    /// The lowest figure that was observed or is possible.
    pub low_bytes: u64,
    /// The best estimate.
    pub likely_bytes: u64,
    /// The highest figure.
    pub high_bytes: u64,
    /// The basis of the figure.
    pub basis: Basis,
    /// How the figure was computed.
    pub detail: String,
}

/// The cache's own figures, logical and unsharded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KvCacheAnswer {
    /// Bytes of one more token.
    pub bytes_per_token: u64,
    /// Bytes of recurrent state of a sequence.
    pub state_bytes_per_sequence: u64,
    /// Its dtype, with `auto` resolved.
    pub dtype: String,
}

/// The placement of a model.
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
    /// Host memory that it needs, if any.
    pub host: Option<HostShare>,
    /// The largest context at one sequence that fits; `null` if no need grows with the context.
    pub max_context: Option<u64>,
    /// The most sequences at the context in force that fit.
    pub max_sequences: Option<u64>,
    /// Tokens that the cache is expected to hold after a start by `launch` ("GPU KV cache size" in
    /// vLLM's log). `null` if it does not fit, or if the question sets no share of the device
    /// (`gpu_memory_utilization`, `mem_fraction_static`).
    #[serde(default)]
    pub kv_cache_tokens: Option<u64>,
    /// The fewest tokens that the cache holds; `null` as `kv_cache_tokens`.
    #[serde(default)]
    pub kv_cache_low_tokens: Option<u64>,
    /// Sequences of the context in force that the cache is expected to hold at the same time, to a
    /// hundredth ("Maximum concurrency" in vLLM's log); `null` as `kv_cache_tokens`.
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
    /// Total memory.
    pub total_bytes: u64,
    /// Unallocated bytes.
    pub free_bytes: Option<u64>,
    /// Bytes that leases still claim.
    pub leased_bytes: u64,
    /// Bytes that are available now.
    pub available_bytes: Option<u64>,
    /// Bytes that the model needs on the device: the high end, which "fits" depends on.
    pub required_bytes: u64,
    /// Bytes missing on the device; 0 if it fits, absent without a verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short_by_bytes: Option<u64>,
    /// Bytes that the engine takes when started by the launch line, if that is more than it needs.
    pub takes_bytes: Option<u64>,
    /// The first layer, and the one after the last.
    pub layers: (u32, u32),
    /// The parts of the need.
    pub components: Vec<ComponentAnswer>,
}

/// Host memory of a placement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostShare {
    /// Bytes available on the host; `null` if not read.
    pub available_bytes: Option<u64>,
    /// Bytes needed on the host.
    pub required_bytes: u64,
    /// The parts of the need.
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

/// Another placement of the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Alternative {
    /// The kind of placement, as in [`PlacementAnswer`].
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
    /// Why it is not recommended, or not possible, as a phrase.
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
    /// The verdict with the change; computed, never guessed.
    pub verdict: Verdict,
    /// Bytes that the change saves, summed over devices.
    pub saves_bytes: u64,
}

/// A point of the frontier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FrontierPoint {
    /// Sequences held at the same time.
    pub sequences: u64,
    /// The largest context of each that fits.
    pub context: u64,
}
