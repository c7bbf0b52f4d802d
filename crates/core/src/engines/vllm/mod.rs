//! vLLM: pages of KV cache, a share of the device taken at start, and a profile run whose peak
//! bounds the rest.
//!
//! [`settings`] settles parameters, [`cache`] pages the caches, [`activations`] holds the law of
//! the profile's peak, [`overhead`] what logs calibrate, [`legal`] the splits, [`launch`] the
//! command line.

mod activations;
mod adapter;
pub mod cache;
mod compressed;
mod constants;
pub mod device_support;
mod dtypes;
mod launch;
pub(super) mod legal;
mod lora;
mod overhead;
mod prepared;
mod settings;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use serde_json::Value;

use cache::{CachePages, PageRules};
use constants::Constants;
pub use prepared::StartUpLog;
pub use settings::StateMode;
use settings::{ENGINE, VllmSettings, unsupported};

use super::lora::{AdapterMemory, WithAdapter};
use super::profile::{Profile, ProfileError, Profiles};
use super::shared::cache::CacheLayers;
use super::shared::dtype::ComputeDtype;
use super::shared::layer_kinds::LayerKinds;
use super::shared::shard_size::{ExpertPadding, ShardContext};
use super::shared::weights::{Classes, Omitted, WeightTable};
use super::{Engine, EngineError, EngineRequest, EngineVersion, PreparedEngine, Split};
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::model::architecture::{Architecture, Mixer, Task};
use crate::model::{Adapter, Format, Model};

/// vLLM with its profiles.
#[derive(Clone, Debug)]
pub struct Vllm {
    profiles: Profiles,
    /// Of the newest profile, which is asked for most often; read once.
    newest: Option<Constants>,
}

/// The embedded profiles.
static PROFILES: LazyLock<Result<Profiles, ProfileError>> =
    LazyLock::new(|| Profiles::parse(include_str!("../profiles/vllm.toml")));

impl Vllm {
    /// The embedded profiles, as text for `profiles.toml` and as a start for overrides.
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

    /// Prepares for one case; the same as [`Engine::prepare`], with vLLM's own type.
    pub fn prepare<'a>(&self, case: &EngineRequest<'a>) -> Result<VllmPrepared<'a>, EngineError> {
        let profile = self
            .profiles
            .for_version(case.version)
            .map_err(|error| profile_error(&error))?;
        let constants = match self.newest.filter(|_| case.version.is_none()) {
            Some(constants) => constants,
            None => Constants::read(profile).map_err(|error| profile_error(&error))?,
        };

        VllmPrepared::new(case, profile, constants)
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
        case: &EngineRequest<'a>,
    ) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
        Ok(Box::new(Self::prepare(self, case)?))
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

/// A profile that cannot be used, as an engine's error.
pub(in crate::engines) fn profile_error(error: &ProfileError) -> EngineError {
    EngineError::BadParameter {
        engine: ENGINE,
        name: "profile".to_owned(),
        value: String::new(),
        why: error.to_string(),
    }
}

/// What components say of themselves, written once.
#[derive(Clone, Debug)]
struct Details {
    weights: String,
    activations: String,
    cache: String,
}

impl Details {
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
        let how = match online.or(stored.map(|quantization| &*quantization.method)) {
            Some(method) => format!("{method}, the rest as {compute}"),
            None => compute.to_owned(),
        };

        Self {
            weights: format!(
                "{} tensors in {} files, as {how}",
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
    details: Details,
    weights: Mutex<BTreeMap<(u32, bool), Arc<WeightTable>>>,
    pages: Mutex<BTreeMap<(u32, usize), Arc<CachePages>>>,
}

impl<'a> VllmPrepared<'a> {
    #[expect(
        clippy::large_types_passed_by_value,
        reason = "it is kept, not only read"
    )]
    fn new(
        case: &EngineRequest<'a>,
        profile: &Profile,
        constants: Constants,
    ) -> Result<Self, EngineError> {
        let model = case.model;
        loadable(model, case.version)?;
        quantises_at_load(case)?;

        let architecture = model
            .architecture
            .as_ref()
            .map_err(|why| unsupported(why.to_string()))?;
        let settings = VllmSettings::settle(case, architecture, &constants)?;
        let drafts = if settings.speculative_tokens > 0 {
            architecture.mtp_layers
        } else {
            0
        };

        let details = Details::new(model, &settings);
        Ok(Self {
            details,
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

    /// Weights by layer for the degrees of `split`.
    fn table(&self, split: &Split) -> Arc<WeightTable> {
        let key = (split.tensor, split.expert_parallel);
        let mut tables = self.weights.lock().unwrap_or_else(PoisonError::into_inner);
        let table = tables.entry(key).or_insert_with(|| {
            let residence = ShardContext {
                architecture: self.architecture,
                compute: self.settings.compute,
                online: self.settings.online,
                mxfp4: self.expert_padding(),
                tensor: u64::from(split.tensor.max(1)),
                expert_parallel: split.expert_parallel,
            };

            let omitted = Omitted {
                towers: !self.settings.towers,
                drafts: self.drafts() == 0,
            };

            Arc::new(match self.model.format {
                Format::PytorchBin => WeightTable::flat(self.unnamed_bytes(), &residence),
                _ => WeightTable::new(&self.classes, &residence, 64, omitted),
            })
        });

        Arc::clone(table)
    }

    /// Pickles tell no types: stored as configured, cast like any other weight.
    fn unnamed_bytes(&self) -> Bytes {
        let stored = self.model.inventory.bytes();
        let bytes = |dtype| ComputeDtype::from_config(dtype).map_or(2, ComputeDtype::bytes);
        let from = self.architecture.dtype.map_or(2, bytes);
        stored.scale(self.settings.compute.bytes(), from)
    }

    /// Pages for the degrees of `split`.
    pub fn pages(&self, split: &Split) -> Arc<CachePages> {
        let key = (split.tensor, split.stages.len());
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = pages.entry(key).or_insert_with(|| {
            Arc::new(CachePages::new(
                &self.layers,
                &(0..u32::MAX),
                self.page_rules(split),
            ))
        });

        Arc::clone(entry)
    }

    /// The cache kinds, for who pages them.
    pub fn cache_layers(&self) -> &CacheLayers {
        &self.layers
    }

    pub(super) fn page_rules(&self, split: &Split) -> PageRules {
        let settings = &self.settings;
        let stages = split.stages.len() as u64;
        let batches = if settings.async_scheduling {
            stages + self.constants.in_flight_batches_async
        } else {
            stages
        };

        PageRules {
            kv: settings.kv,
            conv_bytes: settings.compute.bytes(),
            state_bytes: settings.state_bytes,
            block_tokens: self.block_tokens(),
            hybrid_manager: settings.hybrid_manager,
            state_mode: settings.state_mode,
            checkpoint: true,
            speculative: settings.speculative_tokens,
            in_flight: settings.batched_tokens.saturating_mul(batches),
            context_parallel: settings.context_parallel,
            tensor: u64::from(split.tensor.max(1)),
        }
    }

    /// Tokens of a block, before any alignment: the attention backend's own number.
    fn block_tokens(&self) -> u64 {
        let constants = &self.constants;
        let latent = self
            .architecture
            .layers
            .iter()
            .find_map(|layer| match &layer.mixer {
                Mixer::Latent(latent) => Some(latent),
                _ => None,
            });

        let capability = self.settings.capability.unwrap_or(0);
        let default = match latent {
            Some(_) if self.layers.sparse() => constants.sparse_block_tokens,
            Some(_) if (100..120).contains(&capability) => constants.latent_block_tokens_sm100,
            Some(_) if (90..100).contains(&capability) => constants.latent_block_tokens_sm90,
            _ => constants.block_tokens,
        };

        self.settings.block_tokens.unwrap_or(default)
    }

    /// Padding of MXFP4 experts by the kernel that the device gets
    /// (`layers/fused_moe/oracle/mxfp4.py`).
    fn expert_padding(&self) -> Option<ExpertPadding> {
        let quantization = self.architecture.quantization.as_ref()?;
        let own = quantization.method == "mxfp4" || self.architecture.model_type == "deepseek_v4";

        // Of a device that tells none, the wider padding is taken.
        let capability = self.settings.capability.unwrap_or(0);
        let gpt_oss = self.architecture.model_type == "gpt_oss";

        own.then_some(match capability {
            90..=99 if gpt_oss && !self.constants.mxfp4_marlin_sm90 => ExpertPadding {
                width: 64,
                hidden: 256,
                scales: false,
            },
            _ => ExpertPadding {
                width: 128,
                hidden: 256,
                scales: true,
            },
        })
    }
}

/// Classes that vLLM no longer has, with the last release that had them, as far as transformers'
/// own class cannot stand in (vLLM 0.33 `model_executor/models/registry.py`,
/// `_PREVIOUSLY_SUPPORTED_MODELS`).
const DROPPED: &[(&[&str], [u32; 2])] = &[
    (&["Phi3SmallForCausalLM"], [0, 9]),
    (
        &[
            "MotifForCausalLM",
            "Phi4FlashForCausalLM",
            "MllamaForConditionalGeneration",
        ],
        [0, 10],
    ),
    (&["JAISLMHeadModel"], [0, 22]),
    (
        &[
            "QWenLMHeadModel",
            "QwenVLForConditionalGeneration",
            "InternLMForCausalLM",
            "InternLM2VEForCausalLM",
            "XverseForCausalLM",
            "BambaForCausalLM",
            "MiniMaxForCausalLM",
            "MiniMaxText01ForCausalLM",
            "MiniMaxM1ForCausalLM",
            "MiniMaxVL01ForConditionalGeneration",
            "BaiChuanForCausalLM",
            "BaichuanForCausalLM",
        ],
        [0, 23],
    ),
    (
        &[
            "AquilaModel",
            "AquilaForCausalLM",
            "Grok1ModelForCausalLM",
            "Grok1ForCausalLM",
        ],
        [0, 24],
    ),
    (&["TeleChatForCausalLM"], [0, 25]),
    (&["Plamo2ForCausalLM", "OuroForCausalLM"], [0, 26]),
    (
        &[
            "ArcticForCausalLM",
            "RWForCausalLM",
            "StableLMEpochForCausalLM",
            "HCXVisionForCausalLM",
        ],
        [0, 28],
    ),
];

/// Whether `version`, or the newest, is one without what [`GONE`] lists.
fn current(version: Option<&EngineVersion>) -> bool {
    version.is_none_or(|asked| asked.is_at_least(&[0, 33]))
}

/// Refuses to quantise at load by a method that the release does not have itself.
fn quantises_at_load(case: &EngineRequest<'_>) -> Result<(), EngineError> {
    let asked = case.parameters.get("quantization").and_then(Value::as_str);
    match asked.filter(|method| current(case.version) && GONE.contains(method)) {
        None => Ok(()),
        Some(method) => Err(EngineError::BadParameter {
            engine: ENGINE,
            name: "quantization".to_owned(),
            value: method.to_owned(),
            why: "is not in vLLM 0.33 itself; name the earlier release that runs it (--engine vllm@0.19)".to_owned(),
        }),
    }
}

/// What vLLM cannot load at all.
fn loadable(model: &Model, version: Option<&EngineVersion>) -> Result<(), EngineError> {
    let current = current(version);
    match model.format {
        Format::Gguf => return Err(unsupported("GGUF is not in vLLM itself; llama.cpp runs it")),
        Format::Diffusers => {
            return Err(unsupported("a diffusers pipeline is not a language model"));
        }
        Format::Safetensors | Format::PytorchBin => {}
    }

    if model
        .inventory
        .classes
        .iter()
        .any(|class| class.pattern.ends_with(".biases"))
    {
        return Err(unsupported(
            "the weights are packed for MLX, which vLLM does not read",
        ));
    }

    if let Ok(architecture) = &model.architecture {
        served(architecture, version)?;
    }

    let method = model
        .architecture
        .as_ref()
        .ok()
        .and_then(|architecture| architecture.quantization.as_ref());
    let method = method.map_or("", |quantization| &*quantization.method);
    let gone = GONE.contains(&method) || matches!(method, "exl2" | "exl3" | "vptq" | "higgs");
    if current && gone {
        return Err(unsupported(format!(
            "quantization method {method} is not in vLLM 0.33 itself"
        )));
    }

    if !method.is_empty() && !known_method(method) {
        let shown: String = method.chars().take(40).collect();
        return Err(unsupported(format!(
            "quant_method {shown} is not one that vLLM is known to load"
        )));
    }

    Ok(())
}

/// Methods of earlier releases that 0.33 does not have itself; the first three have plugins.
const GONE: &[&str] = &[
    "gguf",
    "bitsandbytes",
    "hqq",
    "aqlm",
    "bitblas",
    "deepspeedfp",
    "ptpc_fp8",
    "tpu_int8",
    "marlin",
    "qqq",
];

/// Whether some release reads checkpoints of this `quant_method` (vLLM
/// `layers/quantization/__init__.py`).
fn known_method(method: &str) -> bool {
    const KNOWN: &[&str] = &[
        "awq",
        "awq_marlin",
        "gptq",
        "gptq_marlin",
        "fp8",
        "fbgemm_fp8",
        "mxfp4",
        "mxfp8",
        "nvfp4",
        "fp_quant",
        "compressed-tensors",
        "modelopt",
        "modelopt_fp4",
        "modelopt_mixed",
        "quark",
        "inc",
        "auto-round",
        "auto_round",
        "moe_wna16",
        "experts_int8",
        "torchao",
        "humming",
        "deepseek_v4_fp8",
    ];

    KNOWN.contains(&method) || GONE.contains(&method)
}

/// Whether the newest vLLM has the model's class.
pub fn serves(architecture: &Architecture) -> bool {
    served(architecture, None).is_ok()
}

/// Families that vLLM has dropped (its registry names the last release) or never ran.
fn served(architecture: &Architecture, version: Option<&EngineVersion>) -> Result<(), EngineError> {
    let kind = &*architecture.root_model_type;
    if let Some((_, last)) = DROPPED
        .iter()
        .find(|(classes, _)| classes.contains(&&*architecture.class))
        && version.is_none_or(|asked| asked.order(last).is_gt())
    {
        let [major, minor] = last;
        return Err(unsupported(format!(
            "{} was dropped after vLLM {major}.{minor}",
            architecture.class
        )));
    }
    // Its latent attention is in no list of vLLM's; whether the latents or whole heads would be
    // kept is not known.
    if architecture.model_type == "youtu" {
        return Err(unsupported(format!(
            "{} ({kind}) is not in vLLM itself",
            architecture.class
        )));
    }

    let speech = ["hubert", "wav2vec2", "wavlm", "unispeech"].contains(&kind);
    let encoder_decoder = architecture.task == Task::EncodeDecode && !kind.contains("whisper");
    if speech || encoder_decoder {
        return Err(unsupported(format!(
            "{} ({kind}) is not in vLLM itself",
            architecture.class
        )));
    }

    Ok(())
}

#[cfg(test)]
mod tests;
