//! SGLang's pools: tokens, windows, states and the request table.
//!
//! Sources: SGLang 0.5.23 `model_executor/pool_configurator.py`, `mem_cache/memory_pool.py`,
//! `mem_cache/kv_cache_configurator.py`.

use super::SglangPrepared;
use crate::bytes::Bytes;
use crate::engines::shared::cache::{CacheKind, state_elements, token_bytes};
use crate::engines::shared::latent_cache::latent_bytes;
use crate::engines::{Interval, Split, Workload};
use crate::model::architecture::{Mixer, Span};

/// Classes whose windows get a pool of their own (`configs/model_config.py`,
/// `is_hybrid_swa_model`). Sliding layers of all other classes keep the full context.
const HYBRID_WINDOWS: &[&str] = &[
    "Llama4ForConditionalGeneration",
    "GptOssForCausalLM",
    "MiMoV2FlashForCausalLM",
    "MiMoV2ForCausalLM",
    "Step3p5ForCausalLM",
    "Gemma4ForConditionalGeneration",
    "Gemma4ForCausalLM",
    "DeepseekV4ForCausalLM",
    "LagunaForCausalLM",
    "MellumForCausalLM",
    "BeamForCausalLM",
    "Step3p7ForConditionalGeneration",
    "Gemma4UnifiedForConditionalGeneration",
    "MuseGlimmerForCausalLM",
    "MuseGlimmerForConditionalGeneration",
    "GraniteSWAForCausalLM",
    "GraniteMoeSWAForCausalLM",
];

/// Bytes of the pools on one rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pools {
    /// Token pool, and window pool if there is one.
    pub(super) tokens: Bytes,
    /// State slots.
    pub(super) states: Bytes,
    /// The request table, outside the cache's budget.
    pub(super) table: Bytes,
}

impl SglangPrepared<'_> {
    /// Whether windows get a pool of their own.
    pub(super) fn hybrid_windows(&self) -> bool {
        HYBRID_WINDOWS.contains(&&*self.architecture.class)
            || self
                .architecture
                .notes
                .iter()
                .any(|note| note.contains("is_hybrid_swa"))
    }

    /// Bytes of a token on `rank`: in full layers, and in window layers.
    pub(super) fn cell(&self, split: &Split, rank: usize) -> (Bytes, Bytes) {
        let (_, range) = split.stage_of(rank);
        let hybrid = self.hybrid_windows();
        let (mut full, mut window) = (Bytes::ZERO, Bytes::ZERO);

        for (index, kind) in self.layers.kinds().iter().enumerate() {
            let layers = self.layers.layers(index, &range);
            match kind {
                CacheKind::Heads(attention) => {
                    let each =
                        token_bytes(attention, self.settings.kv, u64::from(split.tensor)) * layers;
                    match attention.span {
                        Span::Sliding { .. } | Span::Chunked { .. } if hybrid => window += each,
                        _ => full += each,
                    }
                }
                CacheKind::Latent(latent) => {
                    full += latent_bytes(latent, self.settings.kv, self.layers.sparse()) * layers;
                }
                CacheKind::State(_) => {}
            }
        }

        // An encoder keeps no cache, but SGLang gives its layers a pool like others: 23.48 GiB for
        // 256,568 tokens of BGE-M3 (sgl-project/sglang issue 7590).
        for mixer in self.architecture.mixers(range) {
            if let Mixer::Attention(attention) = mixer
                && attention.span == Span::Bidirectional
            {
                full += token_bytes(attention, self.settings.kv, u64::from(split.tensor));
            }
        }

        (full, window)
    }

    /// Bytes of one token slot of the pool, the window pool's share included.
    pub(super) fn slot(&self, split: &Split, rank: usize) -> Bytes {
        let (full, window) = self.cell(split, rank);
        full + window.scale(self.settings.swa_ratio, 1_000_000)
    }

    /// Bytes of one state slot on `rank`, over its layers.
    pub(super) fn state_slot(&self, split: &Split, rank: usize) -> Bytes {
        let (_, range) = split.stage_of(rank);
        let mut sum = Bytes::ZERO;

        for (index, kind) in self.layers.kinds().iter().enumerate() {
            if let CacheKind::State(state) = kind {
                let (conv, recurrent) = state_elements(state, u64::from(split.tensor), 0);
                let each =
                    conv * self.settings.compute.bytes() + recurrent * self.settings.state_bytes;
                sum += each * self.layers.layers(index, &range);
            }
        }

        sum
    }

    /// Pools that hold `workload` on `rank`.
    pub(super) fn pools(&self, split: &Split, rank: usize, workload: Workload) -> Pools {
        let slot = self.state_slot(split, rank);
        if self.slot(split, rank) == Bytes::ZERO && slot == Bytes::ZERO {
            return Pools::default();
        }

        let tokens = self
            .token_slots(workload)
            .saturating_add(self.settings.page_tokens);

        // Three slots a request with the radix cache, one without it, and one for padding.
        let slots = workload
            .sequences
            .saturating_mul(if self.settings.radix { 3 } else { 1 })
            .saturating_add(1);
        let states = if slot == Bytes::ZERO {
            slot
        } else {
            slot * slots
        };

        let (tokens, states) = self.fit_pool_ratio(self.slot(split, rank) * tokens, states);
        Pools {
            tokens,
            states,
            table: self.request_table(workload),
        }
    }

    /// The pool of the draft: as its layers take, or as the model's pool sets apart for it.
    pub(super) fn draft_pool(&self, split: &Split, workload: Workload) -> Option<Interval> {
        let (taken, set_apart) = self.draft.as_ref()?.slot(self, split);
        let tokens = self
            .token_slots(workload)
            .saturating_add(self.settings.page_tokens);
        let most = taken.max(set_apart) * tokens;

        Some(Interval::new(taken * tokens, most, most))
    }

    /// Slots of the token pool that hold `workload`.
    ///
    /// The window pool is a share of it (`swa_full_tokens_ratio`) and must hold every window and
    /// the step in flight. For contexts no longer than that, the whole pool grows until its share
    /// is large enough.
    pub(super) fn token_slots(&self, workload: Workload) -> u64 {
        let page = self.settings.page_tokens;

        // The encoder tokens of an image take ordinary slots, over all layers
        // (`managers/schedule_batch.py`).
        let cross = self.layers.kinds().iter().filter_map(|kind| match kind {
            CacheKind::Heads(attention) => match attention.span {
                Span::Cross { tokens } => Some(tokens),
                _ => None,
            },
            _ => None,
        });
        let proposed = self
            .settings
            .speculation
            .map_or(0, |speculation| speculation.slots_beyond(page));
        let held = workload
            .context
            .saturating_add(cross.max().unwrap_or(0))
            .saturating_add(proposed);
        let tokens = held
            .div_ceil(page)
            .saturating_mul(page)
            .saturating_mul(workload.sequences);

        let windows = self.layers.kinds().iter().filter_map(|kind| match kind {
            CacheKind::Heads(attention) => match attention.span {
                Span::Sliding { window } | Span::Chunked { chunk: window } => Some(window),
                _ => None,
            },
            _ => None,
        });
        let Some(window) = windows.max().filter(|_| self.hybrid_windows()) else {
            return tokens;
        };

        let in_flight = window
            .saturating_mul(workload.sequences)
            .saturating_add(self.settings.chunk);

        tokens.max(
            Bytes::new(tokens.min(in_flight))
                .scale(1_000_000, self.settings.swa_ratio.max(1))
                .get(),
        )
    }

    /// Enlarges the two pools of a hybrid model until both have at least the size asked for.
    ///
    /// SGLang divides the budget by `mamba_full_memory_ratio`, whatever each pool needs, unless the
    /// number of requests sizes the states (`mem_cache/kv_cache_configurator.py`).
    fn fit_pool_ratio(&self, tokens: Bytes, states: Bytes) -> (Bytes, Bytes) {
        let by_requests = !self.settings.radix && self.settings.max_running.is_some();
        let ratio = self.settings.state_ratio;
        if states == Bytes::ZERO || by_requests || ratio == 0 {
            return (tokens, states);
        }

        (
            tokens.max(states.scale(1_000_000, ratio)),
            states.max(tokens.scale(ratio, 1_000_000)),
        )
    }

    /// Bytes of the request table: `(max_running + 1) x (context + 4) x 4`.
    ///
    /// Unless set, `max_running` is 2048 to 4096 requests.
    pub(super) fn request_table(&self, workload: Workload) -> Bytes {
        let requests = self.settings.max_running.unwrap_or_else(|| {
            // 512 for each whole context that the pool holds, within these bounds and at most half
            // the pool's tokens.
            let pool = workload.context.saturating_mul(workload.sequences);
            let default = workload.sequences.saturating_mul(512).clamp(2048, 4096);
            default.min((pool / 2).max(1)).max(workload.sequences)
        });

        Bytes::product([
            requests.saturating_add(1),
            workload.context.saturating_add(4),
            4,
        ])
    }
}
