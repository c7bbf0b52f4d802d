//! Cache kinds and the number of layers of each, unsharded and without any engine's paging.

use std::ops::Range;

use super::dtype::KvDtype;
use super::shard_size::padded_groups;
use crate::bytes::Bytes;
use crate::model::Architecture;
use crate::model::architecture::{Attention, LatentAttention, Layer, Mixer, Recurrent, Span};

/// A kind of cache; layers with equal kinds are counted together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheKind {
    /// Keys and values per head, for the tokens in the span.
    Heads(Attention),
    /// A latent per token, whole on every tensor rank.
    Latent(LatentAttention),
    /// A fixed state per sequence.
    State(Recurrent),
}

/// The cache kinds of a model, with the number of layers of each kind before any layer.
#[derive(Clone, Debug)]
pub struct CacheLayers {
    kinds: Vec<CacheKind>,
    /// For each kind, the number of its layers before layer n.
    before: Vec<Vec<u32>>,
}

impl CacheLayers {
    /// Counts the kinds of `architecture`.
    ///
    /// `drafts` layers of its next-token predictor follow, equal to its last layer. Layers without
    /// a cache (encoders, shared caches) are ignored.
    pub fn new(architecture: &Architecture, drafts: u32) -> Self {
        Self::with_draft(architecture, drafts, &[])
    }

    /// As [`CacheLayers::new`], with the layers of a `draft` after them.
    pub fn with_draft(architecture: &Architecture, drafts: u32, draft: &[Layer]) -> Self {
        let mut layers = Self {
            kinds: Vec::new(),
            before: Vec::new(),
        };

        let predictor = architecture
            .layers
            .last()
            .into_iter()
            .flat_map(|last| std::iter::repeat_n(last, drafts as usize));
        let all = architecture.layers.iter().chain(predictor).chain(draft);
        for (index, layer) in all.enumerate() {
            for before in &mut layers.before {
                before.push(before.last().copied().unwrap_or(0));
            }
            for mixer in layer.mixers() {
                if let Some(kind) = kind_of(mixer) {
                    layers.count(kind, index + 1);
                }
            }
        }

        layers
    }

    fn count(&mut self, kind: CacheKind, length: usize) {
        let known = self.kinds.iter().position(|other| *other == kind);
        let at = known.unwrap_or_else(|| {
            self.kinds.push(kind);
            self.before.push(vec![0; length + 1]);
            self.kinds.len() - 1
        });

        if let Some(last) = self.before.get_mut(at).and_then(|before| before.last_mut()) {
            *last += 1;
        }
    }

    /// The kinds.
    pub fn kinds(&self) -> &[CacheKind] {
        &self.kinds
    }

    /// The number of layers of kind `kind` in `range`.
    pub fn layers(&self, kind: usize, range: &Range<u32>) -> u64 {
        let Some(before) = self.before.get(kind) else {
            return 0;
        };

        let count_before = |layer: u32| {
            before
                .get((layer as usize).min(before.len() - 1))
                .copied()
                .unwrap_or(0)
        };

        u64::from(count_before(range.end).saturating_sub(count_before(range.start)))
    }

    /// Whether any layer's latent attention is sparse, that is, has an indexer.
    pub fn sparse(&self) -> bool {
        self.kinds
            .iter()
            .any(|kind| matches!(kind, CacheKind::Latent(latent) if latent.indexer.is_some()))
    }

    /// Whether the model has no cache.
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }
}

fn kind_of(mixer: &Mixer) -> Option<CacheKind> {
    match mixer {
        Mixer::Attention(attention)
            if attention.shares_cache || attention.span == Span::Bidirectional =>
        {
            None
        }
        // A cache does not depend on query heads, so layers that differ only in them are one kind.
        Mixer::Attention(attention) => Some(CacheKind::Heads(Attention {
            heads: 0,
            ..attention.clone()
        })),
        Mixer::Latent(latent) => Some(CacheKind::Latent(latent.clone())),
        Mixer::Recurrent(state) => Some(CacheKind::State(state.clone())),
        Mixer::None => None,
    }
}

/// Bytes of one token in one layer on one tensor rank.
///
/// Heads are divided down to one and then copied.
pub fn token_bytes(attention: &Attention, kv: KvDtype, tensor: u64) -> Bytes {
    let heads = (attention.kv_heads / tensor.max(1)).max(1);
    Bytes::new(
        kv.head_bytes(attention.key_dim)
            .saturating_add(kv.head_bytes(attention.value_dim)),
    ) * heads
}

/// Elements of one sequence's state in one layer on one tensor rank: (convolution, recurrent).
///
/// `speculative` tokens lengthen the convolution. Source: vLLM
/// `model_executor/layers/mamba/mamba_utils.py`.
pub fn state_elements(state: &Recurrent, tensor: u64, speculative: u64) -> (Bytes, Bytes) {
    let tensor = tensor.max(1);
    match *state {
        Recurrent::Mamba1 { inner, state, conv } => {
            let channels = inner.div_ceil(tensor);
            (
                product(&[channels, conv.saturating_sub(1)]),
                product(&[channels, state]),
            )
        }
        Recurrent::Mamba2 {
            inner,
            heads,
            head_dim,
            state,
            groups,
            conv,
        } => {
            let mixed = Bytes::new(inner) + product(&[2, padded_groups(groups, tensor), state]);
            let rows = conv.saturating_sub(1).saturating_add(speculative);
            (
                mixed.div_ceil(tensor) * rows,
                product(&[heads.div_ceil(tensor), head_dim, state]),
            )
        }
        Recurrent::GatedDelta {
            key_heads,
            value_heads,
            key_dim,
            value_dim,
            conv,
        } => {
            let mixed = product(&[2, key_heads, key_dim]) + product(&[value_heads, value_dim]);
            let rows = conv.saturating_sub(1).saturating_add(speculative);
            (
                mixed.div_ceil(tensor) * rows,
                product(&[value_heads.div_ceil(tensor), value_dim, key_dim]),
            )
        }
        Recurrent::Kda {
            heads,
            head_dim,
            conv,
        } => {
            let heads = heads.div_ceil(tensor);
            (
                product(&[3, heads, head_dim, conv.saturating_sub(1)]),
                product(&[heads, head_dim, head_dim]),
            )
        }
        Recurrent::Lightning { heads, head_dim } => (
            Bytes::ZERO,
            product(&[heads.div_ceil(tensor), head_dim, head_dim]),
        ),
        Recurrent::ShortConv { width, conv } => (
            product(&[width.div_ceil(tensor), conv.saturating_sub(1)]),
            Bytes::ZERO,
        ),
        Recurrent::ConvStreams {
            heads,
            head_dim,
            hidden,
            conv,
        } => {
            let channels = product(&[2, heads, head_dim]) + product(&[2, hidden]);
            (
                channels.div_ceil(tensor) * conv.saturating_sub(1),
                Bytes::ZERO,
            )
        }
        Recurrent::PastInputs {
            width,
            rows,
            vector,
        } => (
            product(&[width.div_ceil(tensor), rows]),
            Bytes::new(vector.div_ceil(tensor)),
        ),
        Recurrent::Rwkv {
            hidden,
            head_size,
            token_shift,
        } => (
            product(&[token_shift, hidden]),
            product(&[hidden.div_ceil(tensor), head_size]),
        ),
    }
}

/// The product of `factors` elements.
fn product(factors: &[u64]) -> Bytes {
    Bytes::product(factors.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::shared::dtype::ComputeDtype;

    const BF16: KvDtype = KvDtype::Model(ComputeDtype::Bfloat16);

    #[test]
    fn heads_divide_down_to_one() {
        let attention = Attention {
            heads: 32,
            kv_heads: 4,
            key_dim: 128,
            value_dim: 128,
            span: Span::Full,
            shares_cache: false,
        };

        assert_eq!(token_bytes(&attention, BF16, 1), Bytes::new(2048));
        assert_eq!(token_bytes(&attention, BF16, 4), Bytes::new(512));
        assert_eq!(token_bytes(&attention, BF16, 8), Bytes::new(512));
        assert_eq!(token_bytes(&attention, KvDtype::Fp8, 1), Bytes::new(1024));
    }

    #[test]
    fn states_differ_by_family() {
        let count_elements = |state, tensor| {
            let (conv, recurrent) = state_elements(&state, tensor, 0);
            (conv.get(), recurrent.get())
        };

        let qwen3_next = Recurrent::GatedDelta {
            key_heads: 16,
            value_heads: 32,
            key_dim: 128,
            value_dim: 128,
            conv: 4,
        };

        assert_eq!(
            count_elements(qwen3_next.clone(), 1),
            (49_152 / 2, 1_048_576 / 2)
        );
        assert_eq!(count_elements(qwen3_next, 4), (49_152 / 8, 1_048_576 / 8));

        let nemotron_h = Recurrent::Mamba2 {
            inner: 16_384,
            heads: 256,
            head_dim: 64,
            state: 256,
            groups: 8,
            conv: 4,
        };

        assert_eq!(count_elements(nemotron_h, 1), (122_880 / 2, 16_777_216 / 4));
        let mamba = Recurrent::Mamba1 {
            inner: 5120,
            state: 16,
            conv: 4,
        };

        assert_eq!(count_elements(mamba, 1), (30_720 / 2, 163_840 / 2));
    }
}
