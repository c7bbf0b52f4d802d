//! A pipeline's parts: the role of each, its weights as loaded, and the sizes of its step.

use serde_json::Value;

use super::super::EngineError;
use super::NAME;
use super::settings::DiffusersSettings;
use crate::bytes::Bytes;
use crate::model::{Dtype, Model, PipelineComponent, TensorClass};

/// The role of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ComponentRole {
    /// Denoises latents by a transformer over patches.
    Transformer,
    /// Denoises latents by a convolutional U-Net.
    UNet,
    /// Decodes latents to pixels.
    Vae,
    /// Encodes the prompt, or checks the result.
    Other,
}

/// A component of the pipeline.
#[derive(Clone, Debug)]
pub(super) struct PipelinePart {
    pub(super) name: String,
    pub(super) role: ComponentRole,
    /// Weights in the dtype of loading.
    pub(super) bytes: Bytes,
    /// The largest single tensor, which sequential offload moves at once.
    pub(super) largest_leaf: Bytes,
    /// The part's configuration.
    config: Option<Value>,
}

impl PipelinePart {
    /// A number of the configuration; `None` if it is beyond that of any model.
    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.config
            .as_ref()?
            .get(key)?
            .as_u64()
            .filter(|number| (1..=1 << 24).contains(number))
    }

    /// A list of numbers of the configuration.
    pub(super) fn numbers(&self, key: &str) -> Vec<u64> {
        let list = self
            .config
            .as_ref()
            .and_then(|config| config.get(key))
            .and_then(Value::as_array);
        let numbers = list
            .into_iter()
            .flatten()
            .take(64)
            .filter_map(Value::as_u64);

        numbers.filter(|number| *number <= 1 << 24).collect()
    }

    /// Whether a switch of the configuration is on.
    pub(super) fn flag(&self, key: &str) -> bool {
        self.config
            .as_ref()
            .and_then(|config| config.get(key))
            .and_then(Value::as_bool)
            == Some(true)
    }
}

/// A pipeline with the sizes of one call.
#[derive(Clone, Debug)]
pub(super) struct Pipeline {
    pub(super) parts: Vec<PipelinePart>,
    pub(super) width: u64,
    pub(super) height: u64,
    /// Tokens of the prompt that the denoiser sees.
    pub(super) text_tokens: u64,
    /// Pixels per latent, along one side.
    pub(super) latent_step: u64,
    /// Whether each step runs on two batches, with and without the prompt.
    pub(super) guided: bool,
    /// Whether a 16-bit VAE is decoded in 32-bit floats.
    pub(super) upcasts_vae: bool,
    pub(super) assumptions: Vec<String>,
}

impl Pipeline {
    /// The parts of `model`, with sizes from the settings or its own defaults.
    pub(super) fn new(model: &Model, settings: &DiffusersSettings) -> Result<Self, EngineError> {
        let parts: Vec<PipelinePart> = model
            .components
            .iter()
            .map(|component| part(model, component, settings))
            .collect();
        let parts: Vec<PipelinePart> = parts
            .into_iter()
            .filter(|part| part.bytes > Bytes::ZERO)
            .collect();
        if parts.is_empty() {
            let why = "no component of the pipeline has weights".to_owned();
            return Err(EngineError::Unsupported { engine: NAME, why });
        }

        let mut assumptions = Vec::new();
        let denoiser = parts.iter().find(|part| super::denoises(part));
        let vae = parts.iter().find(|part| part.role == ComponentRole::Vae);
        let levels = vae.map_or(4, |vae| {
            vae.numbers("block_out_channels")
                .len()
                .max(vae.numbers("dim_mult").len())
        });

        let latent_step = 1 << levels.clamp(1, 8).saturating_sub(1);

        // `default_sample_size * vae_scale_factor`: from the U-Net, or the pipeline's own constant
        // for transformers.
        let side = if let Some(part) = denoiser {
            // SD3 and PixArt state it; 128 in the pipelines of FLUX and Qwen-Image.
            part.number("sample_size")
                .unwrap_or(128)
                .saturating_mul(latent_step)
        } else {
            assumptions.push(
                "no denoiser was recognized among the components: only weights and decoding \
                 are counted"
                    .to_owned(),
            );
            1024
        };

        let class = denoiser.map(|part| {
            part.config
                .as_ref()
                .and_then(|config| config.get("_class_name")?.as_str())
        });
        let class = class.flatten().unwrap_or_default();
        let distilled =
            denoiser.is_some_and(|part| part.flag("guidance_embeds")) || class.starts_with("Flux");
        let scale = settings.guidance;

        // FLUX takes guidance as an input; Qwen-Image runs its two passes one after the other.
        let guided =
            !distilled && !class.starts_with("QwenImage") && scale.is_none_or(|scale| scale > 1.0);
        let text_tokens = settings.text_tokens.unwrap_or(match class {
            class if class.starts_with("QwenImage") => 1024,
            class if class.starts_with("SD3") => 333,
            "UNet2DConditionModel" => 77,
            _ => 512,
        });

        let xl = denoiser.is_some_and(|part| {
            part.config.as_ref().is_some_and(|config| {
                config
                    .get("addition_embed_type")
                    .is_some_and(Value::is_string)
            })
        });
        let upcasts_vae =
            xl && vae.is_some_and(|vae| vae.flag("force_upcast")) && settings.dtype == Dtype::F16;

        Ok(Self {
            width: settings.width.unwrap_or(side),
            height: settings.height.unwrap_or(side),
            text_tokens,
            latent_step,
            guided,
            upcasts_vae,
            assumptions,
            parts,
        })
    }
}

/// The part for one component of `model`.
fn part(
    model: &Model,
    component: &PipelineComponent,
    settings: &DiffusersSettings,
) -> PipelinePart {
    let classes: Vec<&TensorClass> = model
        .inventory
        .classes
        .iter()
        .filter(|class| *class.component == *component.name)
        .collect();

    let role = match component.name.as_str() {
        name if name.starts_with("transformer") || name == "dit" => ComponentRole::Transformer,
        name if name.starts_with("unet") || name == "prior" || name == "decoder" => {
            ComponentRole::UNet
        }
        name if name.starts_with("vae") || name == "vqgan" || name == "movq" => ComponentRole::Vae,
        _ => ComponentRole::Other,
    };

    PipelinePart {
        name: component.name.clone(),
        role,
        bytes: classes
            .iter()
            .map(|class| resident_bytes(class, settings) * class.count)
            .sum(),
        largest_leaf: classes
            .iter()
            .map(|class| resident_bytes(class, settings))
            .max()
            .unwrap_or(Bytes::ZERO),
        config: component.config.clone(),
    }
}

/// Bytes of one tensor of `class` as loaded.
fn resident_bytes(class: &TensorClass, settings: &DiffusersSettings) -> Bytes {
    match class.dtype() {
        // T5 keeps its output projections in 32 bits when it is loaded in 16-bit floats
        // (`_keep_in_fp32_modules`).
        Some(dtype)
            if dtype.is_float()
                && settings.dtype == Dtype::F16
                && class.pattern.ends_with(".wo.weight") =>
        {
            Bytes::new(class.elements_each()) * 4
        }
        Some(dtype) if dtype.is_float() => {
            Bytes::new(class.elements_each()) * settings.element_bytes()
        }
        _ => class.bytes_each,
    }
}
