//! Inference engines: the memory of a model by component, the legal splits, and the launch line.
//!
//! Each engine is one file or folder and implements [`Engine`]. Constants are data in the profiles
//! (TOML); formulas are code, each with its source. One answer asks an engine thousands of times,
//! so an engine is first [prepared](Engine::prepare) for one model on one kind of device.

pub(crate) mod architectures;
pub mod companions;
pub mod component;
mod compute_dtype;
pub mod ctranslate2;
pub mod diffusers;
mod error;
pub mod layer_weights;
pub mod llama_cpp;
pub mod logical;
pub mod lora;
pub mod memory_rule;
pub mod ollama;
mod prepare;
pub mod profile;
pub mod reference;
pub mod registry;
pub mod releases;
#[cfg(test)]
pub(crate) mod sample;
pub mod sglang;
pub mod share;
pub mod shared;
mod split;
pub mod transformers;
mod unverified;
pub mod verified;
mod version;
pub mod vllm;

use std::collections::BTreeMap;

use serde_json::Value;

pub use component::{Basis, Component, ComponentName, Interval};
pub use error::{EngineError, nearest_name};
pub use prepare::prepare;
pub use registry::{Engines, by_name};
pub use share::{CacheCapacity, Share};
pub use split::{IllegalSplit, Offload, Split};
pub use version::{EngineSpec, EngineVersion, InvalidVersion};

use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::model::{Adapter, Model};

/// An inference engine.
///
/// No method has a default, for the same reason as in [`PreparedEngine`].
pub trait Engine: Send + Sync {
    /// The engine's name as `--engine` takes it: `vllm`, `sglang`, `llama.cpp`, `ollama`,
    /// `transformers`, `diffusers`, `ctranslate2`, `reference`.
    fn name(&self) -> &'static str;

    /// The default context, for an engine that derives it from all devices of the host.
    ///
    /// Other engines look only at the devices that hold the model and return `None`. So does this
    /// engine if `parameters` set a context.
    fn context_by_host(
        &self,
        model: &Model,
        parameters: &BTreeMap<String, Value>,
        devices: &[&DeviceFacts],
    ) -> Option<u64>;

    /// Whether a user can run the engine: false for the logical reference.
    fn is_runnable(&self) -> bool;

    /// This engine with a user's constants (`[profiles.NAME]`, see
    /// [`profile::Profiles::overridden`]) over the embedded ones; `None` if the engine has no
    /// profiles.
    fn with_constants(
        &self,
        constants: &toml::Table,
    ) -> Result<Option<Box<dyn Engine>>, EngineError>;

    /// Settles parameters and workload for `request` and precomputes what does not depend on the
    /// split.
    fn prepare<'a>(
        &self,
        request: &EngineRequest<'a>,
    ) -> Result<Box<dyn PreparedEngine + 'a>, EngineError>;

    /// Prepares the engine with `adapter` loaded along with the request's model; see [`lora`].
    fn prepare_with_adapter<'a>(
        &self,
        request: &EngineRequest<'a>,
        adapter: &'a Adapter,
    ) -> Result<Box<dyn PreparedEngine + 'a>, EngineError>;

    /// Prepares the engine with `draft`, which proposes tokens for the request's model; see
    /// [`companions`].
    fn prepare_with_draft<'a>(
        &self,
        request: &EngineRequest<'a>,
        draft: &'a Model,
    ) -> Result<Box<dyn PreparedEngine + 'a>, EngineError>;
}

/// The model, settings and devices that an engine is prepared for.
#[derive(Clone, Debug)]
pub struct EngineRequest<'a> {
    /// The model.
    pub model: &'a Model,
    /// The requested version. An engine takes the profile that covers it; without a version, the
    /// newest.
    pub version: Option<&'a EngineVersion>,
    /// Parameters by the engine's own names.
    pub parameters: &'a BTreeMap<String, Value>,
    /// The requested workload; the engine's defaults fill absent fields.
    pub asked: AskedWorkload,
    /// The engine's devices, the first rank's first. Defaults by GPU follow from them. Never empty.
    pub devices: &'a [DeviceFacts],
}

/// The requested workload; `None` leaves a field to the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AskedWorkload {
    /// Tokens of one sequence.
    pub context: Option<AskedContext>,
    /// Sequences held at once.
    pub sequences: Option<u64>,
    /// dtype of the KV cache by the engine's own name.
    pub kv_cache_dtype: Option<String>,
    /// dtype that weights are cast to, by the engine's own name.
    pub dtype: Option<String>,
}

/// A requested context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedContext {
    /// This many tokens.
    Tokens(u64),
    /// The model's maximum.
    Max,
}

/// The tokens and sequences that must fit at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Tokens of one sequence.
    pub context: u64,
    /// Sequences held at once.
    pub sequences: u64,
}

/// An engine prepared for one model on one kind of device.
///
/// No method has a default, because wrappers ([`lora`], Ollama's) implement this trait. The
/// compiler then finds every method that a wrapper does not forward.
pub trait PreparedEngine {
    /// The name of the active profile, such as `0.33`.
    fn profile(&self) -> &str;

    /// Every parameter that entered the figures, by the engine's own name, defaults included.
    fn parameters(&self) -> BTreeMap<String, Value>;

    /// The workload with the engine's defaults filled in.
    fn workload(&self) -> Workload;

    /// The resolved dtype of the KV cache (never `auto`), by the engine's own name.
    fn kv_cache_dtype(&self) -> String;

    /// Logical cache bytes of one more token at the effective context, unsharded; 0 for models
    /// without a cache.
    fn kv_bytes_per_token(&self) -> Bytes;

    /// Bytes of one sequence's fixed state, unsharded; 0 for models without recurrent layers.
    fn state_bytes_per_sequence(&self) -> Bytes;

    /// The assumptions of the figures beyond the request, a sentence each, for the answer's
    /// `assumptions`.
    fn assumptions(&self) -> Vec<String>;

    /// Doubts about the figures as a whole, a sentence each, for the answer's `warnings`.
    fn warnings(&self) -> Vec<String>;

    /// The splits of this model over exactly `devices` devices, cheapest first, or why there is
    /// none.
    ///
    /// Shares are equal unless [`PreparedEngine::uneven`] is true.
    fn splits(&self, devices: u32) -> Result<Vec<Split>, IllegalSplit>;

    /// Checks that `split` is legal, or returns why not.
    fn check(&self, split: &Split) -> Result<(), IllegalSplit>;

    /// Whether stages can hold any number of layers, so that unequal devices can be filled (layer
    /// split).
    fn uneven(&self) -> bool;

    /// Whether a parameter moves weights to host memory whatever the split.
    ///
    /// The size of host memory must then be known.
    fn moves_to_host(&self) -> bool;

    /// Whether every rank is a process of its own.
    ///
    /// Stages then work on a sequence one after another, while a tensor group works on it at once.
    /// Otherwise one process walks its devices layer by layer.
    fn ranks_are_processes(&self) -> bool;

    /// The least context that the engine shrinks its default to if the default does not fit.
    ///
    /// `None` if the default is fixed, or if a parameter sets the context.
    fn least_default_context(&self) -> Option<u64>;

    /// Whether this device can run the model's dtype and quantization: a veto, or a warning with
    /// the cost.
    fn device_fitness(&self, device: &DeviceFacts) -> DeviceSupport;

    /// The components of `rank` on `device` that no workload changes: weights, workspaces, graphs,
    /// context.
    ///
    /// Here and in [`PreparedEngine::variable`] the bytes depend on three things only: the degrees
    /// of `split`, its offload, and the rank's own stage. The cut of the other stages does not
    /// matter. The rank's place in its tensor group matters only under expert parallelism. A search
    /// caches results by these.
    fn fixed(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
    ) -> Result<Vec<Component>, EngineError>;

    /// The components of `rank` that `workload` adds: cache, states, buffers that grow with the
    /// context.
    fn variable(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
        workload: Workload,
    ) -> Result<Vec<Component>, EngineError>;

    /// The sum of [`PreparedEngine::fixed`] on the device.
    ///
    /// A search calls this thousands of times. An engine that formats text for its components
    /// computes the sum here without that text.
    fn fixed_sum(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
    ) -> Result<Interval, EngineError>;

    /// The sum of [`PreparedEngine::variable`] on the device, likewise without text.
    fn variable_sum(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
        workload: Workload,
    ) -> Result<Interval, EngineError>;

    /// Host memory of `split`: weights kept there, and pinned buffers large enough to list.
    fn host(&self, split: &Split, workload: Workload) -> Result<Vec<Component>, EngineError>;

    /// Bytes that the engine must find available on `device` for components that sum to `sum`.
    ///
    /// This is the sum itself unless the engine keeps a margin (llama.cpp). A requested share of
    /// the device is not counted here: see [`PreparedEngine::share`]. `split` shows how many
    /// processes are running before the engine reads the free memory.
    fn must_be_available(&self, split: &Split, device: &DeviceFacts, sum: Interval) -> Interval;

    /// The share of `device` that a parameter reserves for `rank`.
    ///
    /// The engine takes exactly that share, whatever it needs.
    fn share(&self, split: &Split, rank: usize, device: &DeviceFacts) -> Option<Share>;

    /// The cache of the engine when [`PreparedEngine::launch`] starts it for `plan` in a requested
    /// share.
    ///
    /// `None` without such a share, and for a model without a cache.
    fn capacity(&self, plan: &LaunchPlan<'_>) -> Result<Option<CacheCapacity>, EngineError>;

    /// Environment and arguments that make the engine take what the answer says.
    fn launch(&self, plan: &LaunchPlan<'_>) -> Launch;
}

/// The split, workload and devices that a launch line is for.
#[derive(Clone, Debug)]
pub struct LaunchPlan<'a> {
    /// The split.
    pub split: &'a Split,
    /// The workload that fits.
    pub workload: Workload,
    /// The devices, one for each rank.
    pub devices: &'a [LaunchDevice<'a>],
}

/// The device of a rank in a launch plan.
#[derive(Clone, Copy, Debug)]
pub struct LaunchDevice<'a> {
    /// Its facts.
    pub facts: &'a DeviceFacts,
    /// Bytes that the engine can take on it now.
    pub available: Bytes,
    /// Bytes that it needs by the figures (the interval's high end).
    pub required: Bytes,
    /// Free bytes by the driver, leases not subtracted; `None` if not read.
    pub free: Option<Bytes>,
}

/// Environment and arguments of a launch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launch {
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// The command and its arguments.
    pub args: Vec<String>,
    /// Bytes that the engine takes on each device when it starts so; `None` if they equal the need.
    pub takes: Vec<Option<Bytes>>,
}

/// Whether a device can run a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceSupport {
    /// It can.
    Able,
    /// It can, at this cost.
    Degraded(String),
    /// It cannot, for this reason.
    Unable(String),
}
