//! Decoders that mix attention with Mamba layers.
//!
//! Sources: transformers `configuration_*.py` (`layers_block_type`, `layer_types`, periods) and
//! vLLM's model files of the same names.

use super::super::architecture::{FeedForward, Mixer, Recurrent, Span, Unsupported};
use super::fields::Fields;
use super::heads::{self, HIDDEN, Heads, INTERMEDIATE};
use super::layer_patterns::{ATTENTION, RECURRENT, by_words, full_attention, mix, words};
use super::layers::{LayerMixers, count};
use super::recurrent;

/// Returns the layers of Jamba.
///
/// Layers with `layer % attn_layer_period == attn_layer_offset` have attention.
pub(super) fn jamba(fields: &Fields<'_>) -> Result<Vec<Mixer>, Unsupported> {
    let state = Mixer::Recurrent(recurrent::mamba1(fields)?);
    let layers = count(fields)?;
    if let Some(words) = words(fields, &["layers_block_type", "layer_types"], layers)? {
        return by_words(
            fields,
            &words,
            &[(ATTENTION, &full_attention(fields)?), (RECURRENT, &state)],
        );
    }

    let (period, offset) = (
        fields.need(&["attn_layer_period"])?,
        fields.count(&["attn_layer_offset"])?.unwrap_or(0),
    );

    Ok(mix(layers, &full_attention(fields)?, &state, |layer| {
        layer % period == offset
    }))
}

/// Returns the layers of Bamba and Granite 4.
///
/// Bamba has `attn_layer_indices`, Granite 4 `layer_types` (`layers_block_type` in older files).
pub(super) fn bamba(fields: &Fields<'_>) -> Result<Vec<Mixer>, Unsupported> {
    let layers = count(fields)?;
    let words = words(fields, &["layer_types", "layers_block_type"], layers)?;
    let indices = fields.numbers("attn_layer_indices")?;

    // A model without Mamba layers may lack their keys.
    let has_no_mamba = words
        .as_ref()
        .is_some_and(|words| !words.iter().any(|word| RECURRENT.contains(word)));
    let state = if has_no_mamba {
        Mixer::None
    } else {
        Mixer::Recurrent(recurrent::mamba2(fields)?)
    };

    match (words, indices) {
        (Some(words), _) => by_words(
            fields,
            &words,
            &[(ATTENTION, &full_attention(fields)?), (RECURRENT, &state)],
        ),
        (None, Some(indices)) => Ok(mix(layers, &full_attention(fields)?, &state, |layer| {
            indices.contains(&layer)
        })),
        // Bamba without indices has no attention (transformers `BambaConfig`).
        (None, None) if fields.model_type == "bamba" => Ok(vec![state; layers]),
        (None, None) => Err(fields.missing("layer_types")),
    }
}

/// Returns the layers of Falcon-H1, each with attention and Mamba-2 in parallel.
pub(super) fn falcon_h1(fields: &Fields<'_>) -> Result<Vec<LayerMixers>, Unsupported> {
    let second_mixer = Some(Mixer::Recurrent(recurrent::mamba2(fields)?));
    Ok(vec![
        LayerMixers {
            mixer: full_attention(fields)?,
            second_mixer,
            feed_forward: None,
            passes: 1,
        };
        count(fields)?
    ])
}

/// Returns the layers of Zamba, each with Mamba.
///
/// In hybrid layers, a shared attention over 2h runs first, with a cache for each layer.
pub(super) fn zamba(fields: &Fields<'_>, generation: u8) -> Result<Vec<LayerMixers>, Unsupported> {
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
    heads::check_kv_heads(fields, heads, kv_heads)?;

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

    Ok(hybrid
        .into_iter()
        .map(|is_hybrid| LayerMixers {
            mixer: Mixer::Recurrent(state.clone()),
            second_mixer: is_hybrid.then(|| attention.clone()),
            feed_forward: None,
            passes: 1,
        })
        .collect())
}

fn zamba_hybrid(fields: &Fields<'_>, layer: usize, word: &str) -> Result<bool, Unsupported> {
    match word {
        "hybrid" | "g" => Ok(true),
        "mamba" | "m" | "linear_attention" => Ok(false),
        other => Err(fields.unknown_entry("layers_block_type", layer, other)),
    }
}

/// Returns the layers of Nemotron-H, whose pattern has one letter for each layer.
///
/// M is Mamba-2, * attention, - dense and E experts. No layer has two of them.
pub(super) fn nemotron_h(fields: &Fields<'_>) -> Result<Vec<LayerMixers>, Unsupported> {
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

    let attention = full_attention(fields)?;
    let state = if letters.contains(&'M') {
        Some(recurrent::mamba2(fields)?)
    } else {
        None
    };

    let width = fields.size(INTERMEDIATE)?;
    letters
        .iter()
        .enumerate()
        .map(|(layer, letter)| {
            let (mixer, feed_forward) = match letter {
                '*' => (attention.clone(), FeedForward::None),
                'M' => (
                    state.clone().map_or(Mixer::None, Mixer::Recurrent),
                    FeedForward::None,
                ),
                '-' => {
                    let width = width.ok_or_else(|| fields.missing("intermediate_size"))?;
                    (Mixer::None, FeedForward::Dense { width })
                }
                'E' => (Mixer::None, FeedForward::Experts),
                other => {
                    let entry = format!("hybrid_override_pattern[{layer}] = {other}");
                    return Err(fields.family(entry));
                }
            };

            Ok(LayerMixers {
                mixer,
                second_mixer: None,
                feed_forward: Some(feed_forward),
                passes: 1,
            })
        })
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

/// Returns the layers of PLaMo-2, with attention in the middle of each `mamba_step` layers.
///
/// Source: vLLM `models/plamo2.py`, `is_mamba`.
pub(super) fn plamo2(fields: &Fields<'_>) -> Result<Vec<Mixer>, Unsupported> {
    let layers = count(fields)?;
    let attention = full_attention(fields)?;
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
