//! vLLM: a paged KV cache, a share of the device that vLLM takes at start, and a profile run whose
//! peak bounds the rest.
//!
//! [`settings`] resolves the parameters, [`loadable`] and [`legal`] check models and splits.
//! [`weights`], [`cache_bytes`], [`activations`] and [`overhead`] compute the bytes, and [`launch`]
//! writes the command line.

mod activations;
mod adapter;
pub mod cache;
mod cache_bytes;
mod capacity;
pub mod checkpoints;
mod compressed;
mod constants;
pub mod device_support;
mod dtypes;
mod flags;
mod launch;
mod legal;
mod loadable;
mod lora;
mod overhead;
mod paged_kind;
mod persistent;
mod prepared;
mod refusal;
mod rope_rows;
mod settings;
mod start_up_log;
mod state_mode;
mod step_limits;
mod weights;
mod workload;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};

use cache::CachePages;
use constants::Constants;
pub use loadable::serves;
use loadable::{check_model, check_online_method};
use refusal::{ENGINE, unsupported};
use serde_json::Value;
use settings::VllmSettings;
pub use start_up_log::StartUpLog;
pub use state_mode::StateMode;

use super::lora::{AdapterMemory, WithAdapter};
use super::profile::{Profile, ProfileError, Profiles};
use super::shared::cache::CacheLayers;
use super::shared::layer_kinds::LayerKinds;
use super::shared::weights::{Classes, WeightTable};
use super::{Engine, EngineError, EngineRequest, PreparedEngine};
use crate::device::DeviceFacts;
use crate::model::architecture::Architecture;
use crate::model::{Adapter, Model};

/// vLLM with its profiles.
#[derive(Clone, Debug)]
pub struct Vllm {
    profiles: Profiles,
    /// The constants of the newest profile, which most requests use; read once.
    newest: Option<Constants>,
}

/// The embedded profiles.
static PROFILES: LazyLock<Result<Profiles, ProfileError>> =
    LazyLock::new(|| Profiles::parse(include_str!("../profiles/vllm.toml")));

impl Vllm {
    /// Returns the embedded profiles: the text of `profiles.toml`, and the base of your overrides.
    pub fn profiles() -> Result<Profiles, ProfileError> {
        PROFILES.clone()
    }

    /// vLLM with `profiles` in place of the embedded ones.
    pub fn with_profiles(profiles: Profiles) -> Self {
        let newest = profiles
            .for_version(None)
            .ok()
            .and_then(|profile| Constants::read(profile).ok());
        Self { profiles, newest }
    }

    /// Prepares vLLM for one request; like [`Engine::prepare`], with vLLM's own type.
    pub fn prepare<'a>(
        &self,
        request: &EngineRequest<'a>,
    ) -> Result<VllmPrepared<'a>, EngineError> {
        let profile = self
            .profiles
            .for_version(request.version)
            .map_err(|error| profile_error(&error))?;
        let constants = match self.newest.filter(|_| request.version.is_none()) {
            Some(constants) => constants,
            None => Constants::read(profile).map_err(|error| profile_error(&error))?,
        };

        VllmPrepared::new(request, profile, constants)
    }
}

impl Engine for Vllm {
    fn name(&self) -> &'static str {
        ENGINE
    }

    fn context_by_host(
        &self,
        _model: &Model,
        _parameters: &BTreeMap<String, Value>,
        _devices: &[&DeviceFacts],
    ) -> Option<u64> {
        None
    }

    fn is_runnable(&self) -> bool {
        true
    }

    fn with_constants(
        &self,
        constants: &toml::Table,
    ) -> Result<Option<Box<dyn Engine>>, EngineError> {
        let profiles = Self::profiles().and_then(|profiles| profiles.overridden(constants));
        let profiles = profiles.map_err(|error| profile_error(&error))?;

        Ok(Some(Box::new(Self::with_profiles(profiles))))
    }

    fn prepare<'a>(
        &self,
        request: &EngineRequest<'a>,
    ) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
        Ok(Box::new(Self::prepare(self, request)?))
    }

    fn prepare_with_adapter<'a>(
        &self,
        request: &EngineRequest<'a>,
        lora: &'a Adapter,
    ) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
        let prepared = Engine::prepare(self, request)?;
        adapter::check(lora, &prepared.parameters())?;

        Ok(Box::new(WithAdapter::new(
            prepared,
            request,
            lora,
            AdapterMemory::InSlots,
        )))
    }
}

/// The error for a profile that cannot be used.
pub(in crate::engines) fn profile_error(error: &ProfileError) -> EngineError {
    EngineError::BadParameter {
        engine: ENGINE,
        name: "profile".to_owned(),
        value: String::new(),
        why: error.to_string(),
    }
}

/// The details of the components that depend on the model and the settings, formatted once.
#[derive(Clone, Debug)]
struct ComponentDetails {
    weights: String,
    activations: String,
    cache: String,
}

impl ComponentDetails {
    fn new(model: &Model, settings: &VllmSettings) -> Self {
        let compute = settings.compute.name();
        let stored = model
            .architecture
            .as_ref()
            .ok()
            .and_then(|known| known.quantization.as_ref());

        let online = settings
            .online_name
            .as_deref()
            .filter(|_| settings.online.is_some());
        let dtypes = match online.or(stored.map(|quantization| &*quantization.method)) {
            Some(method) => format!("{method}, the rest as {compute}"),
            None => compute.to_owned(),
        };

        Self {
            weights: format!(
                "{} tensors in {} files, as {dtypes}",
                model.inventory.tensors(),
                model.weight_files
            ),
            activations: format!(
                "a step of {} tokens, {} sequences sampled",
                settings.batched_tokens, settings.max_sequences
            ),
            cache: format!("keys and values as {}, in blocks", settings.kv_name),
        }
    }
}

/// vLLM ready to answer for one model.
#[derive(Debug)]
pub struct VllmPrepared<'a> {
    model: &'a Model,
    architecture: &'a Architecture,
    profile: String,
    constants: Constants,
    settings: VllmSettings,
    layers: CacheLayers,
    kinds: LayerKinds<'a>,
    classes: Classes<'a>,
    details: ComponentDetails,
    /// Weights by tensor degree and expert parallelism.
    weights: Mutex<BTreeMap<(u32, bool), Arc<WeightTable>>>,
    /// Pages by tensor degree and number of stages.
    pages: Mutex<BTreeMap<(u32, usize), Arc<CachePages>>>,
}

impl<'a> VllmPrepared<'a> {
    #[expect(
        clippy::large_types_passed_by_value,
        reason = "the value is stored, not only read"
    )]
    fn new(
        request: &EngineRequest<'a>,
        profile: &Profile,
        constants: Constants,
    ) -> Result<Self, EngineError> {
        let model = request.model;
        check_model(model, request.version)?;
        check_online_method(request)?;

        let architecture = model
            .architecture
            .as_ref()
            .map_err(|why| unsupported(why.to_string()))?;
        let settings = VllmSettings::resolve(request, architecture, &constants)?;
        let drafts = if settings.speculative_tokens > 0 {
            architecture.mtp_layers
        } else {
            0
        };

        Ok(Self {
            details: ComponentDetails::new(model, &settings),
            model,
            architecture,
            profile: profile.name.clone(),
            constants,
            settings,
            layers: CacheLayers::new(architecture, drafts),
            kinds: LayerKinds::new(&architecture.layers),
            classes: Classes::new(
                &model.inventory,
                architecture.tied_embeddings,
                architecture.task,
            ),
            weights: Mutex::default(),
            pages: Mutex::default(),
        })
    }
}

#[cfg(test)]
mod looped_tests;
#[cfg(test)]
mod tests;
