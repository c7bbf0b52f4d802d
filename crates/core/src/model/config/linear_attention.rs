//! Decoders that mix attention with linear attention or short convolutions.
//!
//! Sources: transformers `configuration_*.py` (`layer_types`, intervals) and vLLM's model files of
//! the same names.

use serde_json::Value;

use super::super::architecture::{Mixer, Recurrent, Unsupported};
use super::fields::{Fields, contradiction};
use super::heads::{self, HIDDEN};
use super::layer_patterns::{ATTENTION, RECURRENT, by_words, full_attention, mix, words};
use super::layers::{bounded, count};
use super::{latent, recurrent};

/// Returns the layers of Qwen3-Next and Qwen3.5.
///
/// They follow `layer_types`, else each `full_attention_interval`-th layer has full attention.
pub(super) fn gated_delta(fields: &Fields<'_>) -> Result<Vec<Mixer>, Unsupported> {
    let layers = count(fields)?;
    let attention = full_attention(fields)?;
    let state = Mixer::Recurrent(recurrent::gated_delta(fields)?);

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

/// Returns the layers of LFM2, by `layer_types` or else `full_attn_idxs`.
pub(super) fn lfm2(fields: &Fields<'_>) -> Result<Vec<Mixer>, Unsupported> {
    let layers = bounded(fields, heads::LAYERS)?;
    let attention = full_attention(fields)?;
    let width = fields.need(HIDDEN)?;
    let state = Mixer::Recurrent(Recurrent::ShortConv {
        width,
        conv: fields.need(&["conv_L_cache"])?,
    });

    if let Some(words) = words(fields, &["layer_types"], layers)? {
        return by_words(
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
