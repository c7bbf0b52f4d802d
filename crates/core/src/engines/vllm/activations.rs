//! The transient peak of vLLM's profile run, and the workspaces that stay behind it.
//!
//! The law: `max(sampler, forward + latent expansion) + expert workspace + base`, fitted on 60
//! start-up logs of 0.17-0.19 on H100 and derived from `v1/sample`, `layers/fused_moe/experts/*`
//! (`workspace_shapes`) and `layers/attention/mla_attention.py`.

use super::VllmPrepared;
use crate::bytes::Bytes;
use crate::engines::shared::layer_kinds::RankLayers;
use crate::engines::{Interval, Split};
use crate::model::architecture::{FeedForward, LatentAttention, Mixer, Recurrent, Task};

impl VllmPrepared<'_> {
    /// The peak beside weights and cache on `rank` of `split`.
    pub(super) fn activations(&self, split: &Split, rank: usize) -> Interval {
        let (architecture, settings, constants) =
            (self.architecture, &self.settings, &self.constants);
        let (stage, range) = split.stage_of(rank);

        let (tensor, es, tokens) = (
            u64::from(split.tensor.max(1)),
            settings.compute.bytes(),
            settings.batched_tokens,
        );

        let held = &self.kinds.held(&range);
        let hidden = architecture.hidden_size;

        let dense = held.iter().filter_map(|layer| match layer.feed_forward {
            FeedForward::Dense { width } => Some(width),
            _ => None,
        });
        let dense = dense.max().unwrap_or(0).div_ceil(tensor);

        let mut forward = Bytes::product([es, tokens])
            * hidden
                .saturating_mul(2)
                .saturating_add(dense.saturating_mul(3));
        if split.stages.len() > 1 && (stage > 0 || !split.is_last_stage(rank)) {
            forward += Bytes::product([es, tokens, hidden]);
        }

        forward += self.latent_expansion(held, tensor) + self.scan(held, tensor);

        let sampled = split.is_last_stage(rank)
            && matches!(architecture.task, Task::Generate | Task::EncodeDecode);
        let logits = Bytes::product([settings.max_sequences.min(tokens), architecture.vocab_size]);
        let rows = |each: Bytes| each + logits * es + Bytes::product([es, tokens, hidden]);
        let (likely, high) = if sampled {
            (
                rows(constants.sampler_bytes_per_logit.of(logits)),
                rows(constants.sampler_bytes_per_logit_high.of(logits)),
            )
        } else {
            (Bytes::ZERO, Bytes::ZERO)
        };

        let experts = self.expert_workspace(held, tensor, split.expert_parallel);
        let base = constants.activation_base_mib;
        let likely = likely.max(forward) + experts.likely + base;

        let high = constants
            .activation_high_ratio
            .of(high.max(forward) + experts.high + base)
            + constants.activation_high_mib;
        let text = Interval::new(constants.activation_low_ratio.of(likely), likely, high);

        if stage == 0 {
            text.plus(self.multimodal(text.likely))
        } else {
            text
        }
    }

    /// Expanded keys and values of the chunked prefill, alive during the profile's forward.
    fn latent_expansion(&self, layers: &RankLayers<'_>, tensor: u64) -> Bytes {
        let latent_layers = layers
            .iter()
            .filter_map(|layer| dense_latent(&layer.mixer))
            .filter(|_| !self.cache_layers().sparse());
        let rows = self.latent_rows();

        let each = latent_layers.map(|latent| {
            let heads = latent.heads.div_ceil(tensor);
            Bytes::product([
                rows,
                heads,
                latent.nope_dim.saturating_add(latent.value_dim),
                self.settings.compute.bytes(),
            ])
        });

        each.max().unwrap_or_default()
    }

    /// Rows of the chunked prefill's workspace: `min(max(8 N, 4 R block), 65,536)`.
    fn latent_rows(&self) -> u64 {
        let settings = &self.settings;

        // For the longest context that may be asked for; from 8192 tokens on it is the same.
        let longest = self
            .architecture
            .max_context
            .unwrap_or(0)
            .max(settings.workload.context);
        let wanted = longest.saturating_mul(8);

        let least = settings
            .max_sequences
            .saturating_mul(4)
            .saturating_mul(self.block_tokens());

        wanted.max(least).min(self.constants.latent_workspace_rows)
    }

    /// Chunk states of a gated delta net's scan: one of 64 tokens each.
    fn scan(&self, layers: &RankLayers<'_>, tensor: u64) -> Bytes {
        let chunks = self.settings.batched_tokens.div_ceil(64);
        let each = layers.iter().filter_map(|layer| match layer.mixer {
            Mixer::Recurrent(Recurrent::GatedDelta {
                value_heads,
                key_dim,
                value_dim,
                ..
            }) => Some(Bytes::product([
                chunks,
                value_heads.div_ceil(tensor),
                key_dim,
                value_dim,
                self.settings.compute.bytes(),
            ])),
            _ => None,
        });

        each.max().unwrap_or_default()
    }

    /// Buffers between the two products of a mixture of experts; one shared by all layers, it
    /// persists.
    fn expert_workspace(
        &self,
        layers: &RankLayers<'_>,
        tensor: u64,
        expert_parallel: bool,
    ) -> Interval {
        let routed = layers
            .iter()
            .any(|layer| layer.feed_forward == FeedForward::Experts);
        let Some(experts) = self.architecture.experts.filter(|_| routed) else {
            return Interval::default();
        };

        let (hidden, width) = (
            self.architecture.hidden_size,
            if expert_parallel {
                experts.width
            } else {
                experts.width.div_ceil(tensor)
            },
        );
        let both = width.saturating_mul(2);

        let rows = Bytes::product([
            self.settings.batched_tokens,
            experts.active,
            self.settings.compute.bytes(),
        ]);
        let likely = rows * width.max(hidden).saturating_add(both.max(hidden));

        // gpt-oss: the kernels that 0.19 logs show keep no such buffer; Marlin's would be this
        // large.
        let fused = self
            .architecture
            .quantization
            .as_ref()
            .is_some_and(|quantization| quantization.method == "mxfp4");

        if fused {
            Interval::new(Bytes::ZERO, Bytes::ZERO, likely)
        } else {
            Interval::exact(likely)
        }
    }

    /// What profiling the largest images adds (`multimodal/encoder_budget.py`).
    fn multimodal(&self, text: Bytes) -> Interval {
        let (settings, constants) = (&self.settings, &self.constants);
        let Some(vision) = self.architecture.vision.filter(|_| settings.towers) else {
            return Interval::default();
        };

        let (low, high) = (constants.multimodal_low_mib, constants.multimodal_high_mib);
        let calibrated = Interval::new(low, (low + high).div_ceil(2), high);

        // Qwen's processors allow 16,384 tokens of four patches each where nobody limits them; the
        // configuration does not say so. An item is never longer than the context.
        let qwen = self.architecture.root_model_type.starts_with("qwen");
        let largest = match (vision.tokens_per_item, vision.patches_per_item) {
            (Some(tokens), Some(patches)) => Some((tokens, patches)),
            _ if qwen => Some(16_384.min(settings.workload.context))
                .map(|tokens| (tokens, tokens.saturating_mul(4))),
            _ => None,
        };

        let Some((tokens, patches)) = largest else {
            return calibrated;
        };

        let items = (settings.batched_tokens / tokens.max(1)).max(1);
        let es = settings.compute.bytes();
        let outputs = Bytes::product([items, tokens, self.architecture.hidden_size, es]);

        let widths = vision
            .hidden_size
            .saturating_mul(4)
            .saturating_add(vision.intermediate_size.saturating_mul(2));
        let tower = Bytes::product([items, patches, es]) * widths + outputs;

        // The tower runs before the text model, with only its outputs kept.
        let beyond = tower.less(text).unwrap_or(Bytes::OVERFLOW);
        Interval::new(
            low,
            calibrated.likely.max(outputs),
            high.max(outputs + low).max(beyond),
        )
    }

    /// What stays allocated for the sampler and the attention backends, whatever the context.
    pub(super) fn persistent(&self, split: &Split, rank: usize) -> Interval {
        let (settings, constants) = (&self.settings, &self.constants);
        let (_, range) = split.stage_of(rank);
        let layers = &self.kinds.held(&range);
        let sequences = settings.max_sequences;
        let mut sum = Interval::default();
        let vocabulary = self.architecture.vocab_size;

        if constants.persistent_sampler_state
            && split.is_last_stage(rank)
            && self.architecture.task == Task::Generate
        {
            // Output-token counts in 32 bits, prompt bitmap, bad-word lists
            // (`v1/worker/gpu/sample/penalties.py`).
            let counts = Bytes::product([sequences, vocabulary, 4])
                + Bytes::product([sequences, vocabulary]).div_ceil(8);
            sum = sum.plus(Interval::new(
                Bytes::ZERO,
                counts + Bytes::product([sequences, 4710]),
                counts + Bytes::product([sequences, 4710]),
            ));
        }

        if let Some(latent) = layers
            .find_map(|layer| dense_latent(&layer.mixer))
            .filter(|_| !self.cache_layers().sparse())
        {
            let width = latent.kv_lora_rank.saturating_add(latent.rope_dim);
            let gather = Bytes::product([self.latent_rows(), width, settings.compute.bytes()]);
            sum = sum.plus(Interval::new(Bytes::ZERO, gather, gather));
        }

        let workspace = constants.flashinfer_workspace_mib;
        match settings.capability {
            Some(100..120) => sum = sum.plus(Interval::new(Bytes::ZERO, workspace, workspace)),
            Some(_) => {}
            None if !settings.huge => {}
            None => sum = sum.plus(Interval::new(Bytes::ZERO, Bytes::ZERO, workspace)),
        }

        if let Some((adapters, lora_rank)) = settings.lora {
            let slots = self.lora_slots(split, rank) * adapters * lora_rank;
            sum = sum.plus(Interval::exact(slots));
        }

        sum
    }

    /// What stays allocated and grows with the context: block tables, and what sparse prefill
    /// gathers.
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
        let tables = Interval::exact(Bytes::product([
            self.settings.max_sequences,
            columns,
            4,
            pages.groups(),
        ]));

        let indexed = layers.find_map(|layer| match &layer.mixer {
            Mixer::Latent(latent) if self.cache_layers().sparse() => Some(latent),
            _ => None,
        });
        let Some(latent) = indexed else { return tables };
        if latent.compress_ratio.is_some() {
            // DeepSeek V4 gathers compressed states; how many at once is not known.
            let gather = Bytes::product([5, context.div_ceil(4), latent_width(layers), 2]);
            return tables.plus(Interval::new(
                Bytes::ZERO,
                Bytes::ZERO,
                gather + Bytes::mib(512),
            ));
        }
        // Latents of five sequences; indexer logits take at most 512 MiB (`mla/flashmla_sparse.py`,
        // `indexer.py`).
        let gather = Bytes::product([5, context, latent_width(layers), 2]);

        tables.plus(Interval::new(Bytes::ZERO, gather, gather + Bytes::mib(512)))
    }
}

fn latent_width(layers: &RankLayers<'_>) -> u64 {
    let widths = layers.iter().filter_map(|layer| match &layer.mixer {
        Mixer::Latent(latent) => Some(latent.kv_lora_rank.saturating_add(latent.rope_dim)),
        _ => None,
    });
    widths.max().unwrap_or(0)
}

/// Latent attention that expands its keys and values for prefill: neither sparse nor compressed.
fn dense_latent(mixer: &Mixer) -> Option<&LatentAttention> {
    match mixer {
        Mixer::Latent(latent) if latent.indexer.is_none() && latent.compress_ratio.is_none() => {
            Some(latent)
        }
        _ => None,
    }
}
