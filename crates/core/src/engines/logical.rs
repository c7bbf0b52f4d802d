//! Logical cache and state sizes, without any engine: cache bytes at N tokens, bytes of one more
//! token, states of a sequence.
//!
//! There is no paging, padding or kernel here: the sum over layers of min(N, window) x elements x
//! bytes of an element, plus recurrent states. Each figure is the least that any supported engine
//! keeps by default; docs/conformance.md lists the choices. Engines that allocate otherwise have
//! their own arithmetic.

use std::ops::Range;

use crate::bytes::Bytes;
use crate::model::Dtype;
use crate::model::architecture::{Architecture, Indexer, LatentAttention, Mixer, Recurrent, Span};

/// The storage of cache elements: `bytes` for each block of `elements`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheElement {
    /// Elements of a block.
    pub elements: u64,
    /// Bytes of a block.
    pub bytes: u64,
}

impl CacheElement {
    /// The element of a dtype.
    pub const fn of(dtype: Dtype) -> Self {
        let (elements, bytes) = dtype.block();
        Self { elements, bytes }
    }

    /// The element for an engine's dtype name; `None` for an unknown name.
    ///
    /// Sources: vLLM `utils/torch_utils.py` (`STR_DTYPE_TO_TORCH_DTYPE`), ggml's block types; NVFP4
    /// is 4 bits and one byte of scale for 16 elements.
    pub fn named(name: &str) -> Option<Self> {
        let (elements, bytes) = match name.to_ascii_lowercase().as_str() {
            "float32" | "fp32" | "f32" => (1, 4),
            "bfloat16" | "bf16" | "float16" | "fp16" | "f16" | "half" => (1, 2),
            "fp8" | "fp8_e4m3" | "fp8_e5m2" | "fp8_inc" | "int8" => (1, 1),
            "nvfp4" | "fp4" | "fp4_e2m1" => (16, 9),
            "q8_0" => (32, 34),
            "q5_1" => (32, 24),
            "q5_0" => (32, 22),
            "q4_1" => (32, 20),
            "q4_0" | "iq4_nl" => (32, 18),
            _ => return None,
        };

        Some(Self { elements, bytes })
    }

    fn times(self, count: Bytes) -> Bytes {
        count.scale(self.bytes, self.elements)
    }
}

/// Cache bytes of `layers` for one sequence of `tokens`.
pub fn cache(
    architecture: &Architecture,
    layers: Range<u32>,
    tokens: u64,
    element: CacheElement,
) -> Bytes {
    let streaming = match architecture.streaming_encoder {
        Some(encoder) if layers.start == 0 && !encoder.is_codec => {
            element.times(encoder.elements(tokens))
        }
        _ => Bytes::ZERO,
    };
    let tokens = tokens.saturating_add(architecture.prefix_tokens());
    let layers: Bytes = architecture
        .mixers(layers)
        .map(|mixer| held(architecture, mixer, tokens, element))
        .sum();

    layers + streaming
}

/// Cache bytes of one more token after `tokens`; 0 in layers whose window is already full.
pub fn per_token(architecture: &Architecture, tokens: u64, element: CacheElement) -> Bytes {
    architecture
        .mixers(0..architecture.layer_count())
        .map(|mixer| added_by_token(architecture, mixer, tokens, element))
        .sum()
}

/// Cache bytes of one mixer for one more token after `tokens`.
fn added_by_token(
    architecture: &Architecture,
    mixer: &Mixer,
    tokens: u64,
    element: CacheElement,
) -> Bytes {
    match mixer {
        Mixer::Attention(attention) if !attention.shares_cache => match attention.span {
            Span::Full => held(architecture, mixer, 1, element),
            Span::Sliding { window } | Span::Chunked { chunk: window } if tokens < window => {
                held(architecture, mixer, 1, element)
            }
            _ => Bytes::ZERO,
        },
        Mixer::Latent(LatentAttention {
            compress_ratio: Some(ratio),
            window,
            ..
        }) => {
            let windowed = if window.is_some_and(|window| tokens < window) {
                held(architecture, mixer, 1, element)
            } else {
                Bytes::ZERO
            };

            // A state holds `ratio` tokens: the mean per token, rounded up.
            let share = if *ratio > 0 {
                compressed(mixer, *ratio, element).div_ceil(*ratio)
            } else {
                Bytes::ZERO
            };

            windowed + share
        }
        Mixer::Latent(latent) if latent.window.is_none_or(|window| tokens < window) => {
            let index = index_width(latent.indexer.as_ref());
            element.times(latent_elements(latent, 1))
                + index.div_ceil(architecture.index_pool().unwrap_or(1).max(1))
        }
        _ => Bytes::ZERO,
    }
}

/// Cache bytes of one mixer after `tokens`.
///
/// Cross-attention has the longest input of its encoder. A family that one engine caches as a
/// latent counts as the latent (MiniCPM3 in transformers).
fn held(architecture: &Architecture, mixer: &Mixer, tokens: u64, element: CacheElement) -> Bytes {
    match mixer {
        Mixer::Attention(attention) if !attention.shares_cache => {
            let seen = match attention.span {
                Span::Full => tokens,
                Span::Sliding { window } | Span::Chunked { chunk: window } => tokens.min(window),
                Span::Cross { tokens } => tokens,
                Span::Bidirectional => 0,
            };
            let expanded = attention
                .kv_heads
                .saturating_mul(attention.key_dim.saturating_add(attention.value_dim));
            let width = architecture.cached_latent().unwrap_or(expanded);
            element.times(Bytes::product([seen, width]))
        }
        Mixer::Latent(latent) => match latent.compress_ratio {
            None => {
                let seen = tokens.min(latent.window.unwrap_or(tokens));
                let keys = tokens / architecture.index_pool().unwrap_or(1).max(1);
                element.times(latent_elements(latent, seen))
                    + indexed(latent.indexer.as_ref(), keys)
            }
            Some(ratio) => {
                let window = tokens.min(latent.window.unwrap_or(tokens));
                let states = tokens.checked_div(ratio).unwrap_or(0);
                let cache = element.times(latent_elements(latent, window.saturating_add(states)));
                cache + indexed(latent.indexer.as_ref(), states)
            }
        },
        _ => Bytes::ZERO,
    }
}

fn latent_elements(latent: &LatentAttention, tokens: u64) -> Bytes {
    Bytes::product([tokens, latent.kv_lora_rank.saturating_add(latent.rope_dim)])
}

/// Bytes of a compressed state, its indexer key included.
fn compressed(mixer: &Mixer, ratio: u64, element: CacheElement) -> Bytes {
    match mixer {
        Mixer::Latent(latent) if ratio > 0 => {
            element.times(latent_elements(latent, 1)) + indexed(latent.indexer.as_ref(), 1)
        }
        _ => Bytes::ZERO,
    }
}

/// Bytes of `tokens` keys of an indexer.
fn indexed(indexer: Option<&Indexer>, tokens: u64) -> Bytes {
    index_width(indexer) * tokens
}

/// Bytes of one key of an indexer.
///
/// Indexer keys are FP8 with a 32-bit scale for each 128 elements, whatever the cache's dtype
/// (vLLM `layers/sparse_attn_indexer.py`). transformers and llama.cpp keep them in 16 bits.
fn index_width(indexer: Option<&Indexer>) -> Bytes {
    let Some(indexer) = indexer else {
        return Bytes::ZERO;
    };

    let scales = indexer.head_dim.div_ceil(128).saturating_mul(4);
    Bytes::new(indexer.head_dim.saturating_add(scales))
}

/// Bytes of the recurrent states of one sequence in `layers`.
///
/// Convolutions are in `dtype`. States are in the configuration's dtype. Without one, Mamba and
/// RWKV states are in `dtype`. States of delta rules and lightning attention are then in 32-bit
/// floats, because their kernels return them so (flash-linear-attention's `chunk_gated_delta_rule`,
/// `chunk_kda`). Only vLLM rounds those of Qwen3-Next.
pub fn states(architecture: &Architecture, layers: Range<u32>, dtype: Dtype) -> Bytes {
    architecture
        .mixers(layers)
        .map(|mixer| state_bytes(architecture, mixer, dtype))
        .sum()
}

/// Bytes of one mixer's recurrent state.
fn state_bytes(architecture: &Architecture, mixer: &Mixer, dtype: Dtype) -> Bytes {
    let Mixer::Recurrent(recurrent) = mixer else {
        return Bytes::ZERO;
    };

    let (conv_elements, state_elements) = state_elements(recurrent);
    let usual = match recurrent {
        Recurrent::GatedDelta { .. } | Recurrent::Kda { .. } | Recurrent::Lightning { .. } => {
            Dtype::F32
        }
        _ => dtype,
    };

    let state = architecture.state_dtype.unwrap_or(usual);
    CacheElement::of(dtype).times(conv_elements) + CacheElement::of(state).times(state_elements)
}

/// Elements of the convolution's and of the recurrent state of one layer
/// (vLLM `model_executor/layers/mamba/mamba_utils.py`, `MambaStateShapeCalculator`).
///
/// A convolution over `kernel` tokens keeps the `kernel - 1` before the next one.
pub fn state_elements(recurrent: &Recurrent) -> (Bytes, Bytes) {
    let conv = match (conv_shape(recurrent), recurrent) {
        (Some((channels, kernel)), _) => channels * kernel.saturating_sub(1),
        (
            None,
            Recurrent::Rwkv {
                hidden,
                token_shift,
                ..
            },
        ) => Bytes::product([*token_shift, *hidden]),
        (None, Recurrent::PastInputs { width, rows, .. }) => Bytes::product([*width, *rows]),
        (None, _) => Bytes::ZERO,
    };

    let state = match *recurrent {
        Recurrent::Mamba1 { inner, state, .. } => Bytes::product([inner, state]),
        Recurrent::Mamba2 {
            heads,
            head_dim,
            state,
            ..
        } => Bytes::product([heads, head_dim, state]),
        Recurrent::GatedDelta {
            value_heads,
            key_dim,
            value_dim,
            ..
        } => Bytes::product([value_heads, value_dim, key_dim]),
        Recurrent::Kda {
            heads, head_dim, ..
        }
        | Recurrent::Lightning { heads, head_dim } => Bytes::product([heads, head_dim, head_dim]),
        Recurrent::ShortConv { .. } | Recurrent::ConvStreams { .. } => Bytes::ZERO,
        Recurrent::PastInputs { vector, .. } => Bytes::new(vector),
        Recurrent::Rwkv {
            hidden, head_size, ..
        } => Bytes::product([hidden, head_size]),
    };

    (conv, state)
}

/// Channels and kernel of one layer's convolution; `None` without one.
pub fn conv_shape(recurrent: &Recurrent) -> Option<(Bytes, u64)> {
    match *recurrent {
        Recurrent::Mamba1 { inner, conv, .. } => Some((Bytes::new(inner), conv)),
        Recurrent::Mamba2 {
            inner,
            state,
            groups,
            conv,
            ..
        } => {
            let channels = Bytes::new(inner) + Bytes::product([2, groups, state]);
            Some((channels, conv))
        }
        Recurrent::GatedDelta {
            key_heads,
            value_heads,
            key_dim,
            value_dim,
            conv,
        } => {
            let channels =
                Bytes::product([2, key_heads, key_dim]) + Bytes::product([value_heads, value_dim]);
            Some((channels, conv))
        }
        Recurrent::Kda {
            heads,
            head_dim,
            conv,
        } => Some((Bytes::product([3, heads, head_dim]), conv)),
        Recurrent::ShortConv { width, conv } => Some((Bytes::new(width), conv)),
        Recurrent::ConvStreams {
            heads,
            head_dim,
            hidden,
            conv,
        } => {
            let channels = Bytes::product([2, heads, head_dim]) + Bytes::product([2, hidden]);
            Some((channels, conv))
        }
        Recurrent::Lightning { .. } | Recurrent::Rwkv { .. } | Recurrent::PastInputs { .. } => None,
    }
}
