//! The transient peak of vLLM's profile run.
//!
//! Its formula is `max(sampler, forward + latent expansion) + expert workspace + base`. It is
//! derived from `v1/sample`, `layers/fused_moe/experts/*` (`workspace_shapes`) and
//! `layers/attention/mla_attention.py`, and fitted on 60 start-up logs of 0.17-0.19 on H100.

use super::VllmPrepared;
use crate::bytes::Bytes;
use crate::engines::profile::Ratio;
use crate::engines::shared::layer_kinds::RankLayers;
use crate::engines::{Interval, Split};
use crate::model::architecture::{FeedForward, LatentAttention, Mixer, Recurrent, Task};

/// Tokens of one chunk of a gated delta net's scan.
const DELTA_CHUNK_TOKENS: u64 = 64;

/// Tokens of the largest item that Qwen's processors allow without a limit.
const QWEN_ITEM_TOKENS: u64 = 16_384;

impl VllmPrepared<'_> {
    /// The peak on `rank` of `split`, in addition to weights and cache.
    pub(super) fn activations(&self, split: &Split, rank: usize) -> Interval {
        let constants = &self.constants;
        let (stage, range) = split.stage_of(rank);
        let tensor = u64::from(split.tensor.max(1));
        let held = &self.kinds.held(&range);

        let forward = self.forward(split, rank)
            + self.latent_expansion(held, tensor)
            + self.delta_scan(held, tensor);
        let (sampler, sampler_high) = if self.samples(split, rank) {
            (
                self.sampler(constants.sampler_bytes_per_logit, 1),
                self.sampler(
                    constants.sampler_bytes_per_logit_high,
                    self.settings.speculative_tokens().saturating_add(1),
                ),
            )
        } else {
            (Bytes::ZERO, Bytes::ZERO)
        };

        let experts = self.expert_workspace(held, tensor, split.expert_parallel);
        let base = constants.activation_base_mib;
        let likely = sampler.max(forward) + experts.likely + base;

        let high = constants
            .activation_high_ratio
            .of(sampler_high.max(forward) + experts.high + base)
            + constants.activation_high_mib
            + self.workspace_outside_law();
        let text = Interval::new(constants.activation_low_ratio.of(likely), likely, high);

        if stage == 0 {
            text.plus(self.multimodal(text.likely))
        } else {
            text
        }
    }

    /// The most that backends of other cards than those of the law hold in addition.
    ///
    /// The law is fitted to Hopper, where FlashAttention runs. On cards before it and on consumer
    /// cards of Blackwell, FlashInfer may run instead, with its workspace
    /// (`v1/attention/backends/flashinfer.py`). On SM10x,
    /// [`VllmPrepared::flashinfer_workspace`] counts it.
    fn workspace_outside_law(&self) -> Bytes {
        match self.settings.capability {
            Some(90..120) => Bytes::ZERO,
            _ => self.constants.activation_other_cards_mib,
        }
    }

    /// Hidden states and the widest feed-forward intermediate of one step on `rank`.
    fn forward(&self, split: &Split, rank: usize) -> Bytes {
        let (stage, range) = split.stage_of(rank);
        let hidden = self.architecture.hidden_size;
        let (element, tokens) = (self.settings.compute.bytes(), self.settings.batched_tokens);

        let held = self.kinds.held(&range);
        let dense = held.iter().filter_map(|layer| match layer.feed_forward {
            FeedForward::Dense { width } => Some(width),
            _ => None,
        });
        let dense = dense
            .max()
            .unwrap_or(0)
            .div_ceil(u64::from(split.tensor.max(1)));

        let mut forward = Bytes::product([element, tokens])
            * hidden
                .saturating_mul(2)
                .saturating_add(dense.saturating_mul(3));
        if split.stages.len() > 1 && (stage > 0 || !split.is_last_stage(rank)) {
            forward += Bytes::product([element, tokens, hidden]);
        }

        forward
    }

    /// Whether `rank` samples tokens.
    fn samples(&self, split: &Split, rank: usize) -> bool {
        split.is_last_stage(rank)
            && matches!(self.settings.task, Task::Generate | Task::EncodeDecode)
    }

    /// Logits and the sampler's copies of them, and the hidden states they come from.
    ///
    /// A step that checks proposed tokens can have `rows` rows of logits for each sequence.
    fn sampler(&self, bytes_per_logit: Ratio, rows: u64) -> Bytes {
        let settings = &self.settings;
        let (element, tokens) = (settings.compute.bytes(), settings.batched_tokens);
        let logits = Bytes::product([
            settings.max_sequences.saturating_mul(rows).min(tokens),
            self.architecture.vocab_size,
        ]);

        bytes_per_logit.of(logits)
            + logits * element
            + Bytes::product([element, tokens, self.architecture.hidden_size])
    }

    /// Expanded keys and values of the chunked prefill, which are alive during the profile run.
    fn latent_expansion(&self, layers: &RankLayers<'_>, tensor: u64) -> Bytes {
        let latent_layers = layers
            .iter()
            .filter_map(|layer| dense_latent(&layer.mixer))
            .filter(|_| !self.cache_layers().sparse());
        let rows = self.latent_rows();

        latent_layers
            .map(|latent| {
                Bytes::product([
                    rows,
                    latent.heads.div_ceil(tensor),
                    latent.nope_dim.saturating_add(latent.value_dim),
                    self.settings.compute.bytes(),
                ])
            })
            .max()
            .unwrap_or_default()
    }

    /// Rows of the chunked prefill's workspace: `min(max(8 N, 4 R block), 65,536)`.
    ///
    /// The context N is the longest that a request may have; from 8192 tokens on, the result is the
    /// same.
    pub(super) fn latent_rows(&self) -> u64 {
        let settings = &self.settings;
        let max_context = self
            .architecture
            .max_context
            .unwrap_or(0)
            .max(settings.workload.context);
        let by_context = max_context.saturating_mul(8);

        let by_sequences = settings
            .max_sequences
            .saturating_mul(4)
            .saturating_mul(self.block_tokens());

        by_context
            .max(by_sequences)
            .min(self.constants.latent_workspace_rows)
    }

    /// Chunk states of a gated delta net's scan, one for each 64 tokens.
    fn delta_scan(&self, layers: &RankLayers<'_>, tensor: u64) -> Bytes {
        let chunks = self.settings.batched_tokens.div_ceil(DELTA_CHUNK_TOKENS);
        let states = layers.iter().filter_map(|layer| match layer.mixer {
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

        states.max().unwrap_or_default()
    }

    /// Buffers between the two products of a mixture of experts, which all layers share and vLLM
    /// keeps.
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

        let hidden = self.architecture.hidden_size;
        let width = if expert_parallel {
            experts.width
        } else {
            experts.width.div_ceil(tensor)
        };
        let gate_and_up = width.saturating_mul(2);

        let rows = Bytes::product([
            self.settings.batched_tokens,
            experts.active,
            self.settings.compute.bytes(),
        ]);
        let likely = rows * width.max(hidden).saturating_add(gate_and_up.max(hidden));

        // Logs of gpt-oss on 0.19 show kernels without a buffer between the experts' products. With
        // Marlin's kernels it would be `likely` bytes.
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

    /// The bytes that profiling the largest images adds (`multimodal/encoder_budget.py`).
    fn multimodal(&self, text: Bytes) -> Interval {
        let (settings, constants) = (&self.settings, &self.constants);
        let Some(vision) = self.architecture.vision.filter(|_| settings.towers) else {
            return Interval::default();
        };

        let (low, high) = (constants.multimodal_low_mib, constants.multimodal_high_mib);
        let calibrated = Interval::new(low, (low + high).div_ceil(2), high);

        // Without a limit, Qwen's processors allow 16,384 tokens of four patches each, which the
        // configuration does not state. An item is never longer than the context.
        let qwen = self.architecture.root_model_type.starts_with("qwen");
        let largest = match (vision.tokens_per_item, vision.patches_per_item) {
            (Some(tokens), Some(patches)) => Some((tokens, patches)),
            _ if qwen => {
                let tokens = QWEN_ITEM_TOKENS.min(settings.workload.context);
                Some((tokens, tokens.saturating_mul(4)))
            }
            _ => None,
        };

        let Some((tokens, patches)) = largest else {
            return calibrated;
        };

        let items = (settings.batched_tokens / tokens.max(1)).max(1);
        let element = settings.compute.bytes();
        let outputs = Bytes::product([items, tokens, self.architecture.hidden_size, element]);

        let widths = vision
            .hidden_size
            .saturating_mul(4)
            .saturating_add(vision.intermediate_size.saturating_mul(2));
        let tower = Bytes::product([items, patches, element]) * widths + outputs;

        // The tower runs before the text model, which then holds the tower's outputs alone.
        let beyond = tower.less(text).unwrap_or(Bytes::OVERFLOW);
        Interval::new(
            low,
            calibrated.likely.max(outputs),
            high.max(outputs + low).max(beyond),
        )
    }
}

/// The latent attention that expands its keys and values for prefill, neither sparse nor
/// compressed.
pub(super) fn dense_latent(mixer: &Mixer) -> Option<&LatentAttention> {
    match mixer {
        Mixer::Latent(latent) if latent.indexer.is_none() && latent.compress_ratio.is_none() => {
            Some(latent)
        }
        _ => None,
    }
}
