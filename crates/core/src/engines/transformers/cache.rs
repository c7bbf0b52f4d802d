//! transformers' caches: every token of full layers, W - 1 tokens of sliding ones, and one layer
//! twice while it grows.
//!
//! Source: transformers 5.23 `cache_utils.py`. Version 4 caches the latent families' expanded
//! heads.

use super::settings::TransformersSettings;
use crate::bytes::Bytes;
use crate::engines::logical::state_elements;
use crate::engines::shared::layer_kinds::RankLayers;
use crate::engines::{Interval, Workload};
use crate::model::architecture::{Architecture, Mixer, Span};

/// Elements that one mixer caches of a sequence of `tokens`.
fn elements(mixer: &Mixer, settings: &TransformersSettings, tokens: u64) -> Bytes {
    match mixer {
        Mixer::Attention(attention) if !attention.shares_cache => {
            let cached = match attention.span {
                Span::Full => tokens,
                // A static layer allocates its whole window; a dynamic layer drops the token that
                // leaves it.
                Span::Sliding { window } | Span::Chunked { chunk: window }
                    if settings.static_cache =>
                {
                    tokens.min(window)
                }
                Span::Sliding { window } | Span::Chunked { chunk: window } => {
                    tokens.min(window.saturating_sub(1))
                }
                Span::Cross { tokens } => tokens,
                Span::Bidirectional => 0,
            };
            Bytes::product([
                cached,
                attention.kv_heads,
                attention.key_dim.saturating_add(attention.value_dim),
            ])
        }
        Mixer::Latent(latent) if settings.expands_latent => {
            let width = latent
                .nope_dim
                .saturating_add(latent.rope_dim)
                .saturating_add(latent.value_dim);
            Bytes::product([tokens, latent.heads, width])
        }
        Mixer::Latent(latent) => {
            let key = latent.indexer.map_or(0, |indexer| indexer.head_dim);
            Bytes::product([
                tokens,
                latent
                    .kv_lora_rank
                    .saturating_add(latent.rope_dim)
                    .saturating_add(key),
            ])
        }
        _ => Bytes::ZERO,
    }
}

/// The caches of `layers`.
///
/// The high end includes the copy that concatenation makes of the largest layer, the low end does
/// not.
pub(super) fn held(
    layers: &RankLayers<'_>,
    settings: &TransformersSettings,
    workload: Workload,
) -> Interval {
    if !settings.use_cache {
        return Interval::default();
    }

    let (mut sum, mut largest) = (Bytes::ZERO, Bytes::ZERO);
    for (mixer, count) in layers.mixers() {
        let layer = elements(mixer, settings, workload.context)
            * settings.element_bytes()
            * workload.sequences;
        sum += layer * count;
        largest = largest.max(layer);
    }

    if settings.static_cache {
        return Interval::exact(sum);
    }

    Interval::new(sum, sum + largest, sum + largest)
}

/// Cache bytes of one more token, over the layers whose window is not yet full.
pub(super) fn per_token(architecture: &Architecture, settings: &TransformersSettings) -> Bytes {
    if !settings.use_cache {
        return Bytes::ZERO;
    }

    let context = settings.workload.context;
    architecture
        .mixers(0..architecture.layer_count())
        .map(|mixer| {
            let now = elements(mixer, settings, context);
            let next = elements(mixer, settings, context.saturating_add(1));
            next.less(now).unwrap_or(Bytes::OVERFLOW) * settings.element_bytes()
        })
        .sum()
}

/// States of one sequence.
///
/// Convolutions have the model's dtype. Recurrent states have it too, or 32-bit floats, depending
/// on the model.
pub(super) fn states(
    architecture: &Architecture,
    settings: &TransformersSettings,
    layers: &RankLayers<'_>,
) -> Interval {
    let element = settings.element_bytes();
    let configured = architecture
        .state_dtype
        .map_or(element, |dtype| dtype.block().1);
    let [low, likely, high] =
        [element, configured, 4].map(|state_element| state_bytes(layers, element, state_element));

    Interval::new(low, likely, high)
}

/// State bytes of one sequence for two widths of elements: convolutions' and recurrent states'.
fn state_bytes(layers: &RankLayers<'_>, conv_element: u64, state_element: u64) -> Bytes {
    layers
        .mixers()
        .filter_map(|(mixer, count)| match mixer {
            Mixer::Recurrent(recurrent) => {
                let (conv, state) = state_elements(recurrent);
                Some((conv * conv_element + state * state_element) * count)
            }
            _ => None,
        })
        .sum()
}

/// The interval for several sequences.
pub(super) fn scaled(interval: Interval, sequences: u64) -> Interval {
    Interval {
        low: interval.low * sequences,
        likely: interval.likely * sequences,
        high: interval.high * sequences,
    }
}
