//! A component of a pipeline: its role, configuration, and weights as loaded.

use serde_json::Value;

use super::groups::Divided;
use super::settings::DiffusersSettings;
use crate::bytes::Bytes;
use crate::model::{Dtype, Model, PipelineComponent, TensorClass};

/// Modules that a class keeps in 32 bits whatever the dtype (`_keep_in_fp32_modules`).
const KEPT_IN_32_BITS: [(&str, &[&str]); 7] = [
    ("ChronoEditTransformer3DModel", WAN_KEEPS),
    ("CosmosTransformer3DModel", &["learnable_pos_embed"]),
    ("SkyReelsV2Transformer3DModel", WAN_KEEPS),
    ("WanAnimateTransformer3DModel", WAN_KEEPS),
    ("WanTransformer3DModel", WAN_KEEPS),
    ("WanVACETransformer3DModel", WAN_KEEPS),
    ("HeliosTransformer3DModel", WAN_KEEPS),
];

/// The list of Wan's class, which others repeat.
const WAN_KEEPS: &[&str] = &[
    "rope",
    "time_embedder",
    "scale_shift_table",
    "norm1",
    "norm2",
    "norm3",
];

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
    /// The class of the configuration, or else of `model_index.json`, without its library.
    pub(super) class: String,
    pub(super) role: ComponentRole,
    /// Weights in the dtype of loading, by the groups that move together.
    pub(super) divided: Divided,
    /// Weights that are buffers, which sequential offload leaves on the device.
    pub(super) buffers: Bytes,
    /// The part's configuration.
    config: Option<Value>,
}

impl PipelinePart {
    /// The part for one component of `model`.
    pub(super) fn new(
        model: &Model,
        component: &PipelineComponent,
        settings: &DiffusersSettings,
    ) -> Self {
        let stated = component
            .config
            .as_ref()
            .and_then(|config| config.get("_class_name")?.as_str());
        // `model_index.json` states the library too: `diffusers.AutoencoderKL`.
        let named = component.class.rsplit('.').next().unwrap_or_default();
        let class = stated.unwrap_or(named).to_owned();

        let classes: Vec<(&TensorClass, Bytes)> = model
            .inventory
            .classes
            .iter()
            .filter(|tensors| *tensors.component == *component.name)
            .map(|tensors| (tensors, resident_bytes(&class, tensors, settings)))
            .collect();
        let buffers = classes
            .iter()
            .filter(|(tensors, _)| *tensors.pattern == *"pos_embed.pos_embed")
            .map(|(_, bytes)| *bytes)
            .sum();

        Self {
            name: component.name.clone(),
            role: role(&component.name),
            divided: Divided::new(&class, &classes),
            buffers,
            class,
            config: component.config.clone(),
        }
    }

    /// Weights in the dtype of loading.
    pub(super) fn bytes(&self) -> Bytes {
        self.divided.whole()
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.config.as_ref()?.get(key)
    }

    /// A number of the configuration; `None` if it is beyond that of any model.
    pub(super) fn number(&self, key: &str) -> Option<u64> {
        let number = self.value(key)?.as_u64()?;
        is_plausible(number).then_some(number)
    }

    /// A number of the configuration, or of the model of text or images that it holds.
    pub(super) fn nested_number(&self, key: &str) -> Option<u64> {
        let nested = |name: &str| {
            let number = self.value(name)?.get(key)?.as_u64()?;
            is_plausible(number).then_some(number)
        };

        self.number(key)
            .or_else(|| nested("text_config"))
            .or_else(|| nested("vision_config"))
    }

    /// A list of numbers of the configuration.
    pub(super) fn numbers(&self, key: &str) -> Vec<u64> {
        let list = self.value(key).and_then(Value::as_array);
        let numbers = list
            .into_iter()
            .flatten()
            .take(64)
            .filter_map(Value::as_u64);

        numbers.filter(|number| *number <= 1 << 24).collect()
    }

    /// `count` numbers of the configuration, which may state one for all.
    pub(super) fn number_or_list(&self, key: &str, count: usize) -> Option<Vec<u64>> {
        if let Some(number) = self.number(key) {
            return Some(vec![number; count]);
        }

        let numbers = self.numbers(key);
        (numbers.len() == count).then_some(numbers)
    }

    /// A list of words of the configuration.
    pub(super) fn words(&self, key: &str) -> Vec<&str> {
        let list = self.value(key).and_then(Value::as_array);
        let words = list.into_iter().flatten().take(64);
        words.filter_map(Value::as_str).collect()
    }

    /// A word of the configuration.
    pub(super) fn word(&self, key: &str) -> Option<&str> {
        self.value(key)?.as_str()
    }

    /// A switch of the configuration, if it is stated.
    pub(super) fn switch(&self, key: &str) -> Option<bool> {
        self.value(key)?.as_bool()
    }

    /// Whether a switch of the configuration is on.
    pub(super) fn flag(&self, key: &str) -> bool {
        self.switch(key) == Some(true)
    }
}

/// Whether a number can be that of a model.
fn is_plausible(number: u64) -> bool {
    (1..=1 << 24).contains(&number)
}

/// The role of the component `name`.
fn role(name: &str) -> ComponentRole {
    match name {
        name if name.starts_with("transformer") || name == "dit" => ComponentRole::Transformer,
        name if name.starts_with("unet") || name == "prior" || name == "decoder" => {
            ComponentRole::UNet
        }
        name if name.starts_with("vae") || name == "vqgan" || name == "movq" => ComponentRole::Vae,
        _ => ComponentRole::Other,
    }
}

/// Bytes of one tensor of `tensors` as loaded into a model of `class`.
fn resident_bytes(class: &str, tensors: &TensorClass, settings: &DiffusersSettings) -> Bytes {
    if !tensors.dtype().is_some_and(Dtype::is_float) {
        return tensors.bytes_each;
    }

    // T5 keeps its output projections in 32 bits when it is loaded in 16-bit floats.
    let keeps_projection = settings.dtype == Dtype::F16 && tensors.pattern.ends_with(".wo.weight");
    let kept = KEPT_IN_32_BITS.iter().any(|(keeping, modules)| {
        *keeping == class
            && tensors
                .pattern
                .split('.')
                .any(|segment| modules.contains(&segment))
    });

    let element = if keeps_projection || kept {
        4
    } else {
        settings.element_bytes()
    };
    Bytes::new(tensors.elements_each()) * element
}
