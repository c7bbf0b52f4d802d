//! Widths of a layer's tensors, in elements.

use crate::model::architecture::{FeedForward, LatentAttention, Layer, Mixer, Recurrent};

/// The saturating sum of `parts`.
pub(super) fn sum<const N: usize>(parts: [u64; N]) -> u64 {
    parts.into_iter().fold(0, u64::saturating_add)
}

/// The width of a dense feed-forward.
pub(super) fn dense_width(layer: &Layer) -> u64 {
    match layer.feed_forward {
        FeedForward::Dense { width } => width,
        FeedForward::Experts | FeedForward::None => 0,
    }
}

/// Elements of one token's queries.
pub(super) fn query_width(mixer: &Mixer) -> u64 {
    match mixer {
        Mixer::Attention(attention) => attention.heads.saturating_mul(attention.value_dim),
        Mixer::Latent(latent) => latent.heads.saturating_mul(latent.value_dim),
        Mixer::Recurrent(recurrent) => channels(recurrent),
        Mixer::None => 0,
    }
}

/// Floats of one head while queries are projected into the latent space: 1504 for rank 512, rotary
/// 64 and 128 other dimensions.
pub(super) fn absorbed_floats(latent: &LatentAttention) -> u64 {
    let latent_row = sum([latent.kv_lora_rank, latent.rope_dim]);
    sum([
        latent_row.saturating_mul(2),
        latent.nope_dim.saturating_mul(2),
        latent.rope_dim,
        32,
    ])
}

/// Channels of a gated delta net's convolution: values, and keys twice.
pub(super) fn convolved(mixer: &Mixer) -> u64 {
    match *mixer {
        Mixer::Recurrent(Recurrent::GatedDelta {
            key_heads,
            value_heads,
            key_dim,
            value_dim,
            ..
        }) => sum([
            value_heads.saturating_mul(value_dim),
            key_heads.saturating_mul(key_dim).saturating_mul(2),
        ]),
        _ => 0,
    }
}

/// Channels of a recurrent layer.
pub(super) fn channels(recurrent: &Recurrent) -> u64 {
    match *recurrent {
        Recurrent::Mamba1 { inner, .. } => inner,
        Recurrent::Mamba2 {
            inner,
            groups,
            state,
            ..
        } => sum([inner, groups.saturating_mul(state).saturating_mul(2)]),
        Recurrent::GatedDelta {
            value_heads,
            value_dim,
            ..
        } => value_heads.saturating_mul(value_dim),
        Recurrent::Kda {
            heads, head_dim, ..
        }
        | Recurrent::Lightning { heads, head_dim } => heads.saturating_mul(head_dim),
        Recurrent::ShortConv { width, .. } | Recurrent::PastInputs { width, .. } => width,
        Recurrent::ConvStreams { hidden, .. } => hidden,
        Recurrent::Rwkv { hidden, .. } => hidden,
    }
}

/// Elements of a recurrent layer's inner row; of Mamba-2's groups, one of B and C.
pub(super) fn inner_width(recurrent: &Recurrent) -> u64 {
    match *recurrent {
        Recurrent::Mamba2 {
            inner,
            groups,
            state,
            ..
        } => inner.saturating_add(groups.saturating_mul(state)),
        _ => channels(recurrent),
    }
}
