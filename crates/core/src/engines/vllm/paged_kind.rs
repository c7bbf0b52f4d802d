//! Cache layers of one kind: what they retain of a sequence, and the bytes of their pages.

use std::ops::Range;

use super::cache::PageRules;
use super::checkpoints::Checkpoints;
use crate::bytes::Bytes;
use crate::engines::shared::cache::{CacheKind, CacheLayers, state_elements, token_bytes};
use crate::engines::shared::dtype::{ComputeDtype, KvDtype};
use crate::engines::shared::latent_cache::latent_bytes;
use crate::model::architecture::{Attention, Recurrent, Span};

/// The part of a sequence that a group retains, which determines its number of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retention {
    /// Every token.
    All,
    /// The tokens of a sliding window.
    Window(u64),
    /// The tokens of a local chunk.
    Chunk(u64),
    /// The tokens of an encoder.
    Encoder(u64),
    /// A state, and blocks for checkpoints of it in addition.
    State(Checkpoints),
}

impl Retention {
    pub(super) const fn is_state(self) -> bool {
        matches!(self, Self::State(_))
    }
}

/// Layers of one kind, paged.
#[derive(Clone, Copy, Debug)]
pub(super) struct PagedKind {
    /// Position among the model's cache kinds.
    pub(super) index: usize,
    pub(super) retention: Retention,
    /// Bytes of one block in one layer.
    pub(super) page: Bytes,
    /// Tokens of one block.
    pub(super) block: u64,
    /// Groups that its layers are distributed over.
    pub(super) groups: u64,
}

impl PagedKind {
    /// The kind before any alignment: one group, blocks of the configured size.
    pub(super) fn new(index: usize, kind: &CacheKind, sparse: bool, rules: PageRules) -> Self {
        if let CacheKind::State(Recurrent::ConvStreams {
            heads,
            head_dim,
            hidden,
            conv,
        }) = *kind
        {
            return Self::conv_streams(index, [heads, head_dim, hidden, conv], rules);
        }

        let (retention, page) = match kind {
            CacheKind::Heads(attention) => (
                retention(attention, rules.hybrid_manager),
                token_bytes(attention, stored_dtype(attention, rules.kv), rules.tensor)
                    * rules.block_tokens,
            ),
            CacheKind::Latent(latent) => (
                Retention::All,
                latent_bytes(latent, rules.kv, sparse) * rules.block_tokens,
            ),
            CacheKind::State(state) => (
                Retention::State(rules.checkpoints.of(state)),
                state_page(state, rules),
            ),
        };

        Self {
            index,
            retention,
            page,
            block: rules.block_tokens,
            groups: 1,
        }
    }

    /// The pages of Inkling's convolutions: a window of their kernel, in blocks of as many tokens.
    ///
    /// `sizes` are KV heads, their elements, the hidden size and the kernel. Each head has its part
    /// of the four streams, rounded up to a power of two, in 16 bits whatever the cache's dtype
    /// (vLLM 0.33 `models/inkling/nvidia/sconv_swa_attn.py`).
    fn conv_streams(index: usize, sizes: [u64; 4], rules: PageRules) -> Self {
        const BFLOAT16: u64 = 2;

        let [heads, head_dim, hidden, conv] = sizes;
        let share = hidden.checked_div(heads).unwrap_or(hidden);
        let width = head_dim.saturating_add(share).saturating_mul(2);
        let width = width.checked_next_power_of_two().unwrap_or(u64::MAX);
        let rank_heads = (heads / rules.tensor.max(1)).max(1);

        Self {
            index,
            retention: if rules.hybrid_manager {
                Retention::Window(conv)
            } else {
                Retention::All
            },
            page: Bytes::product([conv, rank_heads, width, BFLOAT16]),
            block: conv,
            groups: 1,
        }
    }

    /// Blocks of `tokens` tokens in all groups.
    pub(super) fn token_blocks(&self, tokens: u64) -> u64 {
        tokens
            .div_ceil(self.block.max(1))
            .saturating_mul(self.groups)
    }

    /// Bytes of one block in the layers of one group on a rank that holds `range`.
    pub(super) fn group_bytes(&self, layers: &CacheLayers, range: &Range<u32>) -> Bytes {
        self.page
            * layers
                .layers(self.index, range)
                .div_ceil(self.groups.max(1))
    }
}

/// Whether a head holds the keys of an indexer: it has no values.
pub(super) const fn is_index_head(attention: &Attention) -> bool {
    attention.value_dim == 0
}

/// The dtype of a layer's cache: keys of an indexer stay in 16 bits (vLLM 0.33
/// `models/minimax_m3/common/indexer.py`, `indexer_kv_dtype`).
pub(super) fn stored_dtype(attention: &Attention, kv: KvDtype) -> KvDtype {
    if is_index_head(attention) {
        KvDtype::Model(ComputeDtype::Bfloat16)
    } else {
        kv
    }
}

/// The tokens that attention retains, which depend on its span.
const fn retention(attention: &Attention, hybrid_manager: bool) -> Retention {
    match attention.span {
        Span::Sliding { window } if hybrid_manager => Retention::Window(window),
        Span::Chunked { chunk } if hybrid_manager => Retention::Chunk(chunk),
        Span::Cross { tokens } => Retention::Encoder(tokens),
        _ => Retention::All,
    }
}

/// Bytes of one state in one layer.
fn state_page(state: &Recurrent, rules: PageRules) -> Bytes {
    let (conv, recurrent) = state_elements(state, rules.tensor, rules.speculative);
    let element = if is_float32_state(state) {
        4
    } else {
        rules.state_bytes
    };

    conv * rules.conv_bytes + recurrent * element
}

/// Whether vLLM keeps the state in 32 bits: KDA and lightning attention.
const fn is_float32_state(state: &Recurrent) -> bool {
    matches!(state, Recurrent::Kda { .. } | Recurrent::Lightning { .. })
}
