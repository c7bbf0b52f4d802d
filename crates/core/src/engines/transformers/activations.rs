//! The transient peak of one step: the widest of attention and feed-forward over the whole prompt,
//! then one row of logits.
//!
//! The figures are assumed from shapes and not fitted to readings, so the interval is wide.
//! `generate` computes logits for the last position only and copies them to 32-bit floats
//! (transformers `generation/utils.py`, `logits_to_keep`).

use super::encoder_activations;
use super::settings::TransformersSettings;
use crate::bytes::Bytes;
use crate::engines::shared::layer_kinds::RankLayers;
use crate::engines::{Interval, Workload};
use crate::model::architecture::{Architecture, FeedForward, Mixer, Span, Task};

/// The peak on a device that holds `layers`.
///
/// `first` and `last` say whether it has the first and the last stage.
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
    let forward =
        hidden * 2 + Bytes::product([tokens.get(), widest_elements(architecture, layers), element]);
    let scores = score_bytes(settings, layers, workload);
    let mask = mask_bytes(settings, layers, workload);

    let logits = match architecture.task {
        Task::Generate | Task::EncodeDecode if last => Bytes::product([
            workload.sequences,
            architecture.vocab_size,
            element.saturating_add(4),
        ]),
        _ => Bytes::ZERO,
    };

    let (vision, speech) = if first {
        (
            vision(architecture, element),
            speech(architecture, tokens, element).max(encoder_activations::longest_input(
                architecture,
                workload.sequences,
                element,
            )),
        )
    } else {
        (Interval::default(), Bytes::ZERO)
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

/// The detail of the peak, for the answer.
pub(super) fn step_detail(settings: &TransformersSettings, workload: Workload) -> String {
    let chunk = settings.prefill_chunk.unwrap_or(workload.context);
    format!(
        "{} of the prompt's tokens at once, {} attention",
        workload.context.min(chunk),
        if settings.eager { "eager" } else { "fused" }
    )
}

/// Elements of the widest intermediate of a layer, for one token.
///
/// In the feed-forward: gate, up and their product. In the mixer: queries, keys and values for
/// every query head.
fn widest_elements(architecture: &Architecture, layers: &RankLayers<'_>) -> u64 {
    layers
        .iter()
        .map(|layer| {
            feed_forward_elements(architecture, layer.feed_forward)
                .max(mixer_elements(architecture, &layer.mixer))
        })
        .max()
        .unwrap_or(0)
}

fn feed_forward_elements(architecture: &Architecture, feed_forward: FeedForward) -> u64 {
    match feed_forward {
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
    }
}

fn mixer_elements(architecture: &Architecture, mixer: &Mixer) -> u64 {
    match mixer {
        // transformers repeats keys and values for the query heads that share them (`repeat_kv`).
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
        // The projections of the scan, part of them in 32-bit floats.
        Mixer::Recurrent(_) => architecture.hidden_size.saturating_mul(12),
        Mixer::None => 0,
    }
}

/// Pairs of tokens that attention computes at once.
fn token_pairs(settings: &TransformersSettings, workload: Workload) -> Bytes {
    let tokens = workload
        .context
        .min(settings.prefill_chunk.unwrap_or(workload.context));
    Bytes::product([workload.sequences, tokens, workload.context])
}

/// Scores of eager attention, with their 32-bit softmax.
fn score_bytes(
    settings: &TransformersSettings,
    layers: &RankLayers<'_>,
    workload: Workload,
) -> Bytes {
    if !settings.eager {
        return Bytes::ZERO;
    }

    let heads = layers
        .mixers()
        .filter_map(|(mixer, _)| match mixer {
            Mixer::Attention(attention) => Some(attention.heads),
            Mixer::Latent(latent) => Some(latent.heads),
            _ => None,
        })
        .max()
        .unwrap_or(0);

    token_pairs(settings, workload) * heads * settings.element_bytes().saturating_add(4)
}

/// The mask that fused attention takes.
///
/// SDPA takes no mask for plain causal attention. A window shorter than the prompt and padded
/// sequences need one, which PyTorch converts to the compute dtype (`convert_boolean_attn_mask`).
fn mask_bytes(
    settings: &TransformersSettings,
    layers: &RankLayers<'_>,
    workload: Workload,
) -> Bytes {
    let has_short_window = layers.mixers().any(|(mixer, _)| match mixer {
        Mixer::Attention(attention) => match attention.span {
            Span::Sliding { window } | Span::Chunked { chunk: window } => window < workload.context,
            _ => false,
        },
        _ => false,
    });

    let masked = workload.sequences > 1 || has_short_window;
    if masked && !settings.attention.starts_with("flash") {
        token_pairs(settings, workload) * settings.element_bytes().saturating_add(1)
    } else {
        Bytes::ZERO
    }
}

/// The first convolution over raw audio: its output, the norm's and the activation's (transformers
/// `HubertFeatureEncoder`, `Wav2Vec2FeatureEncoder`).
///
/// A frame is 320 samples, of which the convolution keeps a fifth, in 512 channels.
fn speech(architecture: &Architecture, frames: Bytes, element: u64) -> Bytes {
    if !SPEECH_ENCODERS.contains(&&*architecture.root_model_type) {
        return Bytes::ZERO;
    }

    frames * 64 * 512 * 3 * element
}

/// Encoders of raw audio.
const SPEECH_ENCODERS: &[&str] = &[
    "hubert",
    "wav2vec2",
    "wavlm",
    "unispeech",
    "unispeech-sat",
    "data2vec-audio",
];

/// The peak of the vision tower for one image.
fn vision(architecture: &Architecture, element: u64) -> Interval {
    /// Patches of the largest image of Qwen2-VL's default processor, for configurations that give
    /// no number.
    const MAX_PATCHES: u64 = 16_384;

    let Some(tower) = architecture.vision else {
        return Interval::default();
    };

    let width = tower
        .hidden_size
        .saturating_mul(4)
        .saturating_add(tower.intermediate_size.saturating_mul(2));
    let patches = tower.patches_per_item.unwrap_or(MAX_PATCHES / 4);
    let likely = Bytes::product([patches, width, element]);
    let high = Bytes::product([patches.saturating_mul(4), width, element]);

    Interval::new(Bytes::ZERO, likely, high)
}
