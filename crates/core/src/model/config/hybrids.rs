//! Decoders that mix attention with recurrent layers: which layer is what.
//!
//! Sources: transformers `configuration_*.py` (`layers_block_type`, `layer_types`, periods) and
//! vLLM's model files of the same names.

use serde_json::Value;

use super::super::architecture::{FeedForward, Mixer, Recurrent, Span, Unsupported};
use super::fields::{Fields, contradiction};
use super::heads::{self, HIDDEN, Heads, INTERMEDIATE};
use super::layers::{Mixed, bounded, count};
use super::{latent, recurrent};

/// The first of `keys` that lists a word for each layer.
fn words<'a>(
    fields: &Fields<'a>,
    keys: &[&str],
    layers: usize,
) -> Result<Option<Vec<&'a str>>, Unsupported> {
    for key in keys {
        if let Some(words) = fields.words(key)? {
            return if words.len() == layers {
                Ok(Some(words))
            } else {
                Err(fields.length(key, words.len(), layers))
            };
        }
    }

    Ok(None)
}

/// Layers by a rule: attention where it says so.
fn mix(
    layers: usize,
    attention: &Mixer,
    other: &Mixer,
    is_attention: impl Fn(u64) -> bool,
) -> Vec<Mixer> {
    (0..layers as u64)
        .map(|layer| {
            if is_attention(layer) {
                attention.clone()
            } else {
                other.clone()
            }
        })
        .collect()
}

/// Layers by words: those in `attention` have attention, those in `other` the other mixer, all else
/// is unknown.
fn by_words(
    fields: &Fields<'_>,
    words: &[&str],
    (attention, full): (&[&str], &Mixer),
    (other, state): (&[&str], &Mixer),
) -> Result<Vec<Mixer>, Unsupported> {
    let one = |(layer, word): (usize, &&str)| match word {
        word if attention.contains(word) => Ok(full.clone()),
        word if other.contains(word) => Ok(state.clone()),
        word => Err(fields.family(format!(
            "layer_types[{layer}] = {}",
            word.chars().take(40).collect::<String>()
        ))),
    };

    words.iter().enumerate().map(one).collect()
}

fn full(fields: &Fields<'_>) -> Result<Mixer, Unsupported> {
    Ok(heads::heads(fields)?.mixer(Span::Full))
}

/// Jamba: `layer % attn_layer_period == attn_layer_offset` has attention.
pub(super) fn jamba(fields: &Fields<'_>) -> Result<Vec<Mixer>, Unsupported> {
    let state = Mixer::Recurrent(recurrent::mamba1(fields)?);
    let layers = count(fields)?;
    if let Some(words) = words(fields, &["layers_block_type", "layer_types"], layers)? {
        return by_words(fields, &words, (FULL, &full(fields)?), (MAMBA, &state));
    }

    let (period, offset) = (
        fields.need(&["attn_layer_period"])?,
        fields.count(&["attn_layer_offset"])?.unwrap_or(0),
    );

    Ok(mix(layers, &full(fields)?, &state, |layer| {
        layer % period == offset
    }))
}

/// Bamba (`attn_layer_indices`) and Granite 4 (`layer_types`, earlier `layers_block_type`).
pub(super) fn bamba(fields: &Fields<'_>) -> Result<Vec<Mixer>, Unsupported> {
    let layers = count(fields)?;
    let words = words(fields, &["layer_types", "layers_block_type"], layers)?;
    let indices = fields.numbers("attn_layer_indices")?;

    // A model without Mamba layers need not have their keys.
    let plain = words
        .as_ref()
        .is_some_and(|words| !words.iter().any(|word| MAMBA.contains(word)));
    let state = if plain {
        Mixer::None
    } else {
        Mixer::Recurrent(recurrent::mamba2(fields)?)
    };

    match (words, indices) {
        (Some(words), _) => by_words(fields, &words, (FULL, &full(fields)?), (MAMBA, &state)),
        (None, Some(indices)) => Ok(mix(layers, &full(fields)?, &state, |layer| {
            indices.contains(&layer)
        })),
        (None, None) => Err(fields.missing("layer_types")),
    }
}

/// Words for attention and for Mamba: transformers 5 calls every recurrent layer "linear attention"
/// (`configuration_utils.py`, `_LEGACY_LAYER_TYPE_REMAP`).
const FULL: &[&str] = &["attention", "full_attention"];
const MAMBA: &[&str] = &["mamba", "linear_attention"];

/// Falcon-H1: attention and Mamba-2 beside each other in every layer.
pub(super) fn falcon_h1(fields: &Fields<'_>) -> Result<Vec<Mixed>, Unsupported> {
    let beside = Some(Mixer::Recurrent(recurrent::mamba2(fields)?));
    Ok(vec![
        Mixed {
            mixer: full(fields)?,
            beside,
            feed_forward: None
        };
        count(fields)?
    ])
}

/// Zamba: Mamba in each layer; in hybrid layers a shared attention over 2h runs before it, with a
/// cache for each.
pub(super) fn zamba(fields: &Fields<'_>, generation: u8) -> Result<Vec<Mixed>, Unsupported> {
    let layers = count(fields)?;
    let state = if generation == 1 {
        recurrent::mamba1(fields)?
    } else {
        recurrent::mamba2(fields)?
    };

    let words = words(fields, &["layers_block_type", "layer_types"], layers)?;
    let indices = fields.numbers("hybrid_layer_ids")?;
    let hybrid: Vec<bool> = match (&words, &indices) {
        (Some(words), _) => words
            .iter()
            .enumerate()
            .map(|(layer, word)| zamba_hybrid(fields, layer, word))
            .collect::<Result<_, _>>()?,
        (None, Some(indices)) => (0..layers as u64)
            .map(|layer| indices.contains(&layer))
            .collect(),
        (None, None) => return Err(fields.missing("layers_block_type")),
    };

    let heads = fields.need(heads::HEADS)?;
    let kv_heads = fields.size(heads::KV_HEADS)?.unwrap_or(heads);
    heads::divides(fields, heads, kv_heads)?;

    let dim = match fields.size(&["attention_head_dim"])? {
        Some(dim) => dim,
        None => (2 * fields.need(HIDDEN)?) / heads,
    };

    let attention = Heads {
        query: heads,
        kv: kv_heads,
        key_dim: dim,
        value_dim: dim,
    }
    .mixer(Span::Full);
    let one = |hybrid: bool| Mixed {
        mixer: Mixer::Recurrent(state.clone()),
        beside: hybrid.then(|| attention.clone()),
        feed_forward: None,
    };

    Ok(hybrid.into_iter().map(one).collect())
}

fn zamba_hybrid(fields: &Fields<'_>, layer: usize, word: &str) -> Result<bool, Unsupported> {
    match word {
        "hybrid" | "g" => Ok(true),
        "mamba" | "m" | "linear_attention" => Ok(false),
        other => Err(fields.family(format!(
            "layers_block_type[{layer}] = {}",
            other.chars().take(40).collect::<String>()
        ))),
    }
}

/// Nemotron-H: one letter for each layer: M Mamba-2, * attention, - dense, E experts. No layer has
/// two of them.
pub(super) fn nemotron_h(fields: &Fields<'_>) -> Result<Vec<Mixed>, Unsupported> {
    let letters: Vec<char> = match (
        fields.text("hybrid_override_pattern"),
        fields.words("layers_block_type")?,
    ) {
        (Some(pattern), _) if pattern.len() <= 4096 => {
            pattern.chars().filter(|letter| *letter != '|').collect()
        }
        (_, Some(words)) => words.iter().map(|word| nemotron_letter(word)).collect(),
        _ => match fields.words("layer_types")? {
            Some(words) => words.iter().map(|word| nemotron_letter(word)).collect(),
            None => return Err(fields.missing("hybrid_override_pattern")),
        },
    };

    if fields.size(heads::LAYERS)?.is_some() && count(fields)? != letters.len() {
        return Err(fields.length("hybrid_override_pattern", letters.len(), count(fields)?));
    }

    let attention = full(fields)?;
    let state = if letters.contains(&'M') {
        Some(recurrent::mamba2(fields)?)
    } else {
        None
    };

    let width = fields.size(INTERMEDIATE)?;
    let one = |(layer, letter): (usize, &char)| match letter {
        '*' => Ok((attention.clone(), FeedForward::None)),
        'M' => Ok((
            state.clone().map_or(Mixer::None, Mixer::Recurrent),
            FeedForward::None,
        )),
        '-' => {
            let width = width.ok_or_else(|| fields.missing("intermediate_size"))?;
            Ok((Mixer::None, FeedForward::Dense { width }))
        }
        'E' => Ok((Mixer::None, FeedForward::Experts)),
        other => Err(fields.family(format!("hybrid_override_pattern[{layer}] = {other}"))),
    };

    let mixed = |(mixer, feed_forward)| Mixed {
        mixer,
        beside: None,
        feed_forward: Some(feed_forward),
    };

    letters
        .iter()
        .enumerate()
        .map(|entry| one(entry).map(mixed))
        .collect()
}

fn nemotron_letter(word: &str) -> char {
    match word {
        "attention" | "full_attention" => '*',
        "mamba" | "linear_attention" => 'M',
        "mlp" => '-',
        "moe" => 'E',
        _ => '?',
    }
}

/// PLaMo-2: attention in the middle of each `mamba_step` layers (vLLM `models/plamo2.py`,
/// `is_mamba`).
pub(super) fn plamo2(fields: &Fields<'_>) -> Result<Vec<Mixer>, Unsupported> {
    let layers = count(fields)?;
    let attention = full(fields)?;
    if fields.flag("mamba_enabled")? == Some(false) {
        return Ok(vec![attention; layers]);
    }

    let step = fields.need(&["mamba_step"])?;
    let heads = fields.need(&["mamba_num_heads"])?;
    let head_dim = fields.need(&["hidden_size_per_head"])?;
    let state = Mixer::Recurrent(Recurrent::Mamba2 {
        inner: heads.saturating_mul(head_dim),
        heads,
        head_dim,
        state: fields.size(&["mamba_d_state"])?.unwrap_or(64),
        groups: 0,
        conv: fields.size(&["mamba_d_conv"])?.unwrap_or(4),
    });

    let last = (layers as u64).saturating_sub(1);
    Ok(mix(layers, &attention, &state, |layer| {
        if layers as u64 <= step / 2 {
            layer == last
        } else {
            layer % step == step / 2
        }
    }))
}

/// Qwen3-Next and Qwen3.5: `layer_types`, else full attention in each `full_attention_interval`-th
/// layer.
pub(super) fn gated_delta(fields: &Fields<'_>) -> Result<Vec<Mixer>, Unsupported> {
    let layers = count(fields)?;
    let attention = full(fields)?;
    let state = Mixer::Recurrent(recurrent::gated_delta(fields)?);

    if let Some(words) = words(fields, &["layer_types"], layers)? {
        return by_words(
            fields,
            &words,
            (&["full_attention"], &attention),
            (&["linear_attention"], &state),
        );
    }

    let every = fields.need(&["full_attention_interval"])?;
    Ok(mix(layers, &attention, &state, |layer| {
        (layer + 1).is_multiple_of(every)
    }))
}

/// Kimi-Linear: `linear_attn_config` lists the layers of each kind, counted from 1 (vLLM
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
        None => full(fields)?,
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

/// transformers' own Kimi-Linear configuration: `layer_types` and the sizes at the top
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
        (FULL, &Mixer::Latent(attention)),
        (MAMBA, &state),
    )
}

/// MiniMax-Text-01: `attn_type_list` (0 lightning, 1 attention), in transformers `layer_types`.
pub(super) fn minimax_01(fields: &Fields<'_>) -> Result<Vec<Mixer>, Unsupported> {
    let layers = count(fields)?;
    let attention = full(fields)?;
    let state = Mixer::Recurrent(recurrent::lightning(fields)?);

    if let Some(words) = words(fields, &["layer_types"], layers)? {
        return by_words(
            fields,
            &words,
            (&["full_attention"], &attention),
            (&["linear_attention"], &state),
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

/// Ring-linear and Ling-2.5: attention in each `layer_group_size`-th layer and in the rest that
/// fills no group.
pub(super) fn bailing_linear(fields: &Fields<'_>) -> Result<Vec<Mixer>, Unsupported> {
    let layers = count(fields)?;
    let group = fields.need(&["layer_group_size"])?;

    let attention = match latent::attention(fields)? {
        Some(attention) => Mixer::Latent(attention),
        None => full(fields)?,
    };

    let state = Mixer::Recurrent(recurrent::lightning(fields)?);
    let whole = layers as u64 / group * group;

    Ok(mix(layers, &attention, &state, |layer| {
        (layer + 1).is_multiple_of(group) || layer >= whole
    }))
}

/// LFM2: `layer_types`, else `full_attn_idxs`.
pub(super) fn lfm2(fields: &Fields<'_>) -> Result<Vec<Mixer>, Unsupported> {
    let layers = bounded(fields, heads::LAYERS)?;
    let attention = full(fields)?;
    let width = fields.need(HIDDEN)?;
    let state = Mixer::Recurrent(Recurrent::ShortConv {
        width,
        conv: fields.need(&["conv_L_cache"])?,
    });

    if let Some(words) = words(fields, &["layer_types"], layers)? {
        return by_words(
            fields,
            &words,
            (&["full_attention"], &attention),
            (&["conv"], &state),
        );
    }
    // `full_attn_idxs` absent means attention everywhere (transformers `Lfm2Config`).
    let Some(indices) = fields.numbers("full_attn_idxs")? else {
        return Ok(vec![attention; layers]);
    };

    Ok(mix(layers, &attention, &state, |layer| {
        indices.contains(&layer)
    }))
}
