//! llama.cpp prepared for one model: its settings, layers and weights.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;

use super::blocks::InputPath;
use super::cache::{self, Layout};
use super::distinct_layers::{CountedLayer, DistinctLayers};
use super::draft::LlamaDraft;
use super::flash_kernels::unsupported_indexer;
use super::new_architectures;
use super::next_token::NextTokenLayers;
use super::parameters::{self, ENGINE, LlamaParameters};
use super::profile::{self, LlamaProfile};
use super::split;
use super::weights::{OnHost, Weights};
use super::workload::EffectiveParams;
use crate::bytes::Bytes;
use crate::engines::{AskedWorkload, EngineError, EngineVersion, Split};
use crate::model::architecture::{Architecture, Mixer, Task};
use crate::model::{Dtype, Format, Identity, Model, PipelineComponent};

/// The name of a projector's component in [`Model::components`].
const PROJECTOR: &str = "mmproj";

/// A model with its effective parameters.
#[derive(Debug)]
pub(crate) struct LlamaCppPrepared<'a> {
    pub(super) model: &'a Model,
    pub(super) architecture: &'a Architecture,
    pub(super) profile: LlamaProfile,
    pub(super) parameters: LlamaParameters,
    pub(super) effective: EffectiveParams,
    pub(super) weights: Weights,
    pub(super) kinds: DistinctLayers<'a>,
    pub(super) layers: u32,
    pub(super) input: InputPath,
    pub(super) draft: Option<LlamaDraft<'a>>,
}

fn unsupported(why: impl Into<String>) -> EngineError {
    EngineError::Unsupported {
        engine: ENGINE,
        why: why.into(),
    }
}

impl<'a> LlamaCppPrepared<'a> {
    /// Resolves parameters and workload for `model`.
    pub(crate) fn new(
        model: &'a Model,
        version: Option<&EngineVersion>,
        given: &BTreeMap<String, Value>,
        asked: &AskedWorkload,
    ) -> Result<Self, EngineError> {
        Self::with_draft(model, None, version, given, asked)
    }

    /// Resolves parameters and workload for `model`, with a second model that drafts for it.
    pub(crate) fn with_draft(
        model: &'a Model,
        draft: Option<&'a Model>,
        version: Option<&EngineVersion>,
        given: &BTreeMap<String, Value>,
        asked: &AskedWorkload,
    ) -> Result<Self, EngineError> {
        check_format(model)?;
        let mut parameters = parameters::read(version, given)?;
        parameters.draft.model |= draft.is_some() && parameters.draft.names.is_empty();

        let target = Self::resolved(model, version, parameters, asked)?;
        let draft = target.prepare_draft(draft, version)?;
        Ok(Self { draft, ..target })
    }

    /// Resolves the workload for `model` under `parameters`, without a draft.
    pub(super) fn resolved(
        model: &'a Model,
        version: Option<&EngineVersion>,
        parameters: LlamaParameters,
        asked: &AskedWorkload,
    ) -> Result<Self, EngineError> {
        check_format(model)?;

        let architecture = model
            .architecture
            .as_ref()
            .map_err(|why| unsupported(why.to_string()))?;
        let profile = profile::profile(version).map_err(|why| unsupported(why.to_string()))?;
        if let Some(why) = new_architectures::refusal(&architecture.class, &profile) {
            return Err(unsupported(why));
        }

        if let Some((heads, elements)) = unsupported_indexer(architecture) {
            return Err(unsupported(format!(
                "CUDA has no kernel for an indexer with {heads} heads of {elements} elements, and \
                 what its scores take on the host is not known"
            )));
        }

        if let Some(dtype) = &asked.dtype {
            let (name, value) = ("dtype".to_owned(), dtype.clone());
            let why =
                "llama.cpp keeps weights as the file stores them; choose another file".to_owned();

            return Err(EngineError::BadParameter {
                engine: ENGINE,
                name,
                value,
                why,
            });
        }

        let effective = EffectiveParams::new(&parameters, asked, &profile, architecture)?;
        let layers = architecture.layer_count();
        let next_token = match (parameters.draft.next_token, profile.loads_next_token_layers) {
            (true, _) => NextTokenLayers::Drafting,
            (false, true) => NextTokenLayers::ByFamily,
            (false, false) => NextTokenLayers::Skipped,
        };
        let weights = Weights::new(model, &architecture.class, layers, next_token);
        if let Some(class) = weights.unknown_type() {
            let why = format!(
                "cannot size tensor type {:?} of {}",
                class.storage, class.pattern
            );
            return Err(unsupported(why));
        }

        if model.inventory.bytes().overflowed() {
            return Err(EngineError::Overflow {
                what: "tensor sizes",
            });
        }

        check_rows(architecture, &effective)?;
        check_projector(model, &parameters)?;
        let kinds = DistinctLayers::new(&architecture.layers);
        let input = InputPath::new(&weights, architecture);

        Ok(Self {
            model,
            architecture,
            profile,
            parameters,
            effective,
            weights,
            kinds,
            layers,
            input,
            draft: None,
        })
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.model.identity
    }

    pub(crate) fn effective(&self) -> &EffectiveParams {
        &self.effective
    }

    pub(crate) fn layers(&self) -> u32 {
        self.layers
    }

    pub(crate) fn next_token_layers(&self) -> u32 {
        self.architecture.mtp_layers
    }

    /// The next-token layers, behind the decoder's.
    pub(super) fn next_token_range(&self) -> Range<u32> {
        self.layers..self.layers.saturating_add(self.next_token_layers())
    }

    /// Every layer that `-ngl` and `-ts` count: next-token layers and the output layer too.
    pub(super) fn all_layers(&self) -> u32 {
        self.next_token_range().end.saturating_add(1)
    }

    /// Next-token layers that the layers of a split do not count.
    pub(super) fn uncounted_layers(&self) -> u32 {
        if self.profile.loads_next_token_layers {
            0
        } else {
            self.next_token_layers()
        }
    }

    pub(crate) fn cache_on_device(&self) -> bool {
        !self.parameters.no_kv_offload
    }

    /// The projector's file: from the parameter, or found next to the model.
    pub(crate) fn projector(&self) -> Option<String> {
        if self.parameters.no_mmproj {
            return None;
        }

        let found = find_projector(self.model);
        let file = self.parameters.mmproj.clone();

        file.or_else(|| found.map(|part| part.class.clone()))
    }

    pub(super) fn projector_bytes(&self) -> Option<Bytes> {
        find_projector(self.model)
            .filter(|_| !self.parameters.no_mmproj)
            .map(|part| part.bytes)
    }

    /// The layers and experts that `n_gpu_layers` and `n_cpu_moe` leave on the host whatever the
    /// split.
    pub(crate) fn always_on_host(&self) -> OnHost {
        let all = self.all_layers();

        OnHost {
            layers: self
                .parameters
                .n_gpu_layers
                .map_or(0, |on_gpu| all.saturating_sub(on_gpu)),
            experts: self.parameters.n_cpu_moe.unwrap_or(0),
        }
    }

    pub(super) fn host_of(&self, split: &Split) -> OnHost {
        split::on_host(split, self.always_on_host())
    }

    /// Whether the output layer is on the last device.
    pub(super) fn output_on_device(&self, host: OnHost) -> bool {
        host.layers <= self.layers
    }

    /// The layers of `rank` on its device, whether it has the output layer, and what is on the
    /// host.
    pub(super) fn stage(&self, split: &Split, rank: usize) -> (Range<u32>, bool, OnHost) {
        let host = self.host_of(split);
        let (_, stage) = split.stage_of(rank);
        let start = stage.start.max(host.layers);
        let output = split.is_last_stage(rank) && self.output_on_device(host);
        (start..stage.end.min(self.layers).max(start), output, host)
    }

    pub(super) fn has_cache(&self) -> bool {
        self.architecture.task != Task::Encode
    }

    /// The width of all value rows, if values are transposed and thus equally wide.
    ///
    /// Hybrid models keep the layers without attention out of the cache.
    fn widest_value(&self, layout: Layout) -> Option<u64> {
        if !layout.attention.transposes_values() {
            return None;
        }

        let kinds = self.kinds.all();
        let value_widths = kinds.iter().map(|(layer, _)| match &layer.mixer {
            Mixer::Attention(attention) => cache::value_row(attention),
            _ => 0,
        });

        value_widths.max()
    }

    /// Whether any layer has a recurrent state.
    fn is_recurrent(&self) -> bool {
        self.kinds
            .all()
            .iter()
            .flat_map(|(layer, _)| layer.mixers())
            .any(|mixer| matches!(mixer, Mixer::Recurrent(_)))
    }

    /// Bytes of the cache and states of `layers`.
    pub(super) fn cache_and_states(
        &self,
        layers: &[CountedLayer<'_>],
        layout: Layout,
    ) -> (Bytes, Bytes) {
        if !self.has_cache() {
            return (Bytes::ZERO, Bytes::ZERO);
        }

        let widest = self.widest_value(layout);
        let is_recurrent = self.is_recurrent();

        let mut sum = (Bytes::ZERO, Bytes::ZERO);
        for (layer, count) in layers {
            for mixer in layer.mixers() {
                if is_recurrent && *mixer == Mixer::None {
                    continue;
                }
                sum.0 += layout.layer(mixer, widest) * *count;
                sum.1 += layout.states(mixer) * *count;
            }
        }

        sum
    }

    /// Bytes of CUDA's padding behind the caches of `layers`.
    pub(super) fn cache_padding(&self, layers: &[CountedLayer<'_>], layout: Layout) -> Bytes {
        if !self.has_cache() || !self.profile.rotates_cache {
            return Bytes::ZERO;
        }

        let layer_padding = |(layer, count): &CountedLayer<'_>| {
            layer
                .mixers()
                .map(|mixer| layout.padding(mixer))
                .sum::<Bytes>()
                * *count
        };
        layers.iter().map(layer_padding).sum()
    }
}

/// Checks that `model` is in GGUF.
fn check_format(model: &Model) -> Result<(), EngineError> {
    if model.format == Format::Gguf {
        return Ok(());
    }

    Err(unsupported(
        "llama.cpp runs GGUF files; look for a GGUF repository of this model or convert it with \
         convert_hf_to_gguf.py",
    ))
}

/// The projector next to the model.
fn find_projector(model: &Model) -> Option<&PipelineComponent> {
    model.components.iter().find(|part| part.name == PROJECTOR)
}

/// Checks that the length of a named projector is known.
fn check_projector(model: &Model, parameters: &LlamaParameters) -> Result<(), EngineError> {
    match (&parameters.mmproj, find_projector(model)) {
        (None, _) => Ok(()),
        (Some(named), Some(part))
            if *named == part.class || part.class.ends_with(&format!("/{named}")) =>
        {
            Ok(())
        }
        (Some(named), found) => {
            let known = found.map_or_else(|| "none".to_owned(), |part| part.class.clone());
            let why = format!(
                "its length is unknown, so it cannot be counted; next to the model there is {known}"
            );
            let (name, value) = ("mmproj".to_owned(), named.clone());

            Err(EngineError::BadParameter {
                engine: ENGINE,
                name,
                value,
                why,
            })
        }
    }
}

/// Checks that quantized cache rows fill whole blocks, head by head.
fn check_rows(architecture: &Architecture, effective: &EffectiveParams) -> Result<(), EngineError> {
    for mixer in architecture.mixers(0..u32::MAX) {
        match mixer {
            Mixer::Attention(attention) => {
                check_blocks("type_k", effective.keys, attention.key_dim)?;
                check_blocks("type_v", effective.values, attention.value_dim)?;
            }
            Mixer::Latent(latent) => {
                check_blocks(
                    "type_k",
                    effective.keys,
                    latent.kv_lora_rank.saturating_add(latent.rope_dim),
                )?;
            }
            Mixer::Recurrent(_) | Mixer::None => {}
        }
    }

    Ok(())
}

/// Checks that a row of `dim` elements fills whole blocks of `dtype`.
fn check_blocks(name: &str, dtype: Dtype, dim: u64) -> Result<(), EngineError> {
    let (block, _) = dtype.block();
    if dim.is_multiple_of(block) {
        return Ok(());
    }

    Err(EngineError::BadParameter {
        engine: ENGINE,
        name: name.to_owned(),
        value: dtype.to_string(),
        why: format!("heads of {dim} elements do not fill its blocks of {block}"),
    })
}
