//! The rules that a model's cache follows, by what its layers remember.
//!
//! An engine's code treats each of these classes on its own, so each is verified on its own.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::model::Architecture;
use crate::model::architecture::{Attention, LatentAttention, Mixer, Recurrent, Span};

/// A class of rules for one part of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryRule {
    /// Weights as the headers list them.
    Weights,
    /// Keys and values of every token.
    FullAttention,
    /// Keys and values of a window of tokens.
    SlidingWindows,
    /// Keys and values of a chunk of tokens (Llama 4).
    ChunkedWindows,
    /// Keys and values of an encoder's output.
    CrossAttention,
    /// Latents of every token (DeepSeek V2 and V3).
    Latents,
    /// Latents and the keys of an indexer (DeepSeek V3.2).
    IndexedLatents,
    /// Latents that are compressed over several tokens (DeepSeek V4).
    CompressedLatents,
    /// States of gated delta nets.
    GatedDelta,
    /// States of Kimi delta attention.
    KimiDelta,
    /// States of Mamba-1.
    Mamba1,
    /// States of Mamba-2.
    Mamba2,
    /// States of lightning attention.
    Lightning,
    /// States of short convolutions.
    ShortConvolutions,
    /// Inputs that convolutions in attention layers look back at (Inkling, ZAYA, Qwen4-Exp).
    PastInputs,
    /// States of RWKV.
    Rwkv,
    /// Caches of layers that one pass runs several times (HRM, Dory, Inkling 2 Mini).
    LoopedLayers,
    /// A cache in fewer than 16 bits.
    QuantizedCache,
}

impl MemoryRule {
    /// The rule in words, as answers name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::FullAttention => "caches of full attention",
            Self::SlidingWindows => "caches of sliding windows",
            Self::ChunkedWindows => "caches of chunked windows",
            Self::CrossAttention => "caches of an encoder's output",
            Self::Latents => "caches of latents",
            Self::IndexedLatents => "caches of latents with an indexer",
            Self::CompressedLatents => "caches of compressed latents",
            Self::GatedDelta => "states of gated delta nets",
            Self::KimiDelta => "states of Kimi delta attention",
            Self::Mamba1 => "states of Mamba-1",
            Self::Mamba2 => "states of Mamba-2",
            Self::Lightning => "states of lightning attention",
            Self::ShortConvolutions => "states of short convolutions",
            Self::PastInputs => "past inputs of convolutions",
            Self::Rwkv => "states of RWKV",
            Self::LoopedLayers => "caches of looped layers",
            Self::QuantizedCache => "quantized caches",
        }
    }

    /// The rules that the caches and states of `architecture` follow.
    pub fn of_cache(architecture: &Architecture, kv_cache_dtype: &str) -> BTreeSet<Self> {
        let mut rules: BTreeSet<Self> = architecture
            .mixers(0..architecture.layer_count())
            .filter_map(Self::of_mixer)
            .collect();

        if architecture.is_looped() {
            rules.insert(Self::LoopedLayers);
        }

        if !rules.is_empty() && is_quantized(kv_cache_dtype) {
            rules.insert(Self::QuantizedCache);
        }

        rules
    }

    /// The rule of one mixer; `None` for one that remembers nothing.
    fn of_mixer(mixer: &Mixer) -> Option<Self> {
        match mixer {
            Mixer::Attention(attention) => Self::of_attention(attention),
            Mixer::Latent(latent) => Some(Self::of_latent(latent)),
            Mixer::Recurrent(recurrent) => Some(Self::of_recurrent(recurrent)),
            Mixer::None => None,
        }
    }

    fn of_attention(attention: &Attention) -> Option<Self> {
        match attention.span {
            Span::Full => Some(Self::FullAttention),
            Span::Sliding { .. } => Some(Self::SlidingWindows),
            Span::Chunked { .. } => Some(Self::ChunkedWindows),
            Span::Cross { .. } => Some(Self::CrossAttention),
            Span::Bidirectional => None,
        }
    }

    fn of_latent(latent: &LatentAttention) -> Self {
        if latent.compress_ratio.is_some() {
            Self::CompressedLatents
        } else if latent.indexer.is_some() {
            Self::IndexedLatents
        } else {
            Self::Latents
        }
    }

    fn of_recurrent(recurrent: &Recurrent) -> Self {
        match recurrent {
            Recurrent::Mamba1 { .. } => Self::Mamba1,
            Recurrent::Mamba2 { .. } => Self::Mamba2,
            Recurrent::GatedDelta { .. } => Self::GatedDelta,
            Recurrent::Kda { .. } => Self::KimiDelta,
            Recurrent::Lightning { .. } => Self::Lightning,
            Recurrent::ShortConv { .. } => Self::ShortConvolutions,
            Recurrent::ConvStreams { .. } | Recurrent::PastInputs { .. } => Self::PastInputs,
            Recurrent::Rwkv { .. } => Self::Rwkv,
        }
    }
}

/// Types of 16 bits and more, by any engine's names.
const WIDE_TYPES: &[&str] = &["f32", "f16", "bf16", "float32", "float16", "bfloat16"];

/// Whether a cache's dtype, by the engine's own name, has fewer than 16 bits.
fn is_quantized(dtype: &str) -> bool {
    dtype
        .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| word.chars().any(|letter| letter.is_ascii_digit()))
        .any(|word| !WIDE_TYPES.contains(&word.to_ascii_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantized_dtypes_are_found() {
        for dtype in ["fp8_e4m3", "nvfp4", "q8_0", "int8", "k f16, v q4_0"] {
            assert!(is_quantized(dtype), "{dtype}");
        }

        for dtype in ["", "none", "bfloat16", "F16", "k f16, v bf16", "float32"] {
            assert!(!is_quantized(dtype), "{dtype}");
        }
    }
}
