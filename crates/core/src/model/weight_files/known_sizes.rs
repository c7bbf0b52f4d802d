//! Components whose sizes are known by their class and the shapes of their tensors: their
//! configuration is not read.
//!
//! A pipeline has up to three text encoders, and each configuration would cost a request. What an
//! answer needs of it are the widths and the heads (transformers `models/clip/modeling_clip.py`,
//! `models/t5/modeling_t5.py`), and of the VAE of the first Stable Diffusion models its channels
//! (diffusers `models/autoencoders/vae.py`).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::model::{Inventory, TensorClass};

/// Every CLIP text model has heads of this size: 768/12, 1024/16, 1280/20.
const CLIP_HEAD_SIZE: u64 = 64;

/// Levels that a VAE may have; real ones have three to six.
const MAX_LEVELS: u32 = 16;

/// How the sizes of a known encoder are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KnownClass {
    Clip,
    T5,
    /// Its configuration states no size at its first level.
    Sizeless,
    /// A VAE of four levels or so.
    Autoencoder,
}

impl KnownClass {
    /// `class` is library and class, as in [`super::Component`].
    fn of(class: &str) -> Option<Self> {
        match class.rsplit('.').next()? {
            "CLIPTextModel" | "CLIPTextModelWithProjection" => Some(Self::Clip),
            "T5EncoderModel" => Some(Self::T5),
            "StableDiffusionSafetyChecker" => Some(Self::Sizeless),
            "AutoencoderKL" => Some(Self::Autoencoder),
            _ => None,
        }
    }
}

/// Whether [`sizes`] tells what the configuration of a component of `class` would, in a pipeline of
/// class `pipeline`.
pub(super) fn is_known_by_shape(class: &str, pipeline: &str) -> bool {
    match KnownClass::of(class) {
        // Other pipelines may state that their VAE runs in 32-bit floats, which no shape tells.
        Some(KnownClass::Autoencoder) => pipeline == "StableDiffusionPipeline",
        known => known.is_some(),
    }
}

/// The sizes of the component `name` of `class`, under the keys that its configuration has them by.
/// `None` where the class is another one or the tensors are not those of it.
pub fn sizes(class: &str, name: &str, inventory: &Inventory) -> Option<Value> {
    let shape = |ending: &str| {
        let classes = inventory
            .classes
            .iter()
            .filter(|class| *class.component == *name);
        let mut shapes = classes
            .filter(|class| class.pattern.ends_with(ending))
            .map(|class| &*class.shape);
        let first = shapes.next()?;

        // Two shapes would leave it open which is meant.
        match (first, shapes.all(|shape| shape == first)) {
            ([rows, columns], true) => Some((*rows, *columns)),
            _ => None,
        }
    };

    match KnownClass::of(class)? {
        KnownClass::Clip => {
            let (width, hidden) = shape("encoder.layers.*.mlp.fc1.weight")?;
            let heads = hidden / CLIP_HEAD_SIZE;
            Some(
                json!({"hidden_size": hidden, "intermediate_size": width, "num_attention_heads": heads}),
            )
        }
        KnownClass::T5 => {
            let (width, hidden) = shape("DenseReluDense.wi_0.weight")
                .or_else(|| shape("DenseReluDense.wi.weight"))?;
            let (_, heads) =
                shape("encoder.block.*.layer.*.SelfAttention.relative_attention_bias.weight")?;
            Some(json!({"d_model": hidden, "d_ff": width, "num_heads": heads}))
        }
        KnownClass::Sizeless => Some(json!({})),
        KnownClass::Autoencoder => {
            let channels = decoder_channels(name, inventory)?;
            Some(json!({"block_out_channels": channels}))
        }
    }
}

/// Channels of a VAE's levels, the finest first: the decoder's blocks go from the coarsest to the
/// finest.
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
            // All of one block have the same outputs.
            if *channels.entry(block).or_insert(outputs) != outputs {
                return None;
            }
        }
    }

    let are_all = channels
        .keys()
        .copied()
        .eq(0..u32::try_from(channels.len()).ok()?);

    (!channels.is_empty() && are_all).then(|| channels.into_values().rev().collect())
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
    fn clip_and_t5_are_sized_by_shapes() {
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
    fn vae_channels_follow_its_decoder() {
        let block = |block: u32, resnet: u32| {
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
            .map(|(at, resnet, out, from)| (block(*at, *resnet), vec![*out, *from, 3, 3]))
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
        assert_eq!(
            sizes_of(&tensors[1..]),
            None,
            "the first block is not there"
        );

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
    fn two_shapes_leave_sizes_open() {
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
