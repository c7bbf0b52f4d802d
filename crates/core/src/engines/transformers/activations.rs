//! The transient peak of one step: the widest of attention and feed-forward over the whole prompt,
//! then one row of logits.
//!
//! Assumed from shapes, not fitted to readings: the interval is wide. `generate` computes logits
//! for the last position only and copies them to 32-bit floats (transformers `generation/utils.py`,
//! `logits_to_keep`).

use super::super::shared::layer_kinds::RankLayers;
use super::super::{Interval, Workload};
use super::settings::TransformersSettings;
use crate::bytes::Bytes;
use crate::model::architecture::{Architecture, Attention, FeedForward, Mixer, Span, Task};

/// The peak on a device that holds `layers`; `first` and `last` if it has the first and last stage.
pub(super) fn step(
    architecture: &Architecture,
    settings: &TransformersSettings,
    workload: Workload,
    layers: &RankLayers<'_>,
    (first, last): (bool, bool),
) -> Interval {
    let element = settings.element_bytes();
    let chunk = settings.prefill_chunk.unwrap_or(workload.context);
    let tokens = Bytes::product([workload.sequences, workload.context.min(chunk)]);
    let hidden = tokens * architecture.hidden_size * element;
    let forward = hidden * 2 + widest(architecture, layers, tokens.get(), element);
    let (scores, mask) = attention(settings, layers, workload);

    let logits = match architecture.task {
        Task::Generate | Task::EncodeDecode if last => Bytes::product([
            workload.sequences,
            architecture.vocab_size,
            element.saturating_add(4),
        ]),
        _ => Bytes::ZERO,
    };

    let vision = if first {
        vision(architecture, element)
    } else {
        Interval::default()
    };

    let speech = if first {
        speech(architecture, tokens, element)
    } else {
        Bytes::ZERO
    };

    let likely = (forward + scores)
        .max(logits)
        .max(vision.likely)
        .max(speech);
    let high = (forward.scale(3, 2) + scores + mask)
        .max(logits * 2)
        .max(vision.high)
        .max(speech.scale(3, 2));

    Interval::new(forward.scale(1, 2).max(logits), likely, high)
}

/// What the peak consists of.
pub(super) fn told(settings: &TransformersSettings, workload: Workload) -> String {
    let chunk = settings.prefill_chunk.unwrap_or(workload.context);
    format!(
        "{} of the prompt's tokens at once, {} attention",
        workload.context.min(chunk),
        if settings.eager { "eager" } else { "fused" }
    )
}

/// The widest intermediate of a layer: gate, up and their product; or queries, keys and values for
/// every query head.
fn widest(
    architecture: &Architecture,
    layers: &RankLayers<'_>,
    tokens: u64,
    element: u64,
) -> Bytes {
    let feed_forward = |after: FeedForward| match after {
        FeedForward::Dense { width } => width.saturating_mul(3),
        FeedForward::Experts => architecture.experts.map_or(0, |experts| {
            let routed = experts.active.saturating_mul(
                experts
                    .width
                    .saturating_mul(3)
                    .saturating_add(architecture.hidden_size),
            );
            routed.saturating_add(experts.shared_width.saturating_mul(3))
        }),
        FeedForward::None => 0,
    };

    let mixer = |mixer: &Mixer| match mixer {
        // Keys and values are repeated for the query heads that share them (`repeat_kv`).
        Mixer::Attention(attention) => {
            let width = attention
                .key_dim
                .saturating_mul(2)
                .saturating_add(attention.value_dim.saturating_mul(2));
            attention.heads.saturating_mul(width)
        }
        Mixer::Latent(latent) => {
            let key = latent.nope_dim.saturating_add(latent.rope_dim);
            latent.heads.saturating_mul(
                key.saturating_mul(2)
                    .saturating_add(latent.value_dim.saturating_mul(2)),
            )
        }
        // Projections of the scan, in 32-bit floats for part of it.
        Mixer::Recurrent(_) => architecture.hidden_size.saturating_mul(12),
        Mixer::None => 0,
    };

    let width = layers
        .iter()
        .map(|layer| feed_forward(layer.feed_forward).max(mixer(&layer.mixer)))
        .max()
        .unwrap_or(0);

    Bytes::product([tokens, width, element])
}

/// Scores of eager attention (with their 32-bit softmax), and the mask that fused attention is
/// given.
///
/// SDPA takes no mask for plain causal attention; a window shorter than the prompt, or padded
/// sequences, need one, which PyTorch turns into the compute dtype (`convert_boolean_attn_mask`).
fn attention(
    settings: &TransformersSettings,
    layers: &RankLayers<'_>,
    workload: Workload,
) -> (Bytes, Bytes) {
    let element = settings.element_bytes();
    let tokens = workload
        .context
        .min(settings.prefill_chunk.unwrap_or(workload.context));
    let pairs = Bytes::product([workload.sequences, tokens, workload.context]);

    let attentions = || {
        layers.mixers().filter_map(|(mixer, _)| match mixer {
            Mixer::Attention(attention) => Some(attention),
            _ => None,
        })
    };

    let scores = if settings.eager {
        let latent = layers.mixers().filter_map(|(mixer, _)| match mixer {
            Mixer::Latent(latent) => Some(latent.heads),
            _ => None,
        });
        let heads = attentions()
            .map(|attention| attention.heads)
            .chain(latent)
            .max()
            .unwrap_or(0);

        pairs * heads * element.saturating_add(4)
    } else {
        Bytes::ZERO
    };

    let slides = |attention: &Attention| match attention.span {
        Span::Sliding { window } | Span::Chunked { chunk: window } => window < workload.context,
        _ => false,
    };

    let masked = workload.sequences > 1 || attentions().any(slides);
    let flash = settings.attention.starts_with("flash");
    let mask = if masked && !flash {
        pairs * element.saturating_add(1)
    } else {
        Bytes::ZERO
    };

    (scores, mask)
}

/// The first convolution over raw audio: 512 channels at a fifth of the 320 samples that become one
/// frame, its input to the norm, the norm's output and the activation's (transformers
/// `HubertFeatureEncoder`, `Wav2Vec2FeatureEncoder`).
fn speech(architecture: &Architecture, frames: Bytes, element: u64) -> Bytes {
    if !SPEECH.contains(&&*architecture.root_model_type) {
        return Bytes::ZERO;
    }
    frames * 64 * 512 * 3 * element
}

/// Encoders of raw audio.
pub(super) const SPEECH: &[&str] = &[
    "hubert",
    "wav2vec2",
    "wavlm",
    "unispeech",
    "unispeech-sat",
    "data2vec-audio",
];

/// One image through the tower.
fn vision(architecture: &Architecture, element: u64) -> Interval {
    /// Where the configuration does not tell: the largest image of Qwen2-VL's default processor.
    const MOST_PATCHES: u64 = 16_384;

    let Some(tower) = architecture.vision else {
        return Interval::default();
    };

    let width = tower
        .hidden_size
        .saturating_mul(4)
        .saturating_add(tower.intermediate_size.saturating_mul(2));
    let peak = |patches| Bytes::product([patches, width, element]);
    let patches = tower.patches_per_item.unwrap_or(MOST_PATCHES / 4);

    Interval::new(Bytes::ZERO, peak(patches), peak(patches.saturating_mul(4)))
}
