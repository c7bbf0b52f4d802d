//! Cache bytes on one rank: pages for a split, blocks for a workload.

use std::ops::Range;
use std::sync::{Arc, PoisonError};

use super::cache::{CachePages, PageRules};
use super::checkpoints::CheckpointRules;
use super::draft::VllmDraft;
use super::paged_kind::{is_index_head, stored_dtype};
use super::{VllmPrepared, own_predictors};
use crate::bytes::Bytes;
use crate::engines::shared::cache::{CacheKind, CacheLayers, state_elements, token_bytes};
use crate::engines::shared::dtype::KvDtype;
use crate::engines::shared::latent_cache::latent_bytes;
use crate::engines::{EngineError, Interval, Split, Workload};
use crate::model::architecture::{LatentAttention, Mixer, Span};

/// Tokens of one block of compressed latents.
const COMPRESSED_BLOCK_TOKENS: u64 = 256;

/// Tokens of one block of attention with an indexer (vLLM 0.33
/// `models/minimax_m3/nvidia/sparse_attention_msa.py`).
const INDEXED_BLOCK_TOKENS: u64 = 128;

/// The head width of FlashAttention 4's own kernel for FP8 caches.
const WIDE_HEAD_DIM: u64 = 512;

/// The memory on one rank that grows with the workload.
#[derive(Clone, Copy, Debug)]
pub(super) struct VariableBytes {
    /// Blocks of tokens.
    pub(super) tokens: Interval,
    /// Blocks of recurrent states.
    pub(super) states: Interval,
    /// Block tables and gather buffers.
    pub(super) tables: Interval,
}

impl VariableBytes {
    /// The sum of all parts.
    pub(super) fn sum(self) -> Interval {
        self.tokens.plus(self.states).plus(self.tables)
    }
}

impl VllmPrepared<'_> {
    /// The pages for the degrees of `split`.
    pub fn pages(&self, split: &Split) -> Arc<CachePages> {
        let key = (split.tensor, split.stages.len());
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = pages.entry(key).or_insert_with(|| {
            Arc::new(CachePages::new(
                &self.layers,
                &(0..u32::MAX),
                self.page_rules(split),
            ))
        });

        Arc::clone(entry)
    }

    /// The cache kinds of the model's layers, which [`CachePages`] takes.
    pub fn cache_layers(&self) -> &CacheLayers {
        &self.layers
    }

    fn page_rules(&self, split: &Split) -> PageRules {
        let settings = &self.settings;
        let stages = split.stages.len() as u64;
        let batches = if settings.async_scheduling {
            stages + self.constants.in_flight_batches_async
        } else {
            stages
        };

        PageRules {
            kv: settings.kv,
            conv_bytes: settings.compute.bytes(),
            state_bytes: settings.state_bytes,
            block_tokens: self.block_tokens(),
            hybrid_manager: settings.hybrid_manager,
            state_mode: settings.state_mode,
            checkpoints: CheckpointRules::new(
                &self.constants,
                &self.architecture.model_type,
                settings.capability,
            ),
            speculative: settings.speculative_tokens(),
            in_flight: settings.batched_tokens.saturating_mul(batches),
            context_parallel: settings.context_parallel,
            tensor: u64::from(split.tensor.max(1)),
        }
    }

    /// Tokens of a block before any alignment: the attention backend's own number.
    pub(super) fn block_tokens(&self) -> u64 {
        let constants = &self.constants;
        let latent = self
            .architecture
            .layers
            .iter()
            .any(|layer| matches!(layer.mixer, Mixer::Latent(_)));

        let fp8 = self.settings.kv == KvDtype::Fp8;
        let default = match self.settings.capability {
            _ if latent && self.layers.sparse() => constants.sparse_block_tokens,
            _ if self.has_index_heads() => INDEXED_BLOCK_TOKENS,
            Some(100..120) if latent => constants.latent_block_tokens_sm100,
            Some(100..110) if self.mixes_kernels() => constants.gemma4_block_tokens_sm100,
            Some(90..100) if latent && fp8 => constants.latent_block_tokens_fp8_sm90,
            Some(90..100) if latent => constants.latent_block_tokens_sm90,
            Some(90..100) if fp8 && self.has_wide_heads() => constants.wide_fp8_block_tokens_sm90,
            // A device of unknown capability may be any of these: the widest block counts.
            None if latent => constants
                .latent_block_tokens_sm100
                .max(constants.latent_block_tokens_sm90)
                .max(if fp8 {
                    constants.latent_block_tokens_fp8_sm90
                } else {
                    0
                }),
            None if self.mixes_kernels() => constants.gemma4_block_tokens_sm100,
            None if fp8 && self.has_wide_heads() => constants.wide_fp8_block_tokens_sm90,
            _ => constants.block_tokens,
        };

        self.settings.block_tokens.unwrap_or(default)
    }

    /// Whether one kernel attends to text and another to images, as in Gemma 4 on Blackwell: blocks
    /// then suit both (`v1/attention/backends/triton_flashinfer.py`).
    fn mixes_kernels(&self) -> bool {
        self.architecture.root_model_type.starts_with("gemma4")
            && self.architecture.vision.is_some()
    }

    /// Whether an indexer of plain attention keeps keys (MiniMax-M3).
    fn has_index_heads(&self) -> bool {
        let mut kinds = self.layers.kinds().iter();
        kinds.any(|kind| matches!(kind, CacheKind::Heads(attention) if is_index_head(attention)))
    }

    /// Whether FlashAttention 4's kernel for FP8 caches reads the widest head.
    fn has_wide_heads(&self) -> bool {
        let widths = self.layers.kinds().iter().filter_map(|kind| match kind {
            CacheKind::Heads(attention) => Some(attention.key_dim),
            _ => None,
        });

        widths.max() == Some(WIDE_HEAD_DIM)
    }

    /// Layers whose caches `rank` holds: its stage's, and on the last stage the draft's.
    pub(super) fn cached_layers(&self, split: &Split, rank: usize) -> Range<u32> {
        let (_, range) = split.stage_of(rank);
        if split.is_last_stage(rank) {
            range.start..range.end.saturating_add(self.layers_behind())
        } else {
            range
        }
    }

    /// Layers of the model's next-token predictor, which vLLM loads for speculative decoding only.
    pub(super) fn drafts(&self) -> u32 {
        own_predictors(&self.settings, self.architecture)
    }

    /// Layers behind the model's: those of its predictor and of its draft.
    fn layers_behind(&self) -> u32 {
        let draft = self.draft.as_ref().map_or(0, VllmDraft::layer_count);
        self.drafts().saturating_add(draft)
    }

    /// Bytes of tokens and of states that `rank` holds for `workload`.
    pub(super) fn cache(
        &self,
        split: &Split,
        rank: usize,
        workload: Workload,
    ) -> (Interval, Interval) {
        let range = self.cached_layers(split, rank);
        let pages = self.pages(split);
        let block = pages.bytes_per_block(&self.layers, &range);
        let blocks = pages.blocks(&self.layers, workload.context);
        let sequences = workload.sequences;

        // vLLM reserves one more block, the null block, which holds nothing.
        let tokens = block * blocks.tokens.saturating_mul(sequences).saturating_add(1);
        let states = block * blocks.states.saturating_mul(sequences);
        let states_low = block * blocks.states_low.saturating_mul(sequences);

        (
            Interval::new(tokens, tokens, pages.upper_bound(tokens)),
            Interval::new(states_low, states, states),
        )
    }

    /// The memory on `rank` that grows with `workload`; `None` for a model without a cache.
    pub(super) fn variable_bytes(
        &self,
        split: &Split,
        rank: usize,
        workload: Workload,
    ) -> Result<Option<VariableBytes>, EngineError> {
        if self.layers.is_empty() {
            return Ok(None);
        }

        let (tokens, states) = self.cache(split, rank, workload);
        if tokens.high.overflowed() || states.high.overflowed() {
            return Err(EngineError::Overflow { what: "cache" });
        }

        Ok(Some(VariableBytes {
            tokens,
            states,
            tables: self.persistent_by_context(split, rank, workload.context),
        }))
    }

    /// Cache bytes of one more token over all layers, unsharded.
    pub(super) fn token_bytes(&self) -> Bytes {
        let draft = self.draft.as_ref().map_or(0, VllmDraft::layer_count);
        let all = 0..self.architecture.layer_count().saturating_add(draft);
        let kinds = self.layers.kinds();
        let compressed = kinds.iter().any(
            |kind| matches!(kind, CacheKind::Latent(latent) if latent.compress_ratio.is_some()),
        );
        if compressed {
            return self
                .pages(&Split::single(all.end))
                .bytes_per_block(&self.layers, &all)
                .div_ceil(COMPRESSED_BLOCK_TOKENS);
        }

        let in_flight = self.page_rules(&Split::single(all.end)).in_flight;
        kinds
            .iter()
            .enumerate()
            .map(|(index, kind)| {
                self.kind_token_bytes(kind, in_flight) * self.layers.layers(index, &all)
            })
            .sum()
    }

    /// Cache bytes of one more token in one layer of `kind`.
    ///
    /// A window or chunk also keeps the tokens in flight: it grows until it holds both.
    fn kind_token_bytes(&self, kind: &CacheKind, in_flight: u64) -> Bytes {
        let settings = &self.settings;
        match kind {
            CacheKind::Heads(attention) => match attention.span {
                Span::Sliding { window: kept } | Span::Chunked { chunk: kept }
                    if settings.hybrid_manager
                        && settings.workload.context >= kept.saturating_add(in_flight) =>
                {
                    Bytes::ZERO
                }
                Span::Cross { .. } | Span::Bidirectional => Bytes::ZERO,
                _ => token_bytes(attention, stored_dtype(attention, settings.kv), 1),
            },
            CacheKind::Latent(LatentAttention {
                compress_ratio: Some(_),
                ..
            })
            | CacheKind::State(_) => Bytes::ZERO,
            CacheKind::Latent(latent) => latent_bytes(latent, settings.kv, self.layers.sparse()),
        }
    }

    /// State bytes of one sequence over all layers, unsharded.
    pub(super) fn sequence_state_bytes(&self) -> Bytes {
        let all = 0..self.architecture.layer_count();
        let mut sum = Bytes::ZERO;

        for (index, kind) in self.layers.kinds().iter().enumerate() {
            if let CacheKind::State(state) = kind {
                let (conv, recurrent) =
                    state_elements(state, 1, self.settings.speculative_tokens());
                let each =
                    conv * self.settings.compute.bytes() + recurrent * self.settings.state_bytes;
                sum += each * self.layers.layers(index, &all);
            }
        }

        sum
    }
}
