//! Bytes of keys, values and recurrent states.
//!
//! Source: llama.cpp `src/llama-kv-cache.cpp`, `src/llama-kv-cache-iswa.cpp`,
//! `src/llama-memory-recurrent.cpp`, `src/llama-hparams.cpp`.

use super::compressed::Compressed;
use super::flash_kernels::AttentionMode;
use super::weights::padded;
use crate::bytes::Bytes;
use crate::model::Dtype;
use crate::model::architecture::{Attention, LatentAttention, Mixer, Recurrent, Span};

/// The number of cells is a multiple of this.
pub(crate) const CELL_PADDING: u64 = 256;

/// The layout of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Tokens of one stream, padded.
    pub(crate) context: u64,
    /// Streams: 1 if all slots share one.
    pub(crate) streams: u64,
    /// Slots.
    pub(crate) slots: u64,
    /// Copies of each slot's states: one, and one for each drafted token if states roll back.
    pub(crate) snapshots: u64,
    /// Tokens of a micro-batch.
    pub(crate) ubatch: u64,
    /// Whether windowed layers cache the whole context.
    pub(crate) swa_full: bool,
    /// Type of keys.
    pub(crate) keys: Dtype,
    /// Type of values.
    pub(crate) values: Dtype,
    /// How attention is computed.
    pub(crate) attention: AttentionMode,
    /// Whether a quantized cache has rotation matrices.
    pub(crate) rotates: bool,
    /// Whether the keys of a latent's indexer have them whatever their type.
    pub(crate) rotates_index: bool,
}

impl Layout {
    /// Cells of one stream for a layer of `span`; 0 for spans without a cache.
    pub(crate) fn cells(&self, span: Span) -> u64 {
        match span {
            Span::Sliding { window } | Span::Chunked { chunk: window } if !self.swa_full => {
                // A shared cache must hold the window of each slot.
                let windows = window.saturating_mul(if self.streams == 1 { self.slots } else { 1 });
                let wanted = windows.saturating_add(self.ubatch).min(self.context);
                wanted
                    .checked_next_multiple_of(CELL_PADDING)
                    .unwrap_or(u64::MAX)
            }
            Span::Full | Span::Sliding { .. } | Span::Chunked { .. } => self.context,
            // Encoder output is not cached; encoders have no cache.
            Span::Cross { .. } | Span::Bidirectional => 0,
        }
    }

    /// Bytes of one layer's cache.
    ///
    /// `widest_value` is the widest value row of the model, if values are transposed: all rows are
    /// then that wide, in skipped blocks too.
    pub(crate) fn layer(&self, mixer: &Mixer, widest_value: Option<u64>) -> Bytes {
        match mixer {
            Mixer::Attention(attention) if attention.shares_cache => Bytes::ZERO,
            Mixer::Attention(attention) => {
                let cells = self.cells(attention.span);
                let value_row = widest_value
                    .filter(|_| !is_index(attention))
                    .unwrap_or_else(|| value_row(attention));
                let rows = row(self.keys, key_row(attention)) + row(self.values, value_row);

                rows * cells * self.streams + self.rotations(attention, cells)
            }
            Mixer::Latent(latent) if latent.compress_ratio.is_some() => {
                self.compressed(latent, Compressed::new(latent))
            }
            Mixer::Latent(latent) => self.latent(latent),
            Mixer::None => {
                row(self.values, widest_value.unwrap_or(0)) * self.context * self.streams
            }
            Mixer::Recurrent(_) => Bytes::ZERO,
        }
    }

    /// Bytes of the matrices that rotate quantized keys and values (`llama_kv_cache`).
    fn rotations(&self, attention: &Attention, cells: u64) -> Bytes {
        if !self.rotates || cells == 0 {
            return Bytes::ZERO;
        }

        let keys = if is_quantized(self.keys) {
            rotation(largest_rotation(attention.key_dim))
        } else {
            Bytes::ZERO
        };
        let rotates_values =
            attention.value_dim > 0 && attention.value_dim.is_multiple_of(ROTATION);
        let values = if is_quantized(self.values) && rotates_values {
            rotation(ROTATION)
        } else {
            Bytes::ZERO
        };

        keys + values
    }

    /// Bytes of CUDA's padding behind one layer's quantized cache.
    pub(crate) fn padding(&self, mixer: &Mixer) -> Bytes {
        let padding = |dtype: Dtype, elements: u64| {
            if elements == 0 || !is_quantized(dtype) {
                return Bytes::ZERO;
            }
            // Whole blocks of cells are aligned already.
            padded(Bytes::ZERO, dtype, elements)
        };

        match mixer {
            Mixer::Attention(attention) if attention.shares_cache => Bytes::ZERO,
            Mixer::Attention(attention) if self.cells(attention.span) == 0 => Bytes::ZERO,
            Mixer::Attention(attention) => {
                padding(self.keys, key_row(attention)) + padding(self.values, value_row(attention))
            }
            Mixer::Latent(latent) if latent.compress_ratio.is_some() => {
                Compressed::new(latent).padding(self.keys)
            }
            Mixer::Latent(latent) => {
                let index = latent.indexer.map_or(0, |indexer| indexer.head_dim);
                padding(
                    self.keys,
                    latent.kv_lora_rank.saturating_add(latent.rope_dim),
                ) + padding(self.keys, index)
            }
            Mixer::Recurrent(_) | Mixer::None => Bytes::ZERO,
        }
    }

    /// Cells of one stream for a latent.
    pub(crate) fn latent_cells(&self, latent: &LatentAttention) -> u64 {
        match latent.window {
            Some(window) => self.cells(Span::Sliding { window }),
            None => self.context,
        }
    }

    /// Bytes of a latent cache, whose rows serve as both key and value.
    fn latent(&self, latent: &LatentAttention) -> Bytes {
        let keys = row(
            self.keys,
            latent.kv_lora_rank.saturating_add(latent.rope_dim),
        );
        let index = latent
            .indexer
            .map_or(Bytes::ZERO, |indexer| row(self.keys, indexer.head_dim));
        let cells = (keys + index) * self.latent_cells(latent) * self.streams;
        if !self.rotates {
            return cells;
        }

        let index = latent
            .indexer
            .filter(|_| self.rotates_index || is_quantized(self.keys))
            .map_or(0, |indexer| indexer.head_dim);
        let keys = if is_quantized(self.keys) {
            latent.kv_lora_rank.saturating_add(latent.rope_dim)
        } else {
            0
        };

        cells + rotation(largest_rotation(keys)) + rotation(largest_rotation(index))
    }

    /// Bytes of one layer's states, one or more for each slot; always F32.
    pub(crate) fn states(&self, mixer: &Mixer) -> Bytes {
        match mixer {
            Mixer::Recurrent(recurrent) => state(recurrent) * self.slots * self.snapshots,
            Mixer::Latent(latent) if latent.compress_ratio.is_some() => {
                Compressed::new(latent).state() * self.slots
            }
            _ => Bytes::ZERO,
        }
    }
}

/// The least width of a rotation matrix.
pub(super) const ROTATION: u64 = 64;

pub(super) fn is_quantized(dtype: Dtype) -> bool {
    dtype.block().0 > 1
}

/// The largest power of two from 64 on that divides a head of `dim` elements, or 0.
pub(super) fn largest_rotation(dim: u64) -> u64 {
    match dim.checked_next_multiple_of(ROTATION) {
        Some(padded) if padded == dim && dim > 0 => 1 << dim.trailing_zeros().min(32),
        _ => 0,
    }
}

/// Bytes of a square F32 matrix.
pub(super) fn rotation(width: u64) -> Bytes {
    Bytes::product([4, width, width])
}

/// Whether these are the keys of an indexer: a head without queries of its own, in a cache of its
/// own.
pub(crate) fn is_index(attention: &Attention) -> bool {
    attention.heads == 0
}

/// Elements of a key row over all KV heads.
pub(crate) fn key_row(attention: &Attention) -> u64 {
    attention.kv_heads.saturating_mul(attention.key_dim)
}

/// Elements of a value row over all KV heads.
pub(crate) fn value_row(attention: &Attention) -> u64 {
    attention.kv_heads.saturating_mul(attention.value_dim)
}

/// Bytes of `elements` in a row, in whole blocks.
pub(crate) fn row(dtype: Dtype, elements: u64) -> Bytes {
    let (block, bytes) = dtype.block();
    Bytes::new(elements.div_ceil(block)) * bytes
}

/// The product of `factors` elements.
fn product(factors: &[u64]) -> Bytes {
    Bytes::product(factors.iter().copied())
}

/// Bytes of one sequence's state in one layer (`n_embd_r` and `n_embd_s`), both F32.
pub(crate) fn state(recurrent: &Recurrent) -> Bytes {
    let elements = match *recurrent {
        Recurrent::Mamba1 { inner, state, conv } => {
            product(&[conv.saturating_sub(1), inner]) + product(&[inner, state])
        }
        Recurrent::Mamba2 {
            inner,
            state,
            groups,
            conv,
            ..
        } => {
            let channels = inner.saturating_add(product(&[2, groups, state]).get());
            product(&[conv.saturating_sub(1), channels]) + product(&[inner, state])
        }
        Recurrent::GatedDelta {
            key_heads,
            value_heads,
            key_dim,
            value_dim,
            conv,
        } => {
            let values = product(&[value_heads, value_dim]).get();
            let channels = values.saturating_add(product(&[2, key_heads, key_dim]).get());
            product(&[conv.saturating_sub(1), channels]) + product(&[values, key_dim])
        }
        Recurrent::Kda {
            heads,
            head_dim,
            conv,
        } => {
            product(&[3, conv.saturating_sub(1), heads, head_dim])
                + product(&[heads, head_dim, head_dim])
        }
        Recurrent::Lightning { heads, head_dim } => product(&[heads, head_dim, head_dim]),
        Recurrent::ShortConv { width, conv } => product(&[conv.saturating_sub(1), width]),
        // No GGUF architecture has these.
        Recurrent::ConvStreams {
            heads,
            head_dim,
            hidden,
            conv,
        } => {
            let channels = product(&[2, heads, head_dim]) + product(&[2, hidden]);
            channels * conv.saturating_sub(1)
        }
        Recurrent::PastInputs {
            width,
            rows,
            vector,
        } => product(&[width, rows]) + product(&[vector]),
        Recurrent::Rwkv {
            hidden,
            head_size,
            token_shift,
        } => product(&[token_shift, hidden]) + product(&[hidden, head_size]),
    };

    elements * 4
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `llama_kv_cache::init_rotation`: 64, doubled while it divides the head.
    #[test]
    fn rotations_divide_heads() {
        let widths = [
            (64, 64),
            (96, 0),
            (128, 128),
            (192, 64),
            (512, 512),
            (576, 64),
        ];
        for (dim, width) in widths {
            assert_eq!(largest_rotation(dim), width, "{dim}");
        }
    }
}
