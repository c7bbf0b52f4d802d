//! Whether flash attention runs, and where.
//!
//! CUDA has flash-attention kernels for some head shapes only. llama.cpp's `auto` probes the graph
//! and turns flash attention off for the whole model if a device lacks a kernel. All heads' scores
//! then exist in the compute buffer, which takes several times the memory.

use super::cache::is_index;
use super::family_phases::noted;
use super::parameters::LlamaParameters;
use super::profile::LlamaProfile;
use crate::model::Dtype;
use crate::model::architecture::{Architecture, Mixer};

/// How attention is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttentionMode {
    /// By a flash-attention kernel of the device.
    Flash,
    /// By flash attention on the host, which was demanded for a shape without a kernel.
    FlashOnHost,
    /// By scores, with the transposed values that a cache without flash attention has.
    Scores,
    /// By scores over a cache that was made for flash attention: its values are copied transposed.
    ScoresAfterFlash,
}

impl AttentionMode {
    /// Whether llama.cpp's flash attention is on.
    pub(crate) fn is_flash(self) -> bool {
        matches!(self, Self::Flash | Self::FlashOnHost)
    }

    /// Whether the cache holds transposed values.
    pub(crate) fn transposes_values(self) -> bool {
        self == Self::Scores
    }

    /// The mode of `architecture` under `parameters`, with keys and values of these types.
    ///
    /// Source: llama.cpp b12032 `src/llama-context.cpp` (`llama_init_from_model`,
    /// `llama_context::resolve_fused_ops`).
    pub(crate) fn new(
        architecture: &Architecture,
        parameters: &LlamaParameters,
        profile: &LlamaProfile,
        [keys, values]: [Dtype; 2],
    ) -> Self {
        if !profile.flash_needs_kernel {
            return match parameters.flash_attn {
                Some(false) => Self::Scores,
                Some(true) | None => Self::Flash,
            };
        }

        // Grok's loader forces it off.
        if parameters.flash_attn == Some(false) || architecture.class == "grok" {
            return Self::Scores;
        }

        // `build_attn_mha` cannot add T5's relative bias to a flash attention.
        if matches!(&*architecture.class, "t5" | "t5encoder") {
            return Self::ScoresAfterFlash;
        }

        let supported = has_type(keys)
            && has_type(values)
            && architecture
                .mixers(0..u32::MAX)
                .all(|mixer| HeadShape::of(mixer).is_none_or(HeadShape::has_kernel));

        match parameters.flash_attn {
            _ if supported => Self::Flash,
            Some(true) => Self::FlashOnHost,
            // A quantized V cache demands it.
            None if values.block().0 > 1 => Self::FlashOnHost,
            _ => Self::ScoresAfterFlash,
        }
    }
}

/// Whether flash-attention kernels read this cache type (`ggml_cuda_fattn_kv_type_supported`).
fn has_type(dtype: Dtype) -> bool {
    dtype != Dtype::IQ4_NL
}

/// The shape of an attention's heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadShape {
    /// Elements of a key head.
    pub(crate) key: u64,
    /// Elements of a value head.
    pub(crate) value: u64,
    /// Query heads for each KV head.
    queries: u64,
}

impl HeadShape {
    /// The shape of `mixer`'s heads; `None` if it has no attention.
    pub(crate) fn of(mixer: &Mixer) -> Option<Self> {
        match mixer {
            Mixer::Attention(attention) if is_index(attention) => None,
            Mixer::Latent(latent) if latent.kv_lora_rank == 0 => None,
            Mixer::Attention(attention) => Some(Self {
                key: attention.key_dim,
                value: attention.value_dim,
                queries: attention.heads / attention.kv_heads.max(1),
            }),
            // All heads read one latent, whose first part is the value.
            // DeepSeek V4's value is the whole head, rotated part included.
            Mixer::Latent(latent) if latent.compress_ratio.is_some() => Some(Self {
                key: latent.value_dim,
                value: latent.value_dim,
                queries: latent.heads,
            }),
            Mixer::Latent(latent) => Some(Self {
                key: latent.kv_lora_rank.saturating_add(latent.rope_dim),
                value: latent.kv_lora_rank,
                queries: latent.heads,
            }),
            Mixer::Recurrent(_) | Mixer::None => None,
        }
    }

    /// Whether CUDA has a kernel for the shape.
    ///
    /// Source: llama.cpp b12032 `ggml/src/ggml-cuda/fattn.cu` (`ggml_cuda_get_best_fattn_kernel`).
    /// The mask is always padded, so its other conditions hold.
    pub(crate) fn has_kernel(self) -> bool {
        match (self.key, self.value) {
            (40 | 64 | 72 | 80 | 96 | 112 | 128 | 256, value) => value == self.key,
            (192, 128) => self.queries.is_multiple_of(8) && self.queries > 0,
            (320, 256) => self.queries.is_multiple_of(32) && self.queries > 0,
            (512 | 576, 512) => self.queries >= 2,
            _ => false,
        }
    }
}

/// Architectures whose indexers score with `GGML_OP_LIGHTNING_INDEXER`.
const INDEXED: [&str; 6] = [
    "deepseek4",
    "deepseek41",
    "dots3note",
    "glm5-next",
    "hy_v4",
    "mistral-large4",
];

/// The heads and their elements of an indexer that CUDA has no kernel for; `None` if it has one.
///
/// The scores are then computed on the host. Source: llama.cpp b12032
/// `ggml/src/ggml-cuda/lightning-indexer.cu` (`ggml_cuda_lightning_indexer_supported`).
pub(crate) fn unsupported_indexer(architecture: &Architecture) -> Option<(u64, u64)> {
    if !INDEXED.contains(&&*architecture.class) {
        return None;
    }

    let heads = noted(architecture, "attention.indexer.head_count")?;
    let elements = noted(architecture, "attention.indexer.key_length")?;
    let has_kernel = elements == 128 && matches!(heads, 4 | 32 | 64);
    (!has_kernel).then_some((heads, elements))
}

/// The first head shape of `architecture` without a kernel.
pub(crate) fn unsupported_shape(architecture: &Architecture) -> Option<HeadShape> {
    architecture
        .mixers(0..u32::MAX)
        .filter_map(HeadShape::of)
        .find(|shape| !shape.has_kernel())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (key, value, query heads for each KV head, whether a kernel exists).
    const SHAPES: [(u64, u64, u64, bool); 14] = [
        (64, 64, 1, true),
        (128, 128, 4, true),
        (256, 256, 2, true),
        (96, 64, 1, false),
        (128, 96, 1, false),
        (160, 160, 4, false),
        (192, 128, 8, true),
        (192, 128, 1, false),
        (192, 192, 8, false),
        (320, 256, 32, true),
        (320, 256, 16, false),
        (512, 512, 2, true),
        (576, 512, 16, true),
        (576, 512, 1, false),
    ];

    #[test]
    fn shapes_without_kernel_are_unsupported() {
        for (key, value, queries, has_kernel) in SHAPES {
            let shape = HeadShape {
                key,
                value,
                queries,
            };
            assert_eq!(shape.has_kernel(), has_kernel, "{shape:?}");
        }
    }
}
