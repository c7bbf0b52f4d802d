//! vLLM's KV cache: pages, groups and blocks.
//!
//! Sources: vLLM 0.33 `v1/kv_cache_interface.py`, `v1/core/kv_cache_planning.py`
//! (`get_kv_cache_groups`, `_get_kv_cache_groups_uniform_page_size`), `platforms/interface.py`
//! (`_align_hybrid_block_size`), `config/vllm.py` (`max_in_flight_tokens`).

use std::ops::Range;

use super::checkpoints::{CheckpointRules, Checkpoints};
use super::compressed::CompressedCache;
use super::paged_kind::{PagedKind, Retention};
use super::state_mode::StateMode;
use crate::bytes::Bytes;
use crate::engines::shared::cache::{CacheKind, CacheLayers};
use crate::engines::shared::dtype::KvDtype;

/// The rules of the pages, in addition to the layers.
#[derive(Clone, Copy, Debug)]
pub struct PageRules {
    /// dtype of keys, values and latents.
    pub kv: KvDtype,
    /// Bytes of an element of a convolution's state.
    pub conv_bytes: u64,
    /// Bytes of an element of a recurrent state; some families force 4.
    pub state_bytes: u64,
    /// Tokens of a block unless a rule forces another number.
    pub block_tokens: u64,
    /// Whether vLLM keeps windows as windows; otherwise every layer keeps every token.
    pub hybrid_manager: bool,
    /// How states take part in prefix caching.
    pub state_mode: StateMode,
    /// The kernels' checkpoints of states during prefill.
    pub checkpoints: CheckpointRules,
    /// Draft tokens.
    pub speculative: u64,
    /// Tokens in flight (F).
    pub in_flight: u64,
    /// Ranks that share a sequence's tokens.
    pub context_parallel: u64,
    /// Tensor-parallel degree.
    pub tensor: u64,
}

/// The paging of a model at one tensor-parallel degree.
#[derive(Clone, Debug)]
pub struct CachePages {
    kinds: Vec<PagedKind>,
    /// Whether one group holds layers of several page sizes: a block is then as wide as their sum.
    summed: bool,
    compressed: Option<CompressedCache>,
    rules: PageRules,
}

/// Blocks of one sequence: of its tokens and of its states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    /// Blocks of one sequence's tokens.
    pub tokens: u64,
    /// Blocks of one sequence's states, with the checkpoints that the kernels export.
    pub states: u64,
    /// `states` with the kernels of another CUDA runtime, if those export no checkpoint.
    pub states_low: u64,
}

impl Blocks {
    /// Blocks of tokens and states.
    pub const fn total(self) -> u64 {
        self.tokens.saturating_add(self.states)
    }
}

impl CachePages {
    /// Pages of `layers` under `rules`.
    pub fn new(layers: &CacheLayers, all: &Range<u32>, rules: PageRules) -> Self {
        let kinds = layers
            .kinds()
            .iter()
            .enumerate()
            .map(|(index, kind)| PagedKind::new(index, kind, layers.sparse(), rules))
            .collect();

        let mut pages = Self {
            kinds,
            summed: false,
            compressed: CompressedCache::new(layers),
            rules,
        };

        pages.align(layers);
        pages.group(layers, all);

        pages
    }

    /// Enlarges attention blocks until a page holds a state (`_align_hybrid_block_size`).
    fn align(&mut self, layers: &CacheLayers) {
        let (states, attention): (Vec<&PagedKind>, Vec<&PagedKind>) = self
            .kinds
            .iter()
            .partition(|kind| kind.retention.is_state());
        let Some(state_page) = states.iter().map(|kind| kind.page).max() else {
            return;
        };

        let base = self.rules.block_tokens.max(1);
        let Some(per_token) = attention
            .iter()
            .map(|kind| kind.page.div_ceil(base))
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
        let step = match self.rules.state_mode {
            StateMode::Align => least_common_multiple(step, self.checkpoint_tokens()),
            StateMode::None => step,
        };
        let blocks = state_page
            .div_ceil((per_token * step).get().max(1))
            .get()
            .max(1);
        let (block, page) = (step.saturating_mul(blocks), per_token * step * blocks);

        for kind in &mut self.kinds {
            if kind.retention.is_state() {
                kind.page = page;
            } else {
                kind.page = kind.page.div_ceil(base) * block;
                kind.block = block;
            }
        }
    }

    /// Forms the groups: equal kinds share one; different kinds get equal pages and go to groups of
    /// equal size.
    fn group(&mut self, layers: &CacheLayers, all: &Range<u32>) {
        let uniform = self
            .kinds
            .windows(2)
            .all(|pair| pair[0].retention == pair[1].retention && pair[0].block == pair[1].block);
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
            if !kind.retention.is_state() && widest.get().is_multiple_of(page) {
                kind.block = kind.block.saturating_mul(widest.get() / page);
            }
            kind.page = widest;
        }

        let counts: Vec<u64> = self
            .kinds
            .iter()
            .map(|kind| layers.layers(kind.index, all))
            .collect();
        let fewest = counts.iter().copied().min().unwrap_or(1).max(1);
        let most = counts.iter().copied().max().unwrap_or(1).max(1);
        let size = if most.saturating_mul(2) < fewest.saturating_mul(3) {
            most
        } else {
            fewest
        };

        for (kind, count) in self.kinds.iter_mut().zip(counts) {
            kind.groups = count.div_ceil(size).max(1);
        }
    }

    /// Bytes of one block on a rank that holds `range` of the layers.
    pub fn bytes_per_block(&self, layers: &CacheLayers, range: &Range<u32>) -> Bytes {
        if let Some(compressed) = &self.compressed {
            return compressed.bytes_per_block(layers, range);
        }

        let groups = self
            .kinds
            .iter()
            .map(|kind| kind.group_bytes(layers, range));
        if self.summed {
            groups.sum()
        } else {
            groups.max().unwrap_or_default()
        }
    }

    /// Blocks of one sequence of `context` tokens.
    pub fn blocks(&self, layers: &CacheLayers, context: u64) -> Blocks {
        if let Some(compressed) = &self.compressed {
            return Blocks {
                tokens: compressed.blocks(layers, context, self.rules.in_flight),
                ..Blocks::default()
            };
        }

        let kinds = if self.summed {
            self.kinds.get(..1).unwrap_or_default()
        } else {
            &self.kinds
        };

        let mut blocks = Blocks::default();
        for kind in kinds {
            if let Retention::State(checkpoints) = kind.retention {
                self.add_state_blocks(&mut blocks, kind, checkpoints);
            } else {
                let tokens = self.attention_blocks(kind, context);
                blocks.tokens = blocks.tokens.saturating_add(tokens);
            }
        }

        blocks
    }

    /// Blocks of the tokens that `kind` retains of `context`.
    fn attention_blocks(&self, kind: &PagedKind, context: u64) -> u64 {
        let rules = &self.rules;
        match kind.retention {
            Retention::All => kind.token_blocks(context.div_ceil(rules.context_parallel.max(1))),
            Retention::Window(window) => {
                let retained = window
                    .saturating_sub(1)
                    .saturating_add(rules.in_flight)
                    .min(context);
                kind.token_blocks(retained).saturating_add(kind.groups)
            }
            Retention::Chunk(chunk) => {
                kind.token_blocks(chunk.saturating_add(rules.in_flight).min(context))
            }
            Retention::Encoder(tokens) => kind.token_blocks(tokens),
            Retention::State(_) => 0,
        }
    }

    /// Adds the state blocks of `kind`: one for the state and one for each draft token.
    ///
    /// Prefix caching adds one more, and those of checkpoints.
    fn add_state_blocks(&self, blocks: &mut Blocks, kind: &PagedKind, checkpoints: Checkpoints) {
        let aligned = u64::from(self.rules.state_mode == StateMode::Align);
        let each_low = self.rules.speculative.saturating_add(1 + aligned);
        let each = each_low.saturating_add(checkpoints.blocks * aligned);
        let each_low = if checkpoints.certain { each } else { each_low };

        blocks.states = blocks
            .states
            .saturating_add(kind.groups.saturating_mul(each));
        blocks.states_low = blocks
            .states_low
            .saturating_add(kind.groups.saturating_mul(each_low));
    }

    /// The step of tokens at which every state's kernel exports checkpoints; 1 if one exports none
    /// (`layers/mamba/abstract.py`, `get_mamba_prefill_checkpoint_alignment`).
    fn checkpoint_tokens(&self) -> u64 {
        let mut step = 1;
        for kind in &self.kinds {
            match kind.retention {
                Retention::State(Checkpoints { tokens: None, .. }) => return 1,
                Retention::State(Checkpoints {
                    tokens: Some(tokens),
                    ..
                }) => step = least_common_multiple(step, tokens.get()),
                _ => {}
            }
        }

        step
    }

    /// The high end for `bytes` of cache.
    ///
    /// Two logs of DeepSeek V4 exist: the first is 5.4 % above the formula, the second agrees.
    pub fn upper_bound(&self, bytes: Bytes) -> Bytes {
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
        self.kinds
            .iter()
            .filter(|kind| !kind.retention.is_state())
            .map(|kind| kind.block)
            .min()
            .unwrap_or(self.rules.block_tokens)
    }

    /// The "GPU KV cache size" that releases before 0.21 log for `blocks` blocks: whole groups of
    /// blocks.
    pub fn logged_tokens(&self, blocks: u64) -> u64 {
        (blocks / self.groups().max(1))
            .saturating_mul(self.block_tokens())
            .saturating_mul(self.rules.context_parallel)
    }
}

/// The least common multiple of two numbers, at least 1.
fn least_common_multiple(one: u64, other: u64) -> u64 {
    let (one, other) = (one.max(1), other.max(1));
    let (mut divisor, mut rest) = (one, other);

    while rest > 0 {
        (divisor, rest) = (rest, divisor % rest);
    }

    (one / divisor).saturating_mul(other)
}
