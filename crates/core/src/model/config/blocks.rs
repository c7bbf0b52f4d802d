//! Decoders whose attention layers differ in shape or kind.
//!
//! Examples are block lists, heads of two sizes, and cross-attention.

use super::super::architecture::{FeedForward, Mixer, Span, Unsupported};
use super::fields::{Fields, contradiction};
use super::heads::{self, HIDDEN, Heads};
use super::layers::{LayerMixers, count};
use super::overrides::Overrides;
use super::spans;

/// Returns the layers of Nemotron-NAS.
///
/// Each entry of `block_configs` has its own heads and feed-forward, or none.
///
/// Source: vLLM `models/nemotron_nas.py`; `_ffn_mult_to_intermediate_size` is the rule for widths.
pub(super) fn nemotron_nas(fields: &Fields<'_>) -> Result<Vec<LayerMixers>, Unsupported> {
    let layers = count(fields)?;
    let blocks = fields
        .list("block_configs")?
        .ok_or_else(|| fields.missing("block_configs"))?;
    if blocks.len() != layers {
        return Err(fields.length("block_configs", blocks.len(), layers));
    }

    let heads = fields.need(heads::HEADS)?;
    let dim = heads::head_dim(fields, heads)?;
    let hidden = fields.need(HIDDEN)?;

    blocks
        .iter()
        .enumerate()
        .map(|(layer, block)| {
            let block = block
                .as_object()
                .ok_or_else(|| contradiction("block_configs", block, "objects are expected"))?;
            let block = fields.inside(block);

            Ok(LayerMixers {
                mixer: block_mixer(&block, layer, heads, dim)?,
                second_mixer: None,
                feed_forward: Some(block_feed_forward(&block, hidden)?),
                passes: 1,
            })
        })
        .collect()
}

/// Reads the mixer of one block of a model with `heads` query heads of `dim` elements.
fn block_mixer(
    block: &Fields<'_>,
    layer: usize,
    heads: u64,
    dim: u64,
) -> Result<Mixer, Unsupported> {
    let attention = block
        .object("attention")?
        .ok_or_else(|| block.missing("block_configs.attention"))?;
    let attention = block.inside(attention);
    if is_off(&attention)? {
        return Ok(Mixer::None);
    }

    if attention
        .count(&["window_length"])?
        .is_some_and(|window| window > 0)
    {
        return Err(block.family(format!("block_configs[{layer}].attention.window_length")));
    }

    let group = attention.need(&["n_heads_in_group"])?;
    if !heads.is_multiple_of(group) {
        return Err(contradiction(
            "block_configs.attention.n_heads_in_group",
            &group.into(),
            format!("{heads} query heads are not divisible by it"),
        ));
    }

    let heads = Heads {
        query: heads,
        kv: heads / group,
        key_dim: dim,
        value_dim: dim,
    };
    Ok(heads.mixer(Span::Full))
}

/// Reads the feed-forward of one block of a model of width `hidden`.
fn block_feed_forward(block: &Fields<'_>, hidden: u64) -> Result<FeedForward, Unsupported> {
    let ffn = block.inside(
        block
            .object("ffn")?
            .ok_or_else(|| block.missing("block_configs.ffn"))?,
    );

    if ffn.flag("no_op")? == Some(true) {
        return Ok(FeedForward::None);
    }

    if ffn.flag("replace_with_linear")? == Some(true) {
        return Ok(FeedForward::Dense { width: hidden });
    }

    if let Some(width) = ffn.size(&["intermediate_size"])? {
        return Ok(FeedForward::Dense { width });
    }

    let factor = ffn
        .factor("ffn_mult")?
        .ok_or_else(|| block.missing("block_configs.ffn.ffn_mult"))?;
    let width = super::floor_of(hidden, 2.0 * factor / 3.0).next_multiple_of(256);
    Ok(FeedForward::Dense { width })
}

fn is_off(attention: &Fields<'_>) -> Result<bool, Unsupported> {
    Ok(attention.flag("no_op")? == Some(true)
        || attention.flag("replace_with_linear")? == Some(true))
}

/// Returns the layers of MiMo-V2.
///
/// Sliding layers (1 in `hybrid_layer_pattern`) have their own heads in `swa_*` keys.
///
/// Source: vLLM `models/mimo_v2_flash.py`.
pub(super) fn mimo_v2(fields: &Fields<'_>) -> Result<Vec<Mixer>, Unsupported> {
    let layers = count(fields)?;
    let full = heads::heads(fields)?;
    let overrides = Overrides::read(fields, layers)?;
    let pattern = mimo_v2_pattern(fields, layers)?;
    let heads = fields
        .size(&["swa_num_attention_heads"])?
        .unwrap_or(full.query);

    // transformers' own configuration has no keys for the sliding layers, which have twice the KV
    // heads (`MiMoV2FlashAttention`).
    let by_class = if fields.value("hybrid_layer_pattern").is_none() {
        full.kv.saturating_mul(2)
    } else {
        full.kv
    };
    let kv_heads = fields
        .size(&["swa_num_key_value_heads"])?
        .unwrap_or(by_class);
    heads::check_kv_heads(fields, heads, kv_heads)?;
    let key_dim = fields.size(&["swa_head_dim"])?.unwrap_or(full.key_dim);
    let value_dim = fields.size(&["swa_v_head_dim"])?.unwrap_or(full.value_dim);

    let sliding = Heads {
        query: heads,
        kv: kv_heads,
        key_dim,
        value_dim,
    };

    let window = fields.size(&["sliding_window_size", "sliding_window"])?;
    pattern
        .iter()
        .enumerate()
        .map(|(layer, slides)| {
            let (heads, span) = match slides {
                0 => (full, Span::Full),
                1 => (
                    sliding,
                    Span::Sliding {
                        window: window.ok_or_else(|| fields.missing("sliding_window_size"))?,
                    },
                ),
                other => {
                    return Err(fields.family(format!("hybrid_layer_pattern[{layer}] = {other}")));
                }
            };

            Ok(overrides.heads(fields, layer, heads)?.mixer(span))
        })
        .collect()
}

/// Returns 1 for each layer that slides, else 0.
///
/// The pattern is in `hybrid_layer_pattern`, or in `layer_types` in transformers' own
/// configurations.
fn mimo_v2_pattern(fields: &Fields<'_>, layers: usize) -> Result<Vec<u64>, Unsupported> {
    if let Some(pattern) = fields.numbers("hybrid_layer_pattern")? {
        return if pattern.len() == layers {
            Ok(pattern)
        } else {
            Err(fields.length("hybrid_layer_pattern", pattern.len(), layers))
        };
    }

    let words = fields
        .words("layer_types")?
        .ok_or_else(|| fields.missing("hybrid_layer_pattern"))?;
    if words.len() != layers {
        return Err(fields.length("layer_types", words.len(), layers));
    }

    words
        .iter()
        .enumerate()
        .map(|(layer, word)| match *word {
            "full_attention" => Ok(0),
            "sliding_attention" => Ok(1),
            other => Err(fields.unknown_entry("layer_types", layer, other)),
        })
        .collect()
}

/// Returns the layers of Step-3.5: sliding layers have the heads of `attention_other_setting`.
///
/// Source: vLLM `models/step3p5.py`.
pub(super) fn step_3_5(fields: &Fields<'_>) -> Result<Vec<Mixer>, Unsupported> {
    let layers = count(fields)?;
    let full = heads::heads(fields)?;
    let mut words = fields
        .words("layer_types")?
        .ok_or_else(|| fields.missing("layer_types"))?;
    let mtp_layers = usize::try_from(fields.count(&["num_nextn_predict_layers"])?.unwrap_or(0))
        .unwrap_or(usize::MAX);
    if words.len() != layers && words.len() != layers.saturating_add(mtp_layers) {
        return Err(fields.length("layer_types", words.len(), layers));
    }

    words.truncate(layers);
    let window = spans::window(fields)?;
    let overrides = Overrides::read(fields, layers)?;

    let sliding = match fields.object("attention_other_setting")? {
        None => full,
        Some(other) => {
            let other = fields.inside(other);
            let heads = other.size(heads::HEADS)?.unwrap_or(full.query);
            let kv_heads = other.size(heads::KV_HEADS)?.unwrap_or(full.kv);
            heads::check_kv_heads(&other, heads, kv_heads)?;
            let dim = other.size(heads::HEAD_DIM)?.unwrap_or(full.key_dim);
            Heads {
                query: heads,
                kv: kv_heads,
                key_dim: dim,
                value_dim: dim,
            }
        }
    };

    words
        .iter()
        .enumerate()
        .map(|(layer, word)| {
            let window = overrides.window(fields, layer, window)?;
            let span = spans::span_for_word(fields, layer, word, window)?;
            let heads = if *word == "full_attention" {
                full
            } else {
                sliding
            };

            Ok(overrides.heads(fields, layer, heads)?.mixer(span))
        })
        .collect()
}

/// Returns the layers of Llama-3.2-Vision.
///
/// The listed layers attend to the image instead of the text.
///
/// Source: transformers `modeling_mllama.py`.
pub(super) fn mllama(fields: &Fields<'_>) -> Result<Vec<Mixer>, Unsupported> {
    /// The default of transformers' `MllamaTextConfig`.
    const DEFAULT: [u64; 8] = [3, 8, 13, 18, 23, 28, 33, 38];

    let layers = count(fields)?;
    let heads = heads::heads(fields)?;
    let cross = fields
        .numbers("cross_attention_layers")?
        .unwrap_or_else(|| DEFAULT.to_vec());
    // transformers asks of each layer whether the list has it.
    let cross = fields.layers_of("cross_attention_layers", cross, layers);

    let tokens = image_tokens(fields)?;
    let mixers = (0..layers as u64).map(|layer| {
        let span = if cross.contains(&layer) {
            Span::Cross { tokens }
        } else {
            Span::Full
        };
        heads.mixer(span)
    });

    Ok(mixers.collect())
}

/// Returns the patches and the class token of each tile of one image: 4 x 1601 for 560 pixels.
fn image_tokens(fields: &Fields<'_>) -> Result<u64, Unsupported> {
    let empty = super::fields::Object::new();
    let root = Fields {
        own: fields.root,
        defaults: &[],
        ..*fields
    };

    let vision = root.inside(root.object("vision_config")?.unwrap_or(&empty));
    let side =
        vision.size(&["image_size"])?.unwrap_or(560) / vision.size(&["patch_size"])?.unwrap_or(14);
    let tiles = vision.size(&["max_num_tiles"])?.unwrap_or(4);

    Ok(side
        .saturating_mul(side)
        .saturating_add(1)
        .saturating_mul(tiles))
}
