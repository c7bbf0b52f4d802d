//! Bytes of keys, values and recurrent states.
//!
//! Source: llama.cpp `src/llama-kv-cache.cpp`, `src/llama-kv-cache-iswa.cpp`,
//! `src/llama-memory-recurrent.cpp`, `src/llama-hparams.cpp`.

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
    /// Tokens of a micro-batch.
    pub(crate) ubatch: u64,
    /// Whether windowed layers cache the whole context.
    pub(crate) swa_full: bool,
    /// Type of keys.
    pub(crate) keys: Dtype,
    /// Type of values.
    pub(crate) values: Dtype,
    /// Whether flash attention is on: values are then not transposed and may be quantized.
    pub(crate) flash_attention: bool,
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
    /// `widest_value` is the widest value row of the model. Without flash attention, all transposed
    /// rows are that wide.
    pub(crate) fn layer(&self, mixer: &Mixer, widest_value: u64) -> Bytes {
        match mixer {
            Mixer::Attention(attention) if attention.shares_cache => Bytes::ZERO,
            Mixer::Attention(attention) => {
                let cells = self.cells(attention.span);
                let value_row = if self.flash_attention {
                    value_row(attention)
                } else {
                    widest_value
                };
                (row(self.keys, key_row(attention)) + row(self.values, value_row))
                    * cells
                    * self.streams
            }
            Mixer::Latent(latent) => self.latent(latent),
            Mixer::Recurrent(_) | Mixer::None => Bytes::ZERO,
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

        (keys + index) * self.context * self.streams
    }

    /// Bytes of one layer's states, one for each slot; always F32.
    pub(crate) fn states(&self, mixer: &Mixer) -> Bytes {
        match mixer {
            Mixer::Recurrent(recurrent) => state(recurrent) * self.slots,
            _ => Bytes::ZERO,
        }
    }
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
        Recurrent::Rwkv {
            hidden,
            head_size,
            token_shift,
        } => product(&[token_shift, hidden]) + product(&[hidden, head_size]),
    };

    elements * 4
}
