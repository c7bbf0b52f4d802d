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
mod draft;
mod dtypes;
mod flags;
mod launch;
mod legal;
mod loadable;
mod lora;
mod overhead;
mod paged_kind;
mod persistent;
mod pooling;
mod prepared;
mod refusal;
mod rope_rows;
mod settings;
mod speculation;
mod start_up_log;
mod state_mode;
mod step_limits;
mod weights;
mod workload;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};

use cache::CachePages;
use constants::Constants;
use draft::VllmDraft;
pub use loadable::serves;
use loadable::{check_model, check_online_method};
use refusal::{ENGINE, unsupported};
use serde_json::Value;
use settings::VllmSettings;
use speculation::SpeculationMethod;
pub use speculation::counts_speculation;
pub use start_up_log::StartUpLog;
pub use state_mode::StateMode;

use super::lora::{AdapterMemory, WithAdapter};
use super::profile::{ProfileError, Profiles};
use super::shared::cache::CacheLayers;
use super::shared::layer_kinds::LayerKinds;
use super::shared::weights::{Classes, WeightTable};
use super::{AskedWorkload, Engine, EngineError, EngineRequest, PreparedEngine, architectures};
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

        VllmPrepared::new(request.model, request, &profile.name, constants)
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

    fn prepare_with_draft<'a>(
        &self,
        request: &EngineRequest<'a>,
        draft: &'a Model,
    ) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
        let prepared = Self::prepare(self, request)?;
        Ok(Box::new(prepared.with_draft(request, draft)?))
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
    /// The draft that proposes the model's tokens, if the request names one.
    draft: Option<VllmDraft<'a>>,
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
        model: &'a Model,
        request: &EngineRequest<'_>,
        profile: &str,
        constants: Constants,
    ) -> Result<Self, EngineError> {
        check_model(model, request.version)?;
        check_online_method(request)?;

        let architecture = model
            .architecture
            .as_ref()
            .map_err(|why| unsupported(why.to_string()))?;
        let settings = VllmSettings::resolve(request, architecture, &constants)?;
        let drafts = own_predictors(&settings, architecture);

        Ok(Self {
            classes: Classes::new(
                &model.inventory,
                architecture.tied_embeddings,
                settings.task,
            ),
            details: ComponentDetails::new(model, &settings),
            model,
            architecture,
            profile: profile.to_owned(),
            constants,
            draft: None,
            settings,
            layers: CacheLayers::new(architecture, drafts),
            kinds: LayerKinds::new(&architecture.layers),
            weights: Mutex::default(),
            pages: Mutex::default(),
        })
    }

    /// Adds `draft`, which runs with the settings of this model.
    fn with_draft(
        mut self,
        request: &EngineRequest<'_>,
        draft: &'a Model,
    ) -> Result<Self, EngineError> {
        let Some(speculation) = self.settings.speculation else {
            return Err(unsupported("a draft is named without speculative decoding"));
        };

        let settings = &self.settings;
        let mut parameters = BTreeMap::from([
            ("dtype".to_owned(), settings.compute.name().into()),
            ("max_num_seqs".to_owned(), settings.max_sequences.into()),
            (
                "max_num_batched_tokens".to_owned(),
                settings.batched_tokens.into(),
            ),
            ("enforce_eager".to_owned(), settings.eager.into()),
        ]);
        if let Some(block) = settings.block_tokens {
            parameters.insert("block_size".to_owned(), block.into());
        }

        let draft_request = EngineRequest {
            model: draft,
            version: request.version,
            parameters: &parameters,
            asked: AskedWorkload {
                kv_cache_dtype: Some(settings.kv_name.clone()),
                dtype: None,
                context: None,
                sequences: request.asked.sequences,
            },
            devices: request.devices,
        };

        let prepared = Self::new(draft, &draft_request, &self.profile, self.constants);
        let prepared = prepared.map_err(|error| named_draft(draft, error))?;
        // The tables of a release hold the classes that serve a model, not EAGLE's heads.
        if speculation.method == SpeculationMethod::DraftModel {
            let found = architectures::check(ENGINE, request.version, prepared.architecture);
            let warning = found.map_err(|error| named_draft(draft, error))?;
            self.settings.assumptions.extend(warning);
        }

        let joined = VllmDraft::new(prepared, &self, speculation)?;
        self.layers = CacheLayers::with_draft(
            self.architecture,
            self.drafts(),
            &joined.prepared().architecture.layers,
        );
        self.details.cache.push_str(", with those of the draft");
        self.draft = Some(joined);

        Ok(self)
    }
}

/// Layers of the model's own predictor that speculative decoding loads.
fn own_predictors(settings: &VllmSettings, architecture: &Architecture) -> u32 {
    match settings.speculation {
        Some(speculation) if speculation.method == SpeculationMethod::OwnLayers => {
            architecture.mtp_layers
        }
        _ => 0,
    }
}

/// Says that `error` is about the draft.
fn named_draft(draft: &Model, error: EngineError) -> EngineError {
    match error {
        EngineError::Unsupported { why, .. } => {
            unsupported(format!("the draft {}: {why}", draft.identity.repo))
        }
        other => unsupported(format!("the draft {}: {other}", draft.identity.repo)),
    }
}

#[cfg(test)]
mod family_tests;
#[cfg(test)]
mod looped_tests;
#[cfg(test)]
mod tests;
