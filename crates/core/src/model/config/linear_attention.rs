//! Decoders that mix attention with linear attention or short convolutions.
//!
//! Sources: transformers `configuration_*.py` (`layer_types`, intervals) and vLLM's model files of
//! the same names.

use serde_json::Value;

use super::super::architecture::{Mixer, Recurrent, Span, Unsupported};
use super::fields::{Fields, contradiction};
use super::heads::{self, HIDDEN, Heads};
use super::layer_patterns::{ATTENTION, RECURRENT, by_words, full_attention, mix, words};
use super::layers::{LayerMixers, bounded, count};
use super::{latent, recurrent};

/// The word of an attention layer with a window.
const SLIDING: &str = "sliding_attention";

/// The pattern of Lara Mini's class (transformers `LaraMiniConfig`).
const LARA_MINI: [&str; 5] = [
    "linear_attention",
    "sliding_attention",
    "linear_attention",
    "full_attention",
    "sliding_attention",
];

/// Returns the layers of Qwen3-Next, Qwen3.5, OLMo-Hybrid and Lara Mini.
///
/// They follow `layer_types`, else each `full_attention_interval`-th layer has full attention. Some
/// of Lara Mini's attention layers slide.
pub(super) fn gated_delta(fields: &Fields<'_>) -> Result<Vec<Mixer>, Unsupported> {
    let layers = count(fields)?;
    let attention = full_attention(fields)?;
    let state = Mixer::Recurrent(recurrent::gated_delta(fields)?);

    let listed = match words(fields, &["layer_types"], layers)? {
        None if fields.model_type == "lara_mini" => {
            Some(LARA_MINI.iter().copied().cycle().take(layers).collect())
        }
        listed => listed,
    };
    if let Some(words) = listed {
        return by_words_or_span(
            fields,
            &words,
            &[
                (&["full_attention"], &attention),
                (&["linear_attention"], &state),
            ],
        );
    }

    let every = fields.need(&["full_attention_interval"])?;
    Ok(mix(layers, &attention, &state, |layer| {
        (layer + 1).is_multiple_of(every)
    }))
}

/// Returns the layers of Kimi-Linear.
///
/// `linear_attn_config` lists the layers of each kind, counted from 1 (vLLM
/// `models/kimi_linear.py`).
pub(super) fn kimi_linear(fields: &Fields<'_>) -> Result<Vec<Mixer>, Unsupported> {
    let layers = count(fields)?;
    let Some(linear) = fields.object("linear_attn_config")? else {
        return kimi_linear_by_words(fields, layers);
    };

    let linear = fields.inside(linear);
    let kda = linear
        .numbers("kda_layers")?
        .ok_or_else(|| fields.missing("linear_attn_config.kda_layers"))?;

    let attention = match latent::attention(fields)? {
        Some(attention) => Mixer::Latent(attention),
        None => full_attention(fields)?,
    };

    if let Some(listed) = linear.numbers("full_attn_layers")? {
        let both = kda.iter().filter(|layer| listed.contains(layer)).count();
        if both > 0 || kda.len() + listed.len() != layers {
            return Err(fields.length(
                "linear_attn_config.full_attn_layers",
                kda.len() + listed.len(),
                layers,
            ));
        }
    }

    let state = Mixer::Recurrent(Recurrent::Kda {
        heads: linear.need(&["num_heads"])?,
        head_dim: linear.need(&["head_dim"])?,
        conv: linear.size(&["short_conv_kernel_size"])?.unwrap_or(4),
    });

    Ok(mix(layers, &attention, &state, |layer| {
        !kda.contains(&(layer + 1))
    }))
}

/// Returns the layers of Kimi-Linear from transformers' own configuration.
///
/// It has `layer_types`, and the sizes at its top level
/// (`models/kimi_linear/configuration_kimi_linear.py`).
fn kimi_linear_by_words(fields: &Fields<'_>, layers: usize) -> Result<Vec<Mixer>, Unsupported> {
    let words = words(fields, &["layer_types"], layers)?
        .ok_or_else(|| fields.missing("linear_attn_config"))?;
    let attention = latent::attention(fields)?.ok_or_else(|| fields.missing("kv_lora_rank"))?;

    let state = Mixer::Recurrent(Recurrent::Kda {
        heads: fields.need(&["linear_num_heads"])?,
        head_dim: fields.need(&["linear_head_dim"])?,
        conv: fields.need(&["linear_conv_kernel_dim"])?,
    });

    by_words(
        fields,
        &words,
        &[(ATTENTION, &Mixer::Latent(attention)), (RECURRENT, &state)],
    )
}

/// Returns the layers of MiniMax-Text-01.
///
/// They follow `attn_type_list` (0 lightning, 1 attention), or `layer_types` in transformers.
pub(super) fn minimax_01(fields: &Fields<'_>) -> Result<Vec<Mixer>, Unsupported> {
    let layers = count(fields)?;
    let attention = full_attention(fields)?;
    let state = Mixer::Recurrent(recurrent::lightning(fields)?);

    if let Some(words) = words(fields, &["layer_types"], layers)? {
        return by_words(
            fields,
            &words,
            &[
                (&["full_attention"], &attention),
                (&["linear_attention"], &state),
            ],
        );
    }

    let key = if fields.value("attn_type_list").is_some() {
        "attn_type_list"
    } else {
        "decoder_attention_types"
    };

    let kinds = fields
        .numbers(key)?
        .ok_or_else(|| fields.missing("attn_type_list"))?;
    if kinds.len() != layers {
        return Err(fields.length(key, kinds.len(), layers));
    }

    if let Some(other) = kinds.iter().find(|kind| **kind > 1) {
        return Err(contradiction(
            key,
            &Value::from(*other),
            "0 or 1 is expected",
        ));
    }

    Ok(kinds
        .iter()
        .map(|kind| {
            if *kind == 1 {
                attention.clone()
            } else {
                state.clone()
            }
        })
        .collect())
}

/// Returns the layers of Ring-linear and Ling-2.5.
///
/// Configurations with `kda_*` keys have Kimi delta attention in place of lightning attention
/// (transformers `models/bailing_hybrid`).
///
/// Each `layer_group_size`-th layer has attention, and so have the last layers that fill no group.
pub(super) fn bailing_linear(fields: &Fields<'_>) -> Result<Vec<Mixer>, Unsupported> {
    let layers = count(fields)?;
    let group = fields.need(&["layer_group_size"])?;

    let attention = match latent::attention(fields)? {
        Some(attention) => Mixer::Latent(attention),
        None => full_attention(fields)?,
    };

    // vLLM 0.33 `models/bailing_moe_v3.py` has no other kind of state.
    let is_third =
        fields.model_type == "bailing_moe_v3" || fields.class.starts_with("BailingMoeV3");
    if is_third || fields.value("kda_safe_gate").is_some() {
        let state = Mixer::Recurrent(bailing_kda(fields)?);
        // transformers puts no attention into layers that fill no group.
        let whole = if is_third {
            layers as u64 / group * group
        } else {
            layers as u64
        };
        return Ok(mix(layers, &attention, &state, |layer| {
            (layer + 1).is_multiple_of(group) || layer >= whole
        }));
    }

    let state = Mixer::Recurrent(recurrent::lightning(fields)?);
    let whole = layers as u64 / group * group;

    Ok(mix(layers, &attention, &state, |layer| {
        (layer + 1).is_multiple_of(group) || layer >= whole
    }))
}

/// Reads the Kimi delta attention of Ling, with the model's own heads unless keys of its own say
/// otherwise.
fn bailing_kda(fields: &Fields<'_>) -> Result<Recurrent, Unsupported> {
    let heads = fields.need(&["linear_num_heads", "num_attention_heads"])?;
    let head_dim = match fields.size(&["linear_head_dim"])? {
        Some(dim) => dim,
        None => heads::head_dim(fields, heads)?,
    };

    Ok(Recurrent::Kda {
        heads,
        head_dim,
        conv: fields.need(&["linear_conv_kernel_dim", "short_conv_kernel_size"])?,
    })
}

/// Returns the mixer of each layer by its word, as [`by_words`] does, with windows for
/// `sliding_attention`.
fn by_words_or_span(
    fields: &Fields<'_>,
    words: &[&str],
    mixers: &[(&[&str], &Mixer)],
) -> Result<Vec<Mixer>, Unsupported> {
    if !words.contains(&SLIDING) {
        return by_words(fields, words, mixers);
    }

    let window = fields.need(&["sliding_window"])?;
    let sliding = heads::heads(fields)?.mixer(Span::Sliding { window });
    let with_sliding: Vec<(&[&str], &Mixer)> = mixers
        .iter()
        .copied()
        .chain([(&[SLIDING][..], &sliding)])
        .collect();
    by_words(fields, words, &with_sliding)
}

/// Returns the layers of Qwen4-Exp: gated delta nets, and attention with an indexer.
///
/// The indexer keeps one key a token in the cache's dtype. Layers in `ple_layer_ids`, counted from
/// 1, convolve the embeddings of n-grams with a dilation of `ngram_size` (transformers 5.24
/// `Qwen4ExpTextPLELayer`).
pub(super) fn qwen4_exp(fields: &Fields<'_>) -> Result<Vec<LayerMixers>, Unsupported> {
    let layers = count(fields)?;
    let attention = full_attention(fields)?;
    let state = Mixer::Recurrent(recurrent::gated_delta(fields)?);
    let (indexer, ngrams) = (index_keys(fields)?, ngram_inputs(fields)?);
    let with_ngrams = fields.numbers("ple_layer_ids")?.unwrap_or_default();
    let every = fields.need(&["full_attention_interval"])?;
    let listed = words(fields, &["layer_types"], layers)?;

    (0..layers)
        .map(|layer| {
            let number = layer as u64 + 1;
            let is_attention = match listed.as_ref().and_then(|words| words.get(layer)) {
                None => number.is_multiple_of(every),
                Some(&"full_attention" | &"indexed_attention") => true,
                Some(&"linear_attention") => false,
                Some(other) => return Err(fields.unknown_entry("layer_types", layer, other)),
            };

            let has_ngrams = with_ngrams.contains(&number);
            Ok(match (is_attention, has_ngrams) {
                (true, false) => LayerMixers {
                    second_mixer: indexer.clone(),
                    ..LayerMixers::from(attention.clone())
                },
                (true, true) => return Err(fields.family(format!("ple_layer_ids = {number}"))),
                (false, _) => LayerMixers {
                    second_mixer: has_ngrams.then(|| ngrams.clone()),
                    ..LayerMixers::from(state.clone())
                },
            })
        })
        .collect()
}

/// Returns the indexer's cache: one key of one head for each token, and no value.
fn index_keys(fields: &Fields<'_>) -> Result<Option<Mixer>, Unsupported> {
    let Some(query) = fields.size(&["indexer_n_heads"])? else {
        return Ok(None);
    };

    let keys = Heads {
        query,
        kv: fields.need(&["indexer_kv_heads"])?,
        key_dim: fields.need(&["indexer_head_dim"])?,
        value_dim: 0,
    };
    Ok(Some(keys.mixer(Span::Full)))
}

/// Returns the inputs that the dilated convolution over n-gram embeddings looks back at.
fn ngram_inputs(fields: &Fields<'_>) -> Result<Mixer, Unsupported> {
    let kernel = fields.need(&["ple_conv_kernel_size"])?;
    let width = fields
        .need(&["hc_count"])?
        .saturating_mul(fields.need(HIDDEN)?);

    Ok(Mixer::Recurrent(Recurrent::PastInputs {
        width,
        rows: kernel
            .saturating_sub(1)
            .saturating_mul(fields.need(&["ngram_size"])?),
        vector: 0,
    }))
}

/// Returns the layers of LFM2 and LFM3, by `layer_types` or else `full_attn_idxs`.
///
/// LFM3's class has a pattern of its own, and windows (transformers `Lfm3Config`).
pub(super) fn lfm2(fields: &Fields<'_>) -> Result<Vec<Mixer>, Unsupported> {
    let layers = bounded(fields, heads::LAYERS)?;
    let attention = full_attention(fields)?;
    let width = fields.need(HIDDEN)?;
    let state = Mixer::Recurrent(Recurrent::ShortConv {
        width,
        conv: fields.need(&["conv_L_cache"])?,
    });

    let listed = match words(fields, &["layer_types"], layers)? {
        None if fields.model_type == "lfm3" => Some((0..layers).map(lfm3_word).collect()),
        listed => listed,
    };
    if let Some(words) = listed {
        return by_words_or_span(
            fields,
            &words,
            &[(&["full_attention"], &attention), (&["conv"], &state)],
        );
    }
    // Without `full_attn_idxs`, all layers have attention (transformers `Lfm2Config`).
    let Some(indices) = fields.numbers("full_attn_idxs")? else {
        return Ok(vec![attention; layers]);
    };

    Ok(mix(layers, &attention, &state, |layer| {
        indices.contains(&layer)
    }))
}

/// Returns the word of a layer in the pattern of LFM3's class.
const fn lfm3_word(layer: usize) -> &'static str {
    match layer % 4 {
        2 => "full_attention",
        0 if layer > 0 => SLIDING,
        _ => "conv",
    }
}
