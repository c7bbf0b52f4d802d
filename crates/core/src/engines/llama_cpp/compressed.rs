//! Caches and states of latents that are compressed over several tokens (DeepSeek V4 and V4.1).
//!
//! Each slot has its own, even if slots share other caches. Source: llama.cpp
//! `src/llama-kv-cache-dsv4.cpp` (`llama_kv_cache_dsv4`, `llama_dsv4_comp_state`).

use std::ops::Range;

use super::cache::{CELL_PADDING, Layout, is_quantized, largest_rotation, rotation, row};
use super::weights::padded;
use crate::bytes::Bytes;
use crate::model::Dtype;
use crate::model::architecture::{LatentAttention, Layer, Mixer, Span};

/// The ratio of the layers with an indexer of their own in DeepSeek V4 (`DSV4_CSA_RATIO`).
const INDEXED: u64 = 4;

/// The past of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Compressed {
    /// Elements of the latent head.
    head: u64,
    window: u64,
    /// Tokens of a compressed cell; 0 for layers with only a window.
    ratio: u64,
    /// Elements of the indexer's key; 0 for layers without one.
    index: u64,
}

/// Caches of compressed cells of one layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Past {
    /// Elements of a cell.
    cell: u64,
    /// Elements of a cell of the indexer's own cache.
    index: u64,
}

impl Compressed {
    /// Returns the past of a layer with `latent`.
    pub(crate) fn new(latent: &LatentAttention) -> Self {
        Self {
            head: latent.kv_lora_rank.saturating_add(latent.rope_dim),
            window: latent.window.unwrap_or(0),
            ratio: latent.compress_ratio.unwrap_or(0),
            index: latent.indexer.map_or(0, |indexer| indexer.head_dim),
        }
    }

    /// Returns the caches behind the window.
    ///
    /// DeepSeek V4.1 has ratios of 1 and 2. It keeps the indexer's key in the same cell, and only
    /// layers with an indexer own cells.
    fn past(self) -> Past {
        match self.ratio {
            0 => Past::default(),
            1 | 2 if self.index == 0 => Past::default(),
            1 | 2 => Past {
                cell: self.head.saturating_add(self.index),
                index: 0,
            },
            ratio => Past {
                cell: self.head,
                index: if ratio == INDEXED { self.index } else { 0 },
            },
        }
    }

    /// Bytes of one slot's states, all F32: sums and scores of the tokens of the next cell.
    pub(crate) fn state(self) -> Bytes {
        let elements = match self.ratio {
            0 => 0,
            ratio @ (1 | 2) if self.index > 0 => self.head.saturating_mul(ratio),
            1 | 2 => 0,
            // Cells overlap: two halves for the tokens of two cells.
            INDEXED => self
                .head
                .saturating_add(self.index)
                .saturating_mul(4 * INDEXED),
            ratio => self.head.saturating_mul(ratio),
        };

        Bytes::product([2, 4, elements])
    }

    /// Cells of the past after `context` tokens.
    pub(crate) fn cells(self, context: u64) -> u64 {
        match self.ratio {
            0 => 0,
            ratio => context
                .div_ceil(ratio)
                .max(1)
                .checked_next_multiple_of(CELL_PADDING)
                .unwrap_or(u64::MAX),
        }
    }

    /// Bytes of CUDA's padding behind a quantized cache.
    pub(crate) fn padding(self, keys: Dtype) -> Bytes {
        let past = self.past();
        let rows = [self.head, past.cell, past.index];
        rows.into_iter()
            .filter(|elements| *elements > 0 && is_quantized(keys))
            .map(|elements| padded(Bytes::ZERO, keys, elements))
            .sum()
    }
}

impl Layout {
    /// Cells of one slot's window.
    fn slot_window(&self, window: u64) -> u64 {
        let own = Self {
            streams: self.slots.max(2),
            ..*self
        };
        own.cells(Span::Sliding { window })
    }

    /// Bytes of a layer's window and of the compressed cells behind it.
    pub(super) fn compressed(&self, latent: &LatentAttention, layer: Compressed) -> Bytes {
        let past = layer.past();
        let cells = layer.cells(self.context);
        let slot = row(self.keys, layer.head) * self.slot_window(layer.window)
            + (row(self.keys, past.cell) + row(self.keys, past.index)) * cells;

        // The matrix of the indexer's own cache is made whatever the type.
        let index = if latent.indexer.is_some() {
            past.index
        } else {
            0
        };
        let mut matrices = rotation(largest_rotation(index));
        if is_quantized(self.keys) {
            matrices += rotation(largest_rotation(layer.head));
            matrices += rotation(largest_rotation(past.cell));
        }

        let matrices = if self.rotates { matrices } else { Bytes::ZERO };
        slot * self.slots + matrices
    }

    /// Bytes of the copy that a device with the layers of `stage` keeps of another device's cells.
    ///
    /// Without an owner before them, the first layers that read compressed cells share one copy
    /// (`comp_read`, DeepSeek V4.1).
    pub(super) fn copied_cells(&self, layers: &[Layer], stage: Range<u32>) -> Bytes {
        let own = layers.get(stage.start as usize..stage.end as usize);
        let Some(reader) = own.and_then(|own| shared_latents(own).next()) else {
            return Bytes::ZERO;
        };
        let owner = shared_latents(layers).find(|latent| latent.indexer.is_some());
        let (None, Some(owner)) = (reader.indexer, owner) else {
            return Bytes::ZERO;
        };

        let copied = LatentAttention {
            indexer: owner.indexer,
            ..reader.clone()
        };
        let layer = Compressed::new(&copied);
        let cell = layer.past().cell;
        let bytes = row(self.keys, cell) * layer.cells(self.context) * self.slots;
        if !is_quantized(self.keys) {
            return bytes;
        }

        let matrix = if self.rotates {
            rotation(largest_rotation(cell))
        } else {
            Bytes::ZERO
        };
        bytes + matrix + padded(Bytes::ZERO, self.keys, cell)
    }
}

/// Iterates over the latents whose compressed cells other layers can read.
fn shared_latents(layers: &[Layer]) -> impl Iterator<Item = &LatentAttention> {
    layers.iter().filter_map(|layer| match &layer.mixer {
        Mixer::Latent(latent) if matches!(latent.compress_ratio, Some(1 | 2)) => Some(latent),
        _ => None,
    })
}
