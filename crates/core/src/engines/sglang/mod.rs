//! SGLang: a fraction of the free memory for weights and token pool, and the remainder for
//! everything transient.
//!
//! Source: SGLang 0.5.23. [`settings`] resolves the parameters, [`pool`] sizes the caches,
//! [`reserve`] the remainder, and [`launch`] writes the command line. Weights and split rules are
//! shared with vLLM, as SGLang's layers began as vLLM's.

pub mod device_support;
mod draft;
mod launch;
mod loadable;
mod pool;
mod predictor;
mod prepared;
mod reserve;
mod settings;
mod speculation;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use draft::SglangDraft;
use loadable::check_model;
use serde_json::Value;
use settings::SglangSettings;

use super::profile::{Profile, ProfileError, Profiles};
use super::shared::cache::CacheLayers;
use super::shared::dtype::ComputeDtype;
use super::shared::shard_size::{ExpertPadding, Online, RopeRows, ShardContext};
use super::shared::weights::{Classes, Omitted, WeightTable};
use super::{Engine, EngineError, EngineRequest, PreparedEngine, Split, architectures, lora};
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::model::architecture::{Architecture, Mixer};
use crate::model::{Adapter, Dtype, Format, Model};

/// The engine's name in errors.
const ENGINE: &str = "sglang";

/// SGLang with its profiles.
#[derive(Clone, Debug)]
pub struct Sglang {
    profiles: Profiles,
}

static PROFILES: LazyLock<Result<Profiles, ProfileError>> =
    LazyLock::new(|| Profiles::parse(include_str!("../profiles/sglang.toml")));

impl Sglang {
    /// Returns the embedded profiles.
    pub fn profiles() -> Result<Profiles, ProfileError> {
        PROFILES.clone()
    }

    /// SGLang with `profiles` in place of the embedded ones.
    pub const fn with_profiles(profiles: Profiles) -> Self {
        Self { profiles }
    }

    /// Prepares SGLang for one request; like [`Engine::prepare`], with SGLang's own type.
    pub fn prepare<'a>(
        &self,
        request: &EngineRequest<'a>,
    ) -> Result<SglangPrepared<'a>, EngineError> {
        let profile = self
            .profiles
            .for_version(request.version)
            .map_err(|error| profile_error(&error))?;
        SglangPrepared::new(request.model, request, profile)
    }
}

impl Engine for Sglang {
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
        _request: &EngineRequest<'a>,
        _adapter: &'a Adapter,
    ) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
        Err(lora::not_counted(ENGINE))
    }

    fn prepare_with_draft<'a>(
        &self,
        request: &EngineRequest<'a>,
        draft: &'a Model,
    ) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
        let profile = self
            .profiles
            .for_version(request.version)
            .map_err(|error| profile_error(&error))?;
        let prepared = SglangPrepared::new(request.model, request, profile)?;

        Ok(Box::new(prepared.with_draft(request, profile, draft)?))
    }
}

/// The error for a profile that cannot be used.
pub(super) fn profile_error(error: &ProfileError) -> EngineError {
    EngineError::BadParameter {
        engine: ENGINE,
        name: "profile".to_owned(),
        value: String::new(),
        why: error.to_string(),
    }
}

/// The `unsupported_architecture` error for this engine.
fn unsupported(why: impl Into<String>) -> EngineError {
    EngineError::Unsupported {
        engine: ENGINE,
        why: why.into(),
    }
}

/// SGLang's constants for one version range.
#[derive(Clone, Copy, Debug)]
struct SglangConstants {
    base_mib: u64,
    chunk_token_millionths: u64,
    minimum_large_mib: u64,
    decode_mib: u64,
    prefill_graphs_latent_mib: u64,
    multimodal_mib: u64,
    context_by_multiprocessor_mib: u64,
    context_libraries_mib: u64,
    context_unknown_mib: u64,
}

impl SglangConstants {
    fn read(profile: &Profile) -> Result<Self, ProfileError> {
        Ok(Self {
            base_mib: profile.count("reserve_base_mib")?,
            chunk_token_millionths: profile.millionths("reserve_per_chunk_token_mib")?,
            minimum_large_mib: profile.count("reserve_minimum_large_mib")?,
            decode_mib: profile.count("reserve_per_decode_sequence_mib")?,
            prefill_graphs_latent_mib: profile.count("reserve_prefill_graphs_latent_mib")?,
            multimodal_mib: profile.count("multimodal_reserve_mib")?,
            context_by_multiprocessor_mib: profile.count("context_mib_per_multiprocessor")?,
            context_libraries_mib: profile.count("context_libraries_mib")?,
            context_unknown_mib: profile.count("context_unknown_mib")?,
        })
    }
}

/// Tensor degree, expert parallelism, padding and predictor of a table of weights.
type TableKey = (u32, bool, bool, bool);

/// SGLang ready to answer for one model.
#[derive(Debug)]
pub struct SglangPrepared<'a> {
    model: &'a Model,
    architecture: &'a Architecture,
    profile: String,
    constants: SglangConstants,
    settings: SglangSettings,
    layers: CacheLayers,
    /// The draft that proposes the model's tokens, if the request names one.
    draft: Option<SglangDraft<'a>>,
    /// Whether any layer caches latents.
    latent: bool,
    classes: Classes<'a>,
    online: Option<Online>,
    /// The name of `online` as given.
    online_name: Option<String>,
    device: DeviceFacts,
    /// Weights by degree and by what is loaded.
    weights: Mutex<BTreeMap<TableKey, Arc<WeightTable>>>,
}

impl<'a> SglangPrepared<'a> {
    fn new(
        model: &'a Model,
        request: &EngineRequest<'_>,
        profile: &Profile,
    ) -> Result<Self, EngineError> {
        let architecture = check_model(model)?;
        let settings = SglangSettings::resolve(request, architecture, profile)?;
        let online_name = settings
            .online_name
            .clone()
            .filter(|_| architecture.quantization.is_none());
        let online = online_name
            .as_deref()
            .map(online_quantization)
            .transpose()?;

        let device = request
            .devices
            .first()
            .cloned()
            .ok_or_else(|| unsupported("there is no device to run on"))?;

        Ok(Self {
            model,
            architecture,
            profile: profile.name.clone(),
            constants: SglangConstants::read(profile).map_err(|error| profile_error(&error))?,
            settings,
            layers: CacheLayers::new(architecture, 0),
            draft: None,
            latent: architecture
                .layers
                .iter()
                .any(|layer| matches!(layer.mixer, Mixer::Latent(_))),
            classes: Classes::new(
                &model.inventory,
                architecture.tied_embeddings,
                architecture.task,
            ),
            online,
            online_name,
            device,
            weights: Mutex::default(),
        })
    }

    /// Adds `draft`, which runs with the settings of this model.
    fn with_draft(
        mut self,
        request: &EngineRequest<'_>,
        profile: &Profile,
        draft: &'a Model,
    ) -> Result<Self, EngineError> {
        let Some(speculation) = self.settings.speculation else {
            return Err(unsupported("a draft is named without speculative decoding"));
        };

        // Both models get the server's arguments, apart from those that name the draft.
        let mut parameters = request.parameters.clone();
        parameters.retain(|name, _| {
            let name = name.trim_start_matches('-').replace('-', "_");
            !name.starts_with("speculative") && name != "context_length"
        });

        let mut asked = request.asked.clone();
        asked.context = None;
        let draft_request = EngineRequest {
            model: draft,
            version: request.version,
            parameters: &parameters,
            asked,
            devices: request.devices,
        };

        let named =
            |error: EngineError| unsupported(format!("the draft {}: {error}", draft.identity.repo));
        let prepared = Self::new(draft, &draft_request, profile).map_err(named)?;

        let found = architectures::check(ENGINE, request.version, prepared.architecture);
        self.settings.assumptions.extend(found.map_err(named)?);
        self.draft = Some(SglangDraft::new(prepared, &self, speculation)?);

        Ok(self)
    }

    /// Weights by layer for the degrees of `split`, MXFP4 experts with `padding`.
    /// `predicts` says whether the model's next-token predictor is loaded.
    fn table(
        &self,
        split: &Split,
        padding: Option<ExpertPadding>,
        predicts: bool,
    ) -> Arc<WeightTable> {
        let mut tables = self.weights.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (
            split.tensor,
            split.expert_parallel,
            padding.is_some(),
            predicts,
        );
        let table = tables.entry(key).or_insert_with(|| {
            let shard = ShardContext {
                architecture: self.architecture,
                compute: self.settings.compute,
                online: self.online,
                mxfp4: padding,
                rope: RopeRows::FOUR_AXES,
                tensor: u64::from(split.tensor.max(1)),
                expert_parallel: split.expert_parallel,
            };

            let step =
                vocabulary_step(self.architecture.vocab_size, u64::from(split.tensor.max(1)));

            Arc::new(match self.model.format {
                Format::PytorchBin => WeightTable::flat(self.pickled_bytes(), &shard),
                _ => WeightTable::new(
                    &self.classes,
                    &shard,
                    step,
                    Omitted {
                        towers: false,
                        drafts: !predicts,
                    },
                ),
            })
        });

        Arc::clone(table)
    }

    /// Weights of a pickle, which names no types: as stored, and twice that if SGLang widens them
    /// to 32 bits.
    fn pickled_bytes(&self) -> Bytes {
        let stored = self.model.inventory.bytes();
        let widened = self.settings.compute == ComputeDtype::Float32
            && self.architecture.dtype != Some(Dtype::F32);
        if widened { stored * 2 } else { stored }
    }
}

/// The method that quantizes a full-precision checkpoint at load, by its name.
fn online_quantization(name: &str) -> Result<Online, EngineError> {
    Online::parse(name).ok_or_else(|| EngineError::BadParameter {
        engine: ENGINE,
        name: "quantization".to_owned(),
        value: name.to_owned(),
        why: "is not one that quantizes a full-precision checkpoint at load".to_owned(),
    })
}

/// The step that SGLang pads the vocabulary to: 64 rows, or 64 x TP if 64 does not divide.
fn vocabulary_step(rows: u64, tensor: u64) -> u64 {
    if rows.next_multiple_of(64).is_multiple_of(tensor) {
        64
    } else {
        64_u64.saturating_mul(tensor)
    }
}

#[cfg(test)]
mod family_tests;
#[cfg(test)]
mod tests;
