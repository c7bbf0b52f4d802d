//! The sizes of components that follow from their class and the shapes of their tensors.
//!
//! A pipeline has up to three text encoders, and reading each configuration would cost a request.
//! An answer needs only the widths and heads of text encoders, and the channels of the VAE of the
//! first Stable Diffusion models.
//!
//! Sources: transformers `models/clip/modeling_clip.py` and `models/t5/modeling_t5.py`, diffusers
//! `models/autoencoders/vae.py`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::model::{Inventory, TensorClass};

/// The head size of every CLIP text model: 768/12, 1024/16, 1280/20.
const CLIP_HEAD_SIZE: u64 = 64;

/// Maximum number of levels of a VAE. Published ones have three to six.
const MAX_LEVELS: u32 = 16;

/// The component classes whose sizes follow from tensor shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KnownClass {
    Clip,
    T5,
    /// A class without sizes at the first level of its configuration.
    Sizeless,
    /// A VAE of about four levels.
    Autoencoder,
}

impl KnownClass {
    /// Returns the known class for a library and class as in [`super::Component`].
    fn from_name(class: &str) -> Option<Self> {
        match class.rsplit('.').next()? {
            "CLIPTextModel" | "CLIPTextModelWithProjection" => Some(Self::Clip),
            "T5EncoderModel" => Some(Self::T5),
            "StableDiffusionSafetyChecker" => Some(Self::Sizeless),
            "AutoencoderKL" => Some(Self::Autoencoder),
            _ => None,
        }
    }
}

/// Returns whether [`sizes`] replaces the configuration of a component of `class` in a pipeline of
/// class `pipeline`.
pub(super) fn is_known_by_shape(class: &str, pipeline: &str) -> bool {
    match KnownClass::from_name(class) {
        // Other pipelines can state that their VAE uses 32-bit floats, which no shape shows.
        Some(KnownClass::Autoencoder) => pipeline == "StableDiffusionPipeline",
        known => known.is_some(),
    }
}

/// Returns the sizes of the component `name`, under the keys of its configuration.
///
/// Returns `None` for an unknown class, or if the tensors are not those of the class.
pub fn sizes(class: &str, name: &str, inventory: &Inventory) -> Option<Value> {
    let matrix_shape = |ending: &str| unique_matrix_shape(name, inventory, ending);

    match KnownClass::from_name(class)? {
        KnownClass::Clip => {
            let (width, hidden) = matrix_shape("encoder.layers.*.mlp.fc1.weight")?;
            let heads = hidden / CLIP_HEAD_SIZE;
            Some(json!({
                "hidden_size": hidden,
                "intermediate_size": width,
                "num_attention_heads": heads,
            }))
        }
        KnownClass::T5 => {
            let (width, hidden) = matrix_shape("DenseReluDense.wi_0.weight")
                .or_else(|| matrix_shape("DenseReluDense.wi.weight"))?;
            let (_, heads) = matrix_shape(
                "encoder.block.*.layer.*.SelfAttention.relative_attention_bias.weight",
            )?;
            Some(json!({"d_model": hidden, "d_ff": width, "num_heads": heads}))
        }
        KnownClass::Sizeless => Some(json!({})),
        KnownClass::Autoencoder => {
            let channels = decoder_channels(name, inventory)?;
            Some(json!({"block_out_channels": channels}))
        }
    }
}

/// Returns the rows and columns of the component's tensors whose pattern ends in `ending`.
///
/// Returns `None` for different shapes, because the configuration could mean any of them.
fn unique_matrix_shape(name: &str, inventory: &Inventory, ending: &str) -> Option<(u64, u64)> {
    let mut shapes = inventory
        .classes
        .iter()
        .filter(|class| *class.component == *name && class.pattern.ends_with(ending))
        .map(|class| &*class.shape);
    let first = shapes.next()?;

    match (first, shapes.all(|shape| shape == first)) {
        ([rows, columns], true) => Some((*rows, *columns)),
        _ => None,
    }
}

/// Returns the channels of a VAE's levels, the finest first.
///
/// The decoder's blocks are in the opposite order.
fn decoder_channels(name: &str, inventory: &Inventory) -> Option<Vec<u64>> {
    let mut channels: BTreeMap<u32, u64> = BTreeMap::new();
    let is_block = |class: &&TensorClass| {
        *class.component == *name && *class.pattern == *"decoder.up_blocks.*.resnets.*.conv1.weight"
    };

    for class in inventory.classes.iter().filter(is_block) {
        let outputs = *class.shape.first()?;
        for block in class
            .layers
            .iter()
            .flat_map(|run| run.first..=run.last.min(MAX_LEVELS))
        {
            // All tensors of a block have the same outputs.
            if *channels.entry(block).or_insert(outputs) != outputs {
                return None;
            }
        }
    }

    let is_complete = channels
        .keys()
        .copied()
        .eq(0..u32::try_from(channels.len()).ok()?);

    (!channels.is_empty() && is_complete).then(|| channels.into_values().rev().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Bytes;
    use crate::model::tensors::{InventoryBuilder, Storage};

    fn inventory(tensors: &[(&str, &[u64])]) -> Inventory {
        let mut builder = InventoryBuilder::default();
        for (name, shape) in tensors {
            builder.add(
                "text_encoder",
                name,
                Storage::Unknown("x".into()),
                shape,
                Bytes::new(1),
            );
        }

        builder.finish()
    }

    #[test]
    fn clip_and_t5_sizes_follow_shapes() {
        let clip = inventory(&[("text_model.encoder.layers.3.mlp.fc1.weight", &[3072, 768])]);
        let sizes_of = |class: &str, inventory: &Inventory| sizes(class, "text_encoder", inventory);
        let wanted =
            json!({"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12});
        assert_eq!(sizes_of("transformers.CLIPTextModel", &clip), Some(wanted));

        let t5 = inventory(&[
            (
                "encoder.block.0.layer.1.DenseReluDense.wi_0.weight",
                &[10240, 4096],
            ),
            (
                "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                &[32, 64],
            ),
        ]);

        let wanted = json!({"d_model": 4096, "d_ff": 10240, "num_heads": 64});
        assert_eq!(sizes_of("transformers.T5EncoderModel", &t5), Some(wanted));
        assert_eq!(sizes_of("transformers.T5EncoderModel", &clip), None);
        assert_eq!(sizes_of("transformers.LlamaModel", &clip), None);
    }

    #[test]
    fn vae_channels_follow_decoder() {
        let tensor_name = |block: u32, resnet: u32| {
            format!("decoder.up_blocks.{block}.resnets.{resnet}.conv1.weight")
        };

        let shapes: [(u32, u32, u64, u64); 5] = [
            (0, 0, 512, 512),
            (1, 0, 512, 512),
            (2, 0, 256, 512),
            (2, 1, 256, 256),
            (3, 0, 128, 256),
        ];
        let named: Vec<(String, Vec<u64>)> = shapes
            .iter()
            .map(|(block, resnet, out, from)| {
                (tensor_name(*block, *resnet), vec![*out, *from, 3, 3])
            })
            .collect();
        let tensors: Vec<(&str, &[u64])> = named
            .iter()
            .map(|(name, shape)| (name.as_str(), &**shape))
            .collect();
        let sizes_of = |tensors: &[(&str, &[u64])]| {
            sizes(
                "diffusers.AutoencoderKL",
                "text_encoder",
                &inventory(tensors),
            )
        };

        assert_eq!(
            sizes_of(&tensors),
            Some(json!({"block_out_channels": [128, 256, 512, 512]}))
        );
        assert_eq!(sizes_of(&tensors[1..]), None, "the first block is absent");

        assert!(is_known_by_shape(
            "diffusers.AutoencoderKL",
            "StableDiffusionPipeline"
        ));
        assert!(!is_known_by_shape(
            "diffusers.AutoencoderKL",
            "StableDiffusionXLPipeline"
        ));
    }

    #[test]
    fn ambiguous_shapes_have_no_sizes() {
        let two = inventory(&[
            ("text_model.encoder.layers.3.mlp.fc1.weight", &[3072, 768]),
            (
                "vision_model.encoder.layers.3.mlp.fc1.weight",
                &[4096, 1024],
            ),
        ]);
        assert_eq!(
            sizes("transformers.CLIPTextModel", "text_encoder", &two),
            None
        );
    }
}
