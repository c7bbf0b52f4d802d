//! Patterns that assign one of several mixers to each layer of a decoder.

use super::super::architecture::{Mixer, Span, Unsupported};
use super::fields::Fields;
use super::heads;

/// Words for attention layers.
pub(super) const ATTENTION: &[&str] = &["attention", "full_attention"];
/// Words for recurrent layers.
///
/// transformers 5 calls every recurrent layer "linear attention" (`configuration_utils.py`,
/// `_LEGACY_LAYER_TYPE_REMAP`).
pub(super) const RECURRENT: &[&str] = &["mamba", "linear_attention"];

/// Reads the first of `keys` that lists one word for each layer.
pub(super) fn words<'a>(
    fields: &Fields<'a>,
    keys: &[&str],
    layers: usize,
) -> Result<Option<Vec<&'a str>>, Unsupported> {
    for key in keys {
        if let Some(words) = fields.words(key)? {
            return if words.len() == layers {
                Ok(Some(words))
            } else {
                Err(fields.length(key, words.len(), layers))
            };
        }
    }

    Ok(None)
}

/// Returns `attention` for the layers that `is_attention` selects, and `other` for the rest.
pub(super) fn mix(
    layers: usize,
    attention: &Mixer,
    other: &Mixer,
    is_attention: impl Fn(u64) -> bool,
) -> Vec<Mixer> {
    (0..layers as u64)
        .map(|layer| {
            if is_attention(layer) {
                attention.clone()
            } else {
                other.clone()
            }
        })
        .collect()
}

/// Returns the mixer of each layer by its word.
///
/// `mixers` lists the words of each mixer. Any other word is an error.
pub(super) fn by_words(
    fields: &Fields<'_>,
    words: &[&str],
    mixers: &[(&[&str], &Mixer)],
) -> Result<Vec<Mixer>, Unsupported> {
    words
        .iter()
        .enumerate()
        .map(|(layer, word)| {
            mixers
                .iter()
                .find(|(names, _)| names.contains(word))
                .map(|(_, mixer)| (*mixer).clone())
                .ok_or_else(|| fields.unknown_entry("layer_types", layer, word))
        })
        .collect()
}

/// Returns full attention with the heads that all layers share.
pub(super) fn full_attention(fields: &Fields<'_>) -> Result<Mixer, Unsupported> {
    Ok(heads::heads(fields)?.mixer(Span::Full))
}
