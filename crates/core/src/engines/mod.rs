//! What an engine makes of a model: bytes by component for a given split, which splits are legal,
//! and the launch line.
//!
//! One file or folder for each engine, behind the one seam [`Engine`]; constants live in the
//! profiles (TOML), formulas in the code, each with its source. Planning calls an engine thousands
//! of times for one answer, so an engine is first [prepared](Engine::prepare) for one model on one
//! kind of device, and answers from that.

pub mod component;
pub mod diffusers;
mod error;
pub mod layer_weights;
pub mod llama_cpp;
pub mod logical;
pub mod lora;
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

/// One inference engine at a version range. No method has a default, for the same reason as in
/// [`PreparedEngine`].
pub trait Engine: Send + Sync {
    /// The engine's name as `--engine` takes it: `vllm`, `sglang`, `llama.cpp`, `ollama`,
    /// `transformers`, `diffusers`, `reference`.
    fn name(&self) -> &'static str;

    /// The context that the engine takes by itself where it follows from all devices of the host,
    /// not only from those that the model goes on; `None` where it does not, or where `parameters`
    /// give one.
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
}

/// What an engine is prepared for.
#[derive(Clone, Debug)]
pub struct EngineRequest<'a> {
    /// The model.
    pub model: &'a Model,
    /// The version, if one was asked for: engines take the profile whose range holds it, or else
    /// the newest.
    pub version: Option<&'a EngineVersion>,
    /// Parameters by the engine's own names.
    pub parameters: &'a BTreeMap<String, Value>,
    /// What was asked for; absent fields take the engine's default.
    pub asked: AskedWorkload,
    /// The devices that the engine would be given, the first one first. Defaults by GPU follow
    /// them. Never empty.
    pub devices: &'a [DeviceFacts],
}

/// The workload as asked; `None` leaves it to the engine.
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

/// A context as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedContext {
    /// This many tokens.
    Tokens(u64),
    /// The model's maximum.
    Max,
}

/// What must be held at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Tokens of one sequence.
    pub context: u64,
    /// Sequences held at once.
    pub sequences: u64,
}

/// An engine ready to answer for one model on one kind of device.
///
/// Wrappers ([`lora`], Ollama's) implement this trait, so no method has a default: the compiler
/// then finds every method that a wrapper does not forward.
pub trait PreparedEngine {
    /// The profile in force, such as `0.33`.
    fn profile(&self) -> &str;

    /// Every parameter that entered the figures, by the engine's own name, defaults included.
    fn parameters(&self) -> BTreeMap<String, Value>;

    /// The workload with the engine's defaults filled in.
    fn workload(&self) -> Workload;

    /// The dtype of the KV cache after `auto`, by the engine's own name.
    fn kv_cache_dtype(&self) -> String;

    /// Logical cache bytes of one more token at the settled context, unsharded: 0 for models
    /// without a cache.
    fn kv_bytes_per_token(&self) -> Bytes;

    /// Fixed state of one sequence, unsharded: 0 for models without recurrent layers.
    fn state_bytes_per_sequence(&self) -> Bytes;

    /// What the figures rest on that was not asked for, a sentence each, for the answer's
    /// `assumptions`.
    fn assumptions(&self) -> Vec<String>;

    /// Doubts about the figures as a whole, a sentence each, for the answer's `warnings`.
    fn warnings(&self) -> Vec<String>;

    /// The splits that this engine can make of this model over `devices` devices (all of them
    /// used), cheapest first; equal shares unless [`PreparedEngine::uneven`] says otherwise. Or why
    /// there is none.
    fn splits(&self, devices: u32) -> Result<Vec<Split>, IllegalSplit>;

    /// Whether `split` is legal, and if not, why.
    fn check(&self, split: &Split) -> Result<(), IllegalSplit>;

    /// Whether stages may be given any number of layers, so that unequal devices can be filled
    /// (layer split).
    fn uneven(&self) -> bool;

    /// Whether a parameter that was asked for moves weights to host memory, whatever the split:
    /// then it must be known how much there is.
    fn moves_to_host(&self) -> bool;

    /// Whether every rank is a process of its own, so that stages work one after another on a
    /// sequence while a tensor group works on it at once; otherwise one process walks its devices
    /// layer by layer.
    fn ranks_are_processes(&self) -> bool;

    /// Whether this device can run the model's dtype and quantisation: a veto, or a warning of what
    /// it costs.
    fn device_fitness(&self, device: &DeviceFacts) -> DeviceSupport;

    /// What `rank` of `split` holds on `device` whatever the workload: weights, workspaces, graphs,
    /// context.
    ///
    /// Here and in [`PreparedEngine::variable`] the bytes follow from the degrees of `split`, what
    /// it keeps on the host and the rank's own stage, not from how the other stages are cut; of its
    /// tensor group the rank's place counts only under expert parallelism. A search remembers what
    /// it was told by these.
    fn fixed(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
    ) -> Result<Vec<Component>, EngineError>;

    /// What `rank` holds besides for `workload`: cache, states, buffers that grow with the context.
    fn variable(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
        workload: Workload,
    ) -> Result<Vec<Component>, EngineError>;

    /// The sum of [`PreparedEngine::fixed`] on the device. A search asks for it thousands of times:
    /// an engine whose components carry text that must be written anew answers here without it.
    fn fixed_sum(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
    ) -> Result<Interval, EngineError>;

    /// The sum of [`PreparedEngine::variable`] on the device, likewise.
    fn variable_sum(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
        workload: Workload,
    ) -> Result<Interval, EngineError>;

    /// Host memory that `split` takes (weights kept there, pinned buffers), where it is worth a
    /// line.
    fn host(&self, split: &Split, workload: Workload) -> Result<Vec<Component>, EngineError>;

    /// Bytes the engine must find available on `device` for components that sum to `sum`: the sum
    /// itself, unless the engine keeps a margin (llama.cpp). A share that the asker gave it is not
    /// counted here: see [`PreparedEngine::share`]. `split` tells how many processes have been
    /// joined before the engine looks.
    fn must_be_available(&self, split: &Split, device: &DeviceFacts, sum: Interval) -> Interval;

    /// The share of `device` that the asker gave `rank`, where a parameter does so; the engine then
    /// takes all of it, whatever it needs, and no more.
    fn share(&self, split: &Split, rank: usize, device: &DeviceFacts) -> Option<Share>;

    /// The cache that the engine has when it is started by [`PreparedEngine::launch`] for `plan` in
    /// a share that the asker gave it; `None` without such a share, and for a model without a
    /// cache.
    fn capacity(&self, plan: &LaunchPlan<'_>) -> Result<Option<CacheCapacity>, EngineError>;

    /// Environment and arguments that make the engine take what was answered.
    fn launch(&self, plan: &LaunchPlan<'_>) -> Launch;
}

/// What a launch line is written for.
#[derive(Clone, Debug)]
pub struct LaunchPlan<'a> {
    /// The split.
    pub split: &'a Split,
    /// The workload that was found to fit.
    pub workload: Workload,
    /// The devices, one for each rank.
    pub devices: &'a [LaunchDevice<'a>],
}

/// One rank's device in a launch plan.
#[derive(Clone, Copy, Debug)]
pub struct LaunchDevice<'a> {
    /// Its facts.
    pub facts: &'a DeviceFacts,
    /// Bytes that the engine may take on it now.
    pub available: Bytes,
    /// Bytes that the figures say it needs (the interval's high end).
    pub required: Bytes,
    /// Bytes free on it by the driver, leases not subtracted, where read.
    pub free: Option<Bytes>,
}

/// Environment and arguments of a launch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launch {
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// The command and its arguments.
    pub args: Vec<String>,
    /// Bytes the engine will really take on each device when started so, where that differs from
    /// the need.
    pub takes: Vec<Option<Bytes>>,
}

/// Whether a device can run a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceSupport {
    /// It can.
    Able,
    /// It can, at a cost that is said.
    Degraded(String),
    /// It cannot, and why.
    Unable(String),
}
