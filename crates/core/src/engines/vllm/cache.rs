//! vLLM's KV cache: pages, groups and blocks.
//!
//! Sources: vLLM 0.33 `v1/kv_cache_interface.py`, `v1/core/kv_cache_planning.py`
//! (`get_kv_cache_groups`, `_get_kv_cache_groups_uniform_page_size`), `platforms/interface.py`
//! (`_align_hybrid_block_size`), `config/vllm.py` (`max_in_flight_tokens`).

use std::ops::Range;

use super::compressed::CompressedCache;
use super::settings::StateMode;
use crate::bytes::Bytes;
use crate::engines::shared::cache::{CacheKind, CacheLayers, state_elements, token_bytes};
use crate::engines::shared::dtype::KvDtype;
use crate::model::architecture::{Indexer, LatentAttention, Span};

/// What the pages depend on beside the layers.
#[derive(Clone, Copy, Debug)]
pub struct PageRules {
    /// dtype of keys, values and latents.
    pub kv: KvDtype,
    /// Bytes of an element of a convolution's state.
    pub conv_bytes: u64,
    /// Bytes of an element of a recurrent state; some families force 4.
    pub state_bytes: u64,
    /// Tokens of a block where nothing forces another number.
    pub block_tokens: u64,
    /// Whether windows are kept as windows; else every layer keeps every token.
    pub hybrid_manager: bool,
    /// How states take part in prefix caching.
    pub state_mode: StateMode,
    /// Whether a checkpoint block may come on top of that.
    pub checkpoint: bool,
    /// Draft tokens.
    pub speculative: u64,
    /// Tokens in flight (F).
    pub in_flight: u64,
    /// Ranks that share a sequence's tokens.
    pub context_parallel: u64,
    /// Tensor-parallel degree.
    pub tensor: u64,
}

/// How many blocks a group takes for one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeps {
    All,
    Window(u64),
    Chunk(u64),
    Encoder(u64),
    State { extra: u64 },
}

/// Layers of one kind, paged.
#[derive(Clone, Copy, Debug)]
struct VllmCacheKind {
    /// Position among the model's cache kinds.
    index: usize,
    keeps: Keeps,
    /// Bytes of one block in one layer.
    page: Bytes,
    /// Tokens of one block.
    block: u64,
    /// Groups that its layers are dealt to.
    groups: u64,
}

/// The paging of a model at one tensor-parallel degree.
#[derive(Clone, Debug)]
pub struct CachePages {
    kinds: Vec<VllmCacheKind>,
    /// One group holds layers of several page sizes: a block is as wide as their sum.
    summed: bool,
    compressed: Option<CompressedCache>,
    rules: PageRules,
}

/// Blocks that a workload takes: of tokens, and of states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Blocks of one sequence's tokens.
    pub tokens: u64,
    /// Blocks of one sequence's states at the least.
    pub states: u64,
    /// As `states`, with a checkpoint block where kernels export one.
    pub states_high: u64,
}

impl CachePages {
    /// Pages of `layers` under `rules`.
    pub fn new(layers: &CacheLayers, all: &Range<u32>, rules: PageRules) -> Self {
        let compressed = CompressedCache::new(layers);
        let mut kinds: Vec<VllmCacheKind> = Vec::new();
        for (index, kind) in layers.kinds().iter().enumerate() {
            let (keeps, per_token, page) = match kind {
                CacheKind::Heads(attention) => {
                    let keeps = match attention.span {
                        Span::Sliding { window } if rules.hybrid_manager => Keeps::Window(window),
                        Span::Chunked { chunk } if rules.hybrid_manager => Keeps::Chunk(chunk),
                        Span::Cross { tokens } => Keeps::Encoder(tokens),
                        _ => Keeps::All,
                    };
                    (
                        keeps,
                        token_bytes(attention, rules.kv, rules.tensor),
                        Bytes::ZERO,
                    )
                }
                CacheKind::Latent(latent) => (
                    Keeps::All,
                    latent_bytes(latent, rules.kv, layers.sparse()),
                    Bytes::ZERO,
                ),
                CacheKind::State(state) => {
                    let (conv, recurrent) = state_elements(state, rules.tensor, rules.speculative);
                    let bytes = if float32_state(state) {
                        4
                    } else {
                        rules.state_bytes
                    };

                    let extra = u64::from(rules.checkpoint && exports_checkpoints(state));
                    (
                        Keeps::State { extra },
                        Bytes::ZERO,
                        conv * rules.conv_bytes + recurrent * bytes,
                    )
                }
            };

            let page = if page == Bytes::ZERO {
                per_token * rules.block_tokens
            } else {
                page
            };

            kinds.push(VllmCacheKind {
                index,
                keeps,
                page,
                block: rules.block_tokens,
                groups: 1,
            });
        }

        let mut pages = Self {
            kinds,
            summed: false,
            compressed,
            rules,
        };

        pages.align(layers);
        pages.group(layers, all);

        pages
    }

    /// `_align_hybrid_block_size`: attention blocks grow until a page holds a state.
    fn align(&mut self, layers: &CacheLayers) {
        let state = |kind: &VllmCacheKind| matches!(kind.keeps, Keeps::State { .. });
        let Some(state_page) = self
            .kinds
            .iter()
            .filter(|kind| state(kind))
            .map(|kind| kind.page)
            .max()
        else {
            return;
        };

        let base = self.rules.block_tokens.max(1);
        let attention: Vec<Bytes> = self
            .kinds
            .iter()
            .filter(|kind| !state(kind))
            .map(|kind| kind.page.div_ceil(base))
            .collect();

        let Some(per_token) = attention
            .iter()
            .copied()
            .max()
            .filter(|bytes| *bytes > Bytes::ZERO)
        else {
            return;
        };

        let latent = layers
            .kinds()
            .iter()
            .any(|kind| matches!(kind, CacheKind::Latent(_)));
        let step = if latent { base.max(128) } else { base };
        let blocks = state_page
            .div_ceil((per_token * step).get().max(1))
            .get()
            .max(1);
        let (block, page) = (step.saturating_mul(blocks), per_token * step * blocks);

        for kind in &mut self.kinds {
            if matches!(kind.keeps, Keeps::State { .. }) {
                kind.page = page;
            } else {
                kind.page = kind.page.div_ceil(base) * block;
                kind.block = block;
            }
        }
    }

    /// Equal kinds share a group; different ones are given equal pages and dealt to groups of equal
    /// size.
    fn group(&mut self, layers: &CacheLayers, all: &Range<u32>) {
        let uniform = self
            .kinds
            .windows(2)
            .all(|pair| pair[0].keeps == pair[1].keeps && pair[0].block == pair[1].block);
        if uniform {
            self.summed = true;
            return;
        }

        let widest = self
            .kinds
            .iter()
            .map(|kind| kind.page)
            .max()
            .unwrap_or_default();
        for kind in &mut self.kinds {
            let page = kind.page.get().max(1);
            if !matches!(kind.keeps, Keeps::State { .. }) && widest.get().is_multiple_of(page) {
                kind.block = kind.block.saturating_mul(widest.get() / page);
            }
            kind.page = widest;
        }

        let counts = || self.kinds.iter().map(|kind| layers.layers(kind.index, all));
        let (least, most) = (
            counts().min().unwrap_or(1).max(1),
            counts().max().unwrap_or(1).max(1),
        );
        let size = if most.saturating_mul(2) < least.saturating_mul(3) {
            most
        } else {
            least
        };

        for kind in &mut self.kinds {
            kind.groups = layers.layers(kind.index, all).div_ceil(size).max(1);
        }
    }

    /// Bytes of one block on a rank that holds `range` of the layers.
    pub fn bytes_per_block(&self, layers: &CacheLayers, range: &Range<u32>) -> Bytes {
        if let Some(compressed) = &self.compressed {
            return compressed.bytes_per_block(layers, range);
        }

        let of = |kind: &VllmCacheKind| {
            kind.page
                * layers
                    .layers(kind.index, range)
                    .div_ceil(kind.groups.max(1))
        };

        if self.summed {
            self.kinds.iter().map(of).sum()
        } else {
            self.kinds.iter().map(of).max().unwrap_or_default()
        }
    }

    /// Blocks of one sequence of `context` tokens.
    pub fn blocks(&self, layers: &CacheLayers, context: u64) -> Blocks {
        if let Some(compressed) = &self.compressed {
            let tokens = compressed.blocks(layers, context, self.rules.in_flight);
            return Blocks {
                tokens,
                states: 0,
                states_high: 0,
            };
        }

        let mut blocks = Blocks {
            tokens: 0,
            states: 0,
            states_high: 0,
        };

        let kinds = if self.summed {
            self.kinds.get(..1).unwrap_or_default()
        } else {
            &self.kinds
        };

        for kind in kinds {
            let held = |tokens: u64| {
                tokens
                    .div_ceil(kind.block.max(1))
                    .saturating_mul(kind.groups)
            };

            let mut tokens = 0;
            match kind.keeps {
                Keeps::All => tokens = held(context.div_ceil(self.rules.context_parallel.max(1))),
                Keeps::Window(window) => {
                    let held_tokens = window
                        .saturating_sub(1)
                        .saturating_add(self.rules.in_flight)
                        .min(context);
                    tokens = held(held_tokens).saturating_add(kind.groups);
                }
                Keeps::Chunk(chunk) => {
                    tokens = held(chunk.saturating_add(self.rules.in_flight).min(context));
                }
                Keeps::Encoder(encoder) => tokens = held(encoder),
                Keeps::State { extra } => {
                    let mode = u64::from(self.rules.state_mode == StateMode::Align);
                    let each = self.rules.speculative.saturating_add(1 + mode);
                    blocks.states = blocks
                        .states
                        .saturating_add(kind.groups.saturating_mul(each));
                    let high = kind
                        .groups
                        .saturating_mul(each.saturating_add(extra * mode));
                    blocks.states_high = blocks.states_high.saturating_add(high);
                }
            }

            blocks.tokens = blocks.tokens.saturating_add(tokens);
        }

        blocks
    }

    /// The most that `bytes` of cache may turn out: one log of DeepSeek V4 is 5.4 % above the
    /// formula, another on it.
    pub fn doubt(&self, bytes: Bytes) -> Bytes {
        if self.compressed.is_some() {
            bytes.scale(1055, 1000)
        } else {
            bytes
        }
    }

    /// Groups of all kinds.
    pub fn groups(&self) -> u64 {
        if self.summed {
            1
        } else {
            self.kinds.iter().map(|kind| kind.groups).sum()
        }
    }

    /// Tokens of one block of the narrowest attention group.
    pub fn block_tokens(&self) -> u64 {
        let attention = self
            .kinds
            .iter()
            .filter(|kind| !matches!(kind.keeps, Keeps::State { .. }));

        attention
            .map(|kind| kind.block)
            .min()
            .unwrap_or(self.rules.block_tokens)
    }

    /// What releases before 0.21 log as "GPU KV cache size" for `blocks` blocks: whole groups of
    /// blocks.
    pub fn logged_tokens(&self, blocks: u64) -> u64 {
        (blocks / self.groups().max(1))
            .saturating_mul(self.block_tokens())
            .saturating_mul(self.rules.context_parallel)
    }
}

/// Bytes of a latent and its indexer key for one token (`MLAAttentionSpec`,
/// `layers/sparse_attn_indexer.py`).
///
/// A `sparse` model has indexers in some layers, whose choice the others share (GLM-5.2): all its
/// latents are in the sparse backend's layout, and only the layers with an indexer keep its keys.
pub fn latent_bytes(latent: &LatentAttention, kv: KvDtype, sparse: bool) -> Bytes {
    let (rank, rope) = (latent.kv_lora_rank, latent.rope_dim);
    if !sparse {
        return Bytes::new(kv.head_bytes(rank.saturating_add(rope)));
    }

    let state = match kv {
        // fp8_ds_mla: latent in 8 bits, a 4-byte scale for each 128, the rotary part in 16 bits.
        KvDtype::Fp8 => rank + rank.div_ceil(128) * 4 + rope * 2,
        // nvfp4_ds_mla: 352 bytes for 512 + 64.
        KvDtype::Nvfp4 => rank / 2 + rank / 16 + rope,
        other => other.head_bytes(rank.saturating_add(rope)),
    };

    let key = |indexer: Indexer| {
        Bytes::new(indexer.head_dim) + Bytes::new(indexer.head_dim.div_ceil(128)) * 4
    };

    Bytes::new(state) + latent.indexer.map_or(Bytes::ZERO, key)
}

/// KDA and lightning attention keep their states in 32 bits.
fn float32_state(state: &crate::model::architecture::Recurrent) -> bool {
    use crate::model::architecture::Recurrent;
    matches!(state, Recurrent::Kda { .. } | Recurrent::Lightning { .. })
}

/// Kernels that export a checkpoint of the state during prefill.
fn exports_checkpoints(state: &crate::model::architecture::Recurrent) -> bool {
    use crate::model::architecture::Recurrent;
    matches!(
        state,
        Recurrent::Mamba2 { .. } | Recurrent::GatedDelta { .. } | Recurrent::Kda { .. }
    )
}
