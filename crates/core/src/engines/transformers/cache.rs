//! transformers' caches: every token of full layers, W - 1 tokens of sliding ones, one layer twice
//! while it grows.
//!
//! Source: transformers 5.23 `cache_utils.py`; version 4 cached the latent families' expanded
//! heads.

use super::super::logical::state_elements;
use super::super::shared::layer_kinds::RankLayers;
use super::super::{Interval, Workload};
use super::settings::TransformersSettings;
use crate::bytes::Bytes;
use crate::model::architecture::{Architecture, Mixer, Span};

/// Elements that one mixer keeps of a sequence of `tokens`.
fn elements(mixer: &Mixer, settings: &TransformersSettings, tokens: u64) -> Bytes {
    match mixer {
        Mixer::Attention(attention) if !attention.shares_cache => {
            let seen = match attention.span {
                Span::Full => tokens,
                // A static layer allocates its whole window, a dynamic one drops the token that
                // falls out.
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
                seen,
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

/// The caches of `layers`: low without, high with the copy that concatenation makes of the largest
/// layer.
pub(super) fn held(
    layers: &RankLayers<'_>,
    settings: &TransformersSettings,
    workload: Workload,
) -> Interval {
    if !settings.use_cache {
        return Interval::default();
    }

    let each = |mixer: &Mixer| {
        elements(mixer, settings, workload.context) * settings.element_bytes() * workload.sequences
    };

    let sum: Bytes = layers
        .mixers()
        .map(|(mixer, count)| each(mixer) * count)
        .sum();
    if settings.static_cache {
        return Interval::exact(sum);
    }

    let largest = layers
        .mixers()
        .map(|(mixer, _)| each(mixer))
        .max()
        .unwrap_or(Bytes::ZERO);

    Interval::new(sum, sum + largest, sum + largest)
}

/// Cache bytes of one more token: layers whose window is not yet full.
pub(super) fn per_token(architecture: &Architecture, settings: &TransformersSettings) -> Bytes {
    if !settings.use_cache {
        return Bytes::ZERO;
    }

    let context = settings.workload.context;
    let one = |mixer: &Mixer| {
        let (more, now) = (
            elements(mixer, settings, context.saturating_add(1)),
            elements(mixer, settings, context),
        );
        more.less(now).unwrap_or(Bytes::OVERFLOW) * settings.element_bytes()
    };

    architecture
        .mixers(0..architecture.layer_count())
        .map(one)
        .sum()
}

/// States of one sequence: convolutions in the model's dtype, recurrent states in it or in 32-bit
/// floats, by model.
pub(super) fn states(
    architecture: &Architecture,
    settings: &TransformersSettings,
    layers: &RankLayers<'_>,
) -> Interval {
    let sum = |bytes: u64| -> Bytes {
        let recurrent = layers.mixers().filter_map(|(mixer, count)| match mixer {
            Mixer::Recurrent(recurrent) => Some((state_elements(recurrent), count)),
            _ => None,
        });
        recurrent
            .map(|((conv, state), count)| (conv * settings.element_bytes() + state * bytes) * count)
            .sum()
    };

    let own = architecture
        .state_dtype
        .map_or(settings.element_bytes(), |dtype| dtype.block().1);

    Interval::new(sum(settings.element_bytes()), sum(own), sum(4))
}

/// An interval for several sequences.
pub(super) fn scaled(interval: Interval, sequences: u64) -> Interval {
    Interval {
        low: interval.low * sequences,
        likely: interval.likely * sequences,
        high: interval.high * sequences,
    }
}
