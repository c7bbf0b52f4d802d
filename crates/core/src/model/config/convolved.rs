//! Decoders whose attention layers have short convolutions, and states for them.
//!
//! Sources: transformers 5.24 `models/{inkling,inkling2,inkling2_loop,zaya}`.

use serde_json::Value;

use super::super::architecture::{Mixer, Recurrent, Span, Unsupported};
use super::fields::{Fields, contradiction};
use super::heads::{self, HIDDEN, Heads};
use super::layer_patterns::words;
use super::layers::{LayerMixers, count};
use super::spans;

/// The word of an attention layer with convolutions that sees everything.
const FULL: &str = "hybrid";
/// The word of an attention layer with convolutions that sees a window.
const SLIDING: &str = "hybrid_sliding";

/// Returns the layers of Inkling: attention of two sizes, with four short convolutions each.
///
/// Layers slide by `layer_types`, else by `local_layer_ids`, else all but each sixth. Inkling 2
/// Mini runs some of its layers several times.
pub(super) fn inkling(fields: &Fields<'_>) -> Result<Vec<LayerMixers>, Unsupported> {
    let layers = count(fields)?;
    let slides = inkling_slides(fields, layers)?;
    let window = spans::window(fields)?;
    let full = heads::heads(fields)?;
    let sliding = sliding_heads(fields, full)?;
    let looped = looped_range(fields)?;

    slides
        .into_iter()
        .zip(0_u64..)
        .map(|(slides, layer)| {
            let (heads, span) = if slides {
                let window = window.ok_or_else(|| fields.missing("sliding_window_size"))?;
                (sliding, Span::Sliding { window })
            } else {
                (full, Span::Full)
            };
            let passes = match &looped {
                Some((range, passes)) if range.contains(&layer) => *passes,
                _ => 1,
            };

            Ok(LayerMixers {
                second_mixer: Some(Mixer::Recurrent(conv_streams(fields, heads)?)),
                passes,
                ..LayerMixers::from(heads.mixer(span))
            })
        })
        .collect()
}

/// Returns for each layer of Inkling whether it slides.
fn inkling_slides(fields: &Fields<'_>, layers: usize) -> Result<Vec<bool>, Unsupported> {
    if let Some(words) = words(fields, &["layer_types"], layers)? {
        return words
            .iter()
            .enumerate()
            .map(|(layer, word)| slides(fields, layer, word))
            .collect();
    }

    let local = fields.numbers("local_layer_ids")?;
    Ok((0..layers as u64)
        .map(|layer| match &local {
            Some(local) => local.contains(&layer),
            None => !(layer + 1).is_multiple_of(6),
        })
        .collect())
}

/// Returns whether the layer of this word slides.
fn slides(fields: &Fields<'_>, layer: usize, word: &str) -> Result<bool, Unsupported> {
    match word {
        FULL => Ok(false),
        SLIDING => Ok(true),
        other => Err(fields.unknown_entry("layer_types", layer, other)),
    }
}

/// Reads the heads of sliding layers, which have their own keys.
fn sliding_heads(fields: &Fields<'_>, full: Heads) -> Result<Heads, Unsupported> {
    let query = fields
        .size(&["swa_num_attention_heads"])?
        .unwrap_or(full.query);
    let kv = fields
        .size(&["swa_num_key_value_heads"])?
        .unwrap_or(full.kv);
    heads::check_kv_heads(fields, query, kv)?;
    let dim = fields.size(&["swa_head_dim"])?.unwrap_or(full.key_dim);

    Ok(Heads {
        query,
        kv,
        key_dim: dim,
        value_dim: dim,
    })
}

/// Reads the convolutions of a layer with these heads.
fn conv_streams(fields: &Fields<'_>, heads: Heads) -> Result<Recurrent, Unsupported> {
    Ok(Recurrent::ConvStreams {
        heads: heads.kv,
        head_dim: heads.key_dim,
        hidden: fields.need(HIDDEN)?,
        conv: fields.need(&["conv_kernel_size", "sconv_kernel_size"])?,
    })
}

/// Reads which layers run several times, and how often.
///
/// Released files nest the keys in `loop_config`, the class's own files do not
/// (`Inkling2LoopTextConfig`).
fn looped_range(fields: &Fields<'_>) -> Result<Option<(std::ops::Range<u64>, u32)>, Unsupported> {
    if fields.model_type != "inkling2_loop_text" {
        return Ok(None);
    }

    let nested = match fields.object("loop_config")? {
        Some(nested) => fields.inside(nested),
        None => *fields,
    };
    let [start, end, passes] = [
        ("core_start", "loop_layer_index_start"),
        ("core_end", "loop_layer_index_end"),
        ("num_passes", "loop_num_passes"),
    ]
    .map(|(inner, own)| match nested.size(&[inner])? {
        Some(value) => Ok(value),
        None => fields.need(&[own]),
    });

    Ok(Some((start?..end?, passes_of(passes?)?)))
}

/// Returns a number of passes, if a model may have so many.
pub(super) fn passes_of(passes: u64) -> Result<u32, Unsupported> {
    const MAX_PASSES: u64 = 256;

    u32::try_from(passes)
        .ok()
        .filter(|_| passes <= MAX_PASSES)
        .ok_or_else(|| {
            contradiction(
                "the number of loops",
                &Value::from(passes),
                "no model has more than 256",
            )
        })
}

/// Returns the layers of ZAYA: attention over keys and queries that two convolutions mix.
///
/// A layer keeps the inputs that both look back at, and half of the last token's values
/// (`ZayaCCAProjection`).
pub(super) fn zaya(fields: &Fields<'_>) -> Result<Vec<LayerMixers>, Unsupported> {
    let layers = count(fields)?;
    let heads = heads::heads(fields)?;
    let window = spans::window(fields)?;
    let rows = fields
        .need(&["cca_time0"])?
        .saturating_add(fields.need(&["cca_time1"])?)
        .saturating_sub(2);
    if rows == 0 {
        return Err(fields.family("cca_time0 = 1 with cca_time1 = 1"));
    }

    let state = Mixer::Recurrent(Recurrent::PastInputs {
        width: heads
            .query
            .saturating_add(heads.kv)
            .saturating_mul(heads.key_dim),
        rows,
        vector: heads.kv.saturating_mul(heads.key_dim) / 2,
    });
    let words = words(fields, &["layer_types"], layers)?.unwrap_or_else(|| vec![FULL; layers]);

    words
        .iter()
        .enumerate()
        .map(|(layer, word)| {
            let span = if slides(fields, layer, word)? {
                Span::Sliding {
                    window: window.ok_or_else(|| fields.missing("sliding_window"))?,
                }
            } else {
                Span::Full
            };

            Ok(LayerMixers {
                second_mixer: Some(state.clone()),
                ..LayerMixers::from(heads.mixer(span))
            })
        })
        .collect()
}
