//! Which tokens each attention layer can see.
//!
//! `layer_types` determines the spans if it is present, else the family's rule.

use serde_json::Value;

use super::super::architecture::{Span, Unsupported};
use super::families::Spans;
use super::fields::{Fields, contradiction};

/// Returns the span of each of `layers` attention layers.
pub(super) fn spans(
    fields: &Fields<'_>,
    rule: Spans,
    layers: usize,
) -> Result<Vec<Span>, Unsupported> {
    // Qwen's classes ignore the window unless the flag is set.
    let off = rule == Spans::Upper && fields.flag("use_sliding_window")? != Some(true);
    let window = if off { None } else { window(fields)? };

    if let Some(words) = fields.words("layer_types")? {
        if words.len() != layers {
            return Err(fields.length("layer_types", words.len(), layers));
        }
        return words
            .iter()
            .enumerate()
            .map(|(layer, word)| span_for_word(fields, layer, word, window))
            .collect();
    }

    if rule == Spans::Listed && window.is_some() {
        return Err(fields.missing("layer_types"));
    }

    let Some(window) = window else {
        return match rule {
            Spans::Chunked(every) => chunked(fields, every, layers),
            _ => Ok(vec![Span::Full; layers]),
        };
    };

    let slides: Vec<bool> = match rule {
        Spans::Full | Spans::Listed => vec![false; layers],
        Spans::All => vec![true; layers],
        Spans::Upper => {
            let from = fields.count(&["max_window_layers"])?.unwrap_or(0);
            (0..layers as u64).map(|layer| layer >= from).collect()
        }
        Spans::AllBut(every) => all_but(fields, every, layers)?,
        Spans::AllButAndLast(every) => {
            let mut slides = all_but(fields, every, layers)?;
            if let Some(last) = slides.last_mut() {
                *last = false;
            }
            slides
        }
        Spans::Chunked(every) => return chunked(fields, every, layers),
    };

    Ok(slides
        .into_iter()
        .map(|slides| {
            if slides {
                Span::Sliding { window }
            } else {
                Span::Full
            }
        })
        .collect())
}

/// Reads W; `None` if it is null or switched off.
pub(super) fn window(fields: &Fields<'_>) -> Result<Option<u64>, Unsupported> {
    if fields.flag("use_sliding_window")? == Some(false) {
        return Ok(None);
    }

    let stated = fields.count(&["sliding_window", "sliding_window_size"])?;
    // ModernBERT counts the tokens on both sides (`ModernBertDecoderConfig`).
    let window = match fields.model_type {
        "modernbert-decoder" => stated.or(fields.count(&["local_attention"])?.map(|both| both / 2)),
        _ => stated,
    };
    // In a few published configurations, 0 means "no window".
    Ok(window.filter(|window| *window > 0))
}

/// Returns the span for one word of `layer_types`.
pub(super) fn span_for_word(
    fields: &Fields<'_>,
    layer: usize,
    word: &str,
    window: Option<u64>,
) -> Result<Span, Unsupported> {
    match word {
        "full_attention" | "attention" | "global" => Ok(Span::Full),
        // The prompt is kept whole, and only the answer slides (transformers
        // `UnlimitedOcrDynamicReferenceSlidingWindowLayer`): a prompt of all tokens needs the most.
        "reference_sliding_attention" => Ok(Span::Full),
        "sliding_attention" | "local" => match window {
            Some(window) => Ok(Span::Sliding { window }),
            // The window is switched off or null, so these layers see everything.
            None if fields.has("sliding_window") || fields.has("use_sliding_window") => {
                Ok(Span::Full)
            }
            None => Err(fields.missing("sliding_window")),
        },
        "chunked_attention" => Ok(Span::Chunked {
            chunk: fields.need(&["attention_chunk_size"])?,
        }),
        other => Err(fields.unknown_entry("layer_types", layer, other)),
    }
}

/// Returns for each layer whether it slides: all but each n-th do.
///
/// The configuration's own pattern key sets n, else the family.
fn all_but(fields: &Fields<'_>, every: u64, layers: usize) -> Result<Vec<bool>, Unsupported> {
    const PATTERN: &[&str] = &[
        "sliding_window_pattern",
        "_sliding_window_pattern",
        "global_attn_every_n_layers",
    ];

    if let Some((key, text)) = PATTERN
        .iter()
        .find_map(|key| fields.text(key).map(|text| (*key, text)))
    {
        // EXAONE-4 spells the pattern out: L slides, G is full, repeated. Its last layer is full.
        if text.is_empty()
            || text.len() > 64
            || !text.bytes().all(|byte| matches!(byte, b'L' | b'G'))
        {
            return Err(contradiction(
                key,
                &Value::from(text),
                "letters L and G are expected",
            ));
        }
        let letters = text
            .bytes()
            .cycle()
            .take(layers)
            .map(|letter| letter == b'L');
        return Ok(letters
            .enumerate()
            .map(|(layer, slides)| slides && layer + 1 != layers)
            .collect());
    }

    let every = fields.size(PATTERN)?.unwrap_or(every);
    Ok((1..=layers as u64)
        .map(|layer| !layer.is_multiple_of(every))
        .collect())
}

/// Returns the spans of Llama 4: layers with rope see their chunk, the others see everything.
///
/// In `no_rope_layers`, 1 means that the layer has rope (transformers `configuration_llama4.py`).
fn chunked(fields: &Fields<'_>, every: u64, layers: usize) -> Result<Vec<Span>, Unsupported> {
    let Some(chunk) = fields.size(&["attention_chunk_size"])? else {
        return Ok(vec![Span::Full; layers]);
    };

    let listed = fields
        .numbers("no_rope_layers")?
        .filter(|list| !list.is_empty());
    let roped: Vec<bool> = match listed {
        Some(list) if list.len() == layers => list.iter().map(|rope| *rope != 0).collect(),
        Some(list) => return Err(fields.length("no_rope_layers", list.len(), layers)),
        None => {
            let every = fields
                .size(&["no_rope_layer_interval", "nope_layer_interval"])?
                .unwrap_or(every);
            (1..=layers as u64)
                .map(|layer| !layer.is_multiple_of(every))
                .collect()
        }
    };

    Ok(roped
        .into_iter()
        .map(|rope| {
            if rope {
                Span::Chunked { chunk }
            } else {
                Span::Full
            }
        })
        .collect())
}
