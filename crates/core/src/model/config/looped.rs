//! Decoders that run their layers several times for each token, each time with caches of its own.
//!
//! Sources: transformers 5.24 `models/{hrm_text,dory}` and vLLM 0.33
//! `model_executor/models/{hrm_text,dory}.py`.

use super::super::architecture::{FeedForward, Mixer, Span, Unsupported};
use super::convolved::passes_of;
use super::experts;
use super::fields::{Fields, contradiction};
use super::heads::{self, Heads};
use super::layers::{LayerMixers, bounded, count};
use super::spans;

/// The word of a block without attention.
const FEED_FORWARD: &str = "mlp";

/// Returns the layers of HRM-Text: the stack of the inner loop, then that of the outer loop.
///
/// The outer loop runs `H_cycles` times, and the inner one `L_cycles` times in each. Files that the
/// class wrote count each run of a layer in `num_hidden_layers`, and state the stored layers in
/// `num_layers_per_stack`. Each query head has keys of its own (`HrmTextAttention`).
pub(super) fn hrm_text(fields: &Fields<'_>) -> Result<Vec<LayerMixers>, Unsupported> {
    let stack = match fields.size(&["num_layers_per_stack"])? {
        Some(_) => bounded(fields, &["num_layers_per_stack"])?,
        None => count(fields)?,
    };

    let outer = fields.need(&["H_cycles"])?;
    let inner = fields.need(&["L_cycles"])?.saturating_mul(outer);
    let query = fields.need(heads::HEADS)?;
    let dim = heads::head_dim(fields, query)?;
    let heads = Heads {
        query,
        kv: query,
        key_dim: dim,
        value_dim: dim,
    };

    let mut layers = Vec::new();
    for cycles in [inner, outer] {
        let layer = LayerMixers {
            passes: passes_of(cycles)?,
            ..LayerMixers::from(heads.mixer(Span::Full))
        };
        layers.extend(std::iter::repeat_n(layer, stack));
    }

    Ok(layers)
}

/// The number of Dory's layers before, inside and after the loop.
struct DorySections {
    input: usize,
    recurrent: usize,
}

/// Returns the layers of Dory, of which those between input and output layers are looped over.
///
/// Released files list attention and feed-forward as separate blocks. With
/// `recurrent_kv_cache_mode` `last_loop`, only the last loop has a cache.
pub(super) fn dory(fields: &Fields<'_>) -> Result<Vec<LayerMixers>, Unsupported> {
    let layers = count(fields)?;
    let heads = heads::heads(fields)?;
    let window = spans::window(fields)?;
    let words = match super::layer_patterns::words(fields, &["layer_types"], layers)? {
        Some(words) => words,
        None => (1..=layers)
            .map(|layer| {
                if layer.is_multiple_of(4) {
                    "full_attention"
                } else {
                    "sliding_attention"
                }
            })
            .collect(),
    };

    let has_blocks = words.contains(&FEED_FORWARD);
    let sections = dory_sections(fields, layers, has_blocks)?;
    let looped = sections.input..sections.input.saturating_add(sections.recurrent);
    let mode = fields.value("recurrent_kv_cache_mode");
    if mode.is_some_and(|mode| !mode.is_string()) {
        return Err(fields.family("recurrent_kv_cache_mode that is no text"));
    }
    let loops = match fields.text("recurrent_kv_cache_mode") {
        None | Some("per_loop") => passes_of(fields.need(&["n_recurrent_loops"])?)?,
        Some("last_loop") => 1,
        Some(other) => return Err(fields.family(format!("recurrent_kv_cache_mode = {other}"))),
    };

    let dense = FeedForward::Dense {
        width: experts::intermediate(fields)?,
    };
    words
        .iter()
        .enumerate()
        .map(|(layer, word)| {
            let (mixer, feed_forward) = match *word {
                FEED_FORWARD => (Mixer::None, dense),
                word => {
                    let span = spans::span_for_word(fields, layer, word, window)?;
                    let after = if has_blocks { FeedForward::None } else { dense };
                    (heads.mixer(span), after)
                }
            };

            Ok(LayerMixers {
                feed_forward: Some(feed_forward),
                passes: if looped.contains(&layer) { loops } else { 1 },
                ..LayerMixers::from(mixer)
            })
        })
        .collect()
}

/// Reads the sections of Dory's `layers` layers, or blocks.
///
/// The defaults count layers, which are two blocks each.
fn dory_sections(
    fields: &Fields<'_>,
    layers: usize,
    has_blocks: bool,
) -> Result<DorySections, Unsupported> {
    const ENDS: u64 = 8;

    let default = if has_blocks { 2 * ENDS } else { ENDS };
    let [input, output] = ["n_input_layers", "n_output_layers"]
        .map(|key| Ok(fields.count(&[key])?.unwrap_or(default)));
    let (input, output): (u64, u64) = (input?, output?);
    let ends = input.saturating_add(output);
    let Some(rest) = (layers as u64).checked_sub(ends) else {
        let why = format!("the model has {layers} layers, of which {ends} are not in the loop");
        return Err(contradiction("n_input_layers", &input.into(), why));
    };

    let recurrent = fields.count(&["n_recurrent_layers"])?.unwrap_or(rest);
    if recurrent != rest {
        let why = format!("{layers} layers are not {ends} at the ends and {recurrent} in the loop");
        return Err(contradiction("n_recurrent_layers", &recurrent.into(), why));
    }

    let size = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    Ok(DorySections {
        input: size(input),
        recurrent: size(recurrent),
    })
}
