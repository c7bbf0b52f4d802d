//! DeepSeek V4's cache in transformers: a window, compressed entries, and the tokens that no entry
//! holds yet.
//!
//! Source: transformers 5.24 `models/deepseek_v4/modeling_deepseek_v4.py` (`DeepseekV4HCACache`,
//! `DeepseekV4CSACache`).

use crate::bytes::Bytes;
use crate::model::architecture::LatentAttention;

/// Bytes of a 32-bit float.
const FLOAT32: u64 = 4;

/// Bytes that one layer caches of a sequence of `tokens`.
///
/// `ratio` tokens make one entry; 0 is a layer with only a window. The window's keys are also its
/// values. Layers with an indexer have entries for it, and compress two overlapping series, so that
/// projections are twice as wide and the last window's first half is kept: keys in the model's
/// dtype, gates in 32-bit floats.
pub(super) fn bytes(latent: &LatentAttention, ratio: u64, tokens: u64, element: u64) -> Bytes {
    let head = head_elements(latent);
    let window = latent.window.unwrap_or(1).saturating_sub(1);
    let windowed = Bytes::product([tokens.min(window), head, element]);
    let (Some(entries), Some(waiting)) = (tokens.checked_div(ratio), tokens.checked_rem(ratio))
    else {
        return windowed;
    };

    let width = head.saturating_add(indexer_elements(latent));
    let compressed = Bytes::product([entries, width, element]);
    let buffers = Bytes::product([waiting, projection_elements(latent), element]);
    let overlap = if latent.indexer.is_some() && entries > 0 {
        Bytes::product([ratio, width, element.saturating_add(FLOAT32)])
    } else {
        Bytes::ZERO
    };

    windowed + compressed + buffers + overlap
}

/// Elements of a token whose projections stay allocated behind a prompt.
///
/// Window and buffers are slices, which keep the tensors that they were cut from.
pub(super) fn retained_elements(latent: &LatentAttention) -> u64 {
    match latent.compress_ratio {
        Some(ratio) if ratio > 0 => {
            head_elements(latent).saturating_add(projection_elements(latent))
        }
        _ => head_elements(latent),
    }
}

/// Elements of the layer's one head.
fn head_elements(latent: &LatentAttention) -> u64 {
    latent.kv_lora_rank.saturating_add(latent.rope_dim)
}

/// Elements of an indexer's entry.
fn indexer_elements(latent: &LatentAttention) -> u64 {
    latent.indexer.map_or(0, |indexer| indexer.head_dim)
}

/// Elements of the key and gate projections of one token.
fn projection_elements(latent: &LatentAttention) -> u64 {
    let width = head_elements(latent).saturating_add(indexer_elements(latent));
    let series = if latent.indexer.is_some() { 2 } else { 1 };
    width.saturating_mul(2).saturating_mul(series)
}
