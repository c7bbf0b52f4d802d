//! Buffers that stay allocated: sampler state, workspaces of attention backends, LoRA slots and
//! block tables.

use super::VllmPrepared;
use super::activations::dense_latent;
use super::speculation::SpeculationMethod;
use crate::bytes::Bytes;
use crate::engines::shared::layer_kinds::RankLayers;
use crate::engines::{Interval, Split};
use crate::model::architecture::{Mixer, Task};

/// Bytes of a sequence's bad-word lists (`v1/worker/gpu/sample/penalties.py`).
const BAD_WORD_BYTES: u64 = 4710;

/// Sequences whose latents sparse prefill gathers at once.
const GATHERED_SEQUENCES: u64 = 5;

/// Bytes of an element of gathered latents.
const GATHERED_ELEMENT_BYTES: u64 = 2;

/// The most that indexer logits take, in MiB (`indexer.py`).
const MAX_INDEXER_LOGITS_MIB: u64 = 512;

impl VllmPrepared<'_> {
    /// The buffers on `rank` that do not depend on the context.
    pub(super) fn persistent(&self, split: &Split, rank: usize) -> Interval {
        let (settings, constants) = (&self.settings, &self.constants);
        let (_, range) = split.stage_of(rank);
        let layers = &self.kinds.held(&range);
        let mut sum = Interval::default();

        if constants.persistent_sampler_state
            && split.is_last_stage(rank)
            && self.settings.task == Task::Generate
        {
            let state = self.sampler_state();
            sum = sum.plus(Interval::new(Bytes::ZERO, state, state));
        }

        if let Some(latent) = layers
            .find_map(|layer| dense_latent(&layer.mixer))
            .filter(|_| !self.cache_layers().sparse())
        {
            let width = latent.kv_lora_rank.saturating_add(latent.rope_dim);
            let gather = Bytes::product([self.latent_rows(), width, settings.compute.bytes()]);
            sum = sum.plus(Interval::new(Bytes::ZERO, gather, gather));
        }

        sum = sum.plus(self.flashinfer_workspace());

        if self.drafts() > 0 && split.is_last_stage(rank) {
            // A predictor's runner holds the hidden states of a step, maybe those of its inputs too
            // (`spec_decode/target_dependent_ar/speculator.py`). No log shows them apart.
            let hidden = Bytes::product([
                settings.batched_tokens,
                self.architecture.hidden_size,
                settings.compute.bytes(),
            ]);
            sum = sum.plus(Interval::new(Bytes::ZERO, Bytes::ZERO, hidden * 2));
        }

        if let Some((adapters, lora_rank)) = settings.lora {
            let slots = self.lora_slots(split, rank) * adapters * lora_rank;
            sum = sum.plus(Interval::exact(slots));
        }

        sum
    }

    /// The workspace of FlashInfer, the default backend of Blackwell.
    pub(super) fn flashinfer_workspace(&self) -> Interval {
        let workspace = self.constants.flashinfer_workspace_mib;
        match self.settings.capability {
            Some(100..120) => Interval::new(Bytes::ZERO, workspace, workspace),
            None if self.settings.huge => Interval::new(Bytes::ZERO, Bytes::ZERO, workspace),
            Some(_) | None => Interval::default(),
        }
    }

    /// The sampler's output-token counts in 32 bits, prompt bitmap and bad-word lists
    /// (`v1/worker/gpu/sample/penalties.py`).
    fn sampler_state(&self) -> Bytes {
        let sequences = self.settings.max_sequences;
        let vocabulary = self.architecture.vocab_size;

        Bytes::product([sequences, vocabulary, 4])
            + Bytes::product([sequences, vocabulary]).div_ceil(8)
            + Bytes::product([sequences, BAD_WORD_BYTES])
    }

    /// The tokens of every sequence, which looking up n-grams keeps on the device, and a score for
    /// each run of them (`v1/worker/gpu/states.py`, `spec_decode/ngram/speculator.py`).
    fn lookup_tables(&self, context: u64) -> Bytes {
        let looks_up = self
            .settings
            .speculation
            .is_some_and(|speculation| speculation.method == SpeculationMethod::Ngram);
        if !looks_up {
            return Bytes::ZERO;
        }

        let sequences = self.settings.max_sequences;
        let runs = context.div_ceil(lookup_run(context));
        Bytes::product([sequences, context, 4]) + Bytes::product([sequences, runs, 8])
    }

    /// The buffers on `rank` that grow with the context: block tables, and the gather buffer of
    /// sparse prefill.
    pub(super) fn persistent_by_context(
        &self,
        split: &Split,
        rank: usize,
        context: u64,
    ) -> Interval {
        let (_, range) = split.stage_of(rank);
        let layers = &self.kinds.held(&range);
        let pages = self.pages(split);
        let columns = context.div_ceil(pages.block_tokens().max(1));
        // No log shows the tables apart, and a runner may keep fewer columns.
        let widest = Bytes::product([self.settings.max_sequences, columns, 4, pages.groups()]);
        let tables = Interval::new(widest.scale(98, 100), widest, widest)
            .plus(Interval::exact(self.lookup_tables(context)));

        let indexed = layers.find_map(|layer| match &layer.mixer {
            Mixer::Latent(latent) if self.cache_layers().sparse() => Some(latent),
            _ => None,
        });
        let Some(latent) = indexed else { return tables };

        let logits = Bytes::mib(MAX_INDEXER_LOGITS_MIB);
        let width = latent_width(layers);
        if latent.compress_ratio.is_some() {
            // DeepSeek V4 gathers compressed states; how many at once is unknown.
            let gather = gathered_latents(context.div_ceil(4), width);
            return tables.plus(Interval::new(Bytes::ZERO, Bytes::ZERO, gather + logits));
        }

        // `mla/flashmla_sparse.py`
        let gather = gathered_latents(context, width);
        tables.plus(Interval::new(Bytes::ZERO, gather, gather + logits))
    }
}

/// Tokens of one run that looking up n-grams scores.
const fn lookup_run(context: u64) -> u64 {
    match context {
        0..256 => 16,
        256..1024 => 128,
        _ => 256,
    }
}

/// Bytes of the latents that sparse prefill gathers.
fn gathered_latents(rows: u64, width: u64) -> Bytes {
    Bytes::product([GATHERED_SEQUENCES, rows, width, GATHERED_ELEMENT_BYTES])
}

/// The widest latent of `layers`, in elements.
fn latent_width(layers: &RankLayers<'_>) -> u64 {
    let widths = layers.iter().filter_map(|layer| match &layer.mixer {
        Mixer::Latent(latent) => Some(latent.kv_lora_rank.saturating_add(latent.rope_dim)),
        _ => None,
    });
    widths.max().unwrap_or(0)
}
