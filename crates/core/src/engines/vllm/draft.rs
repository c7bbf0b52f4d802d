//! The draft that vLLM loads along with a model: its weights, its layers of the cache, its buffers.
//!
//! A draft runs on the tensor ranks of its model. Its layers join the model's cache: layers of
//! equal pages share a group, and a block of layers that keep every token is as wide as all of
//! them.
//!
//! Sources: vLLM 0.33 `v1/worker/gpu/spec_decode/*` (`load_eagle_model`,
//! `StandaloneARSpeculator`, `TargetDependentARSpeculator`) and `v1/core/kv_cache_planning.py`.

use super::VllmPrepared;
use super::refusal::unsupported;
use super::speculation::{SpeculationMethod, VllmSpeculation};
use super::weights::VOCABULARY_STEP;
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::engines::shared::cache::{CacheKind, CacheLayers};
use crate::engines::shared::split_rules::{check_tensor_parallel, illegal};
use crate::engines::{EngineError, IllegalSplit, Interval, Split};
use crate::model::architecture::{Attention, Span};
use crate::model::tensors::TensorClass;
use crate::model::{Dtype, Model};

/// Classes of EAGLE heads whose loading is known (`models/llama_eagle.py`,
/// `models/llama_eagle3.py`).
const EAGLE_CLASSES: &[&str] = &[
    "LlamaForCausalLMEagle3",
    "Eagle3LlamaForCausalLM",
    "EagleLlamaForCausalLM",
    "EagleLlamaModel",
];

/// The class that early EAGLE heads name.
const EARLY_EAGLE_CLASS: &str = "LlamaForCausalLM";

/// A draft that is prepared for the settings of its model.
#[derive(Debug)]
pub(super) struct VllmDraft<'a> {
    /// The draft on its own.
    prepared: Box<VllmPrepared<'a>>,
    method: SpeculationMethod,
    /// Rows of the model's vocabulary.
    model_vocabulary: u64,
    /// Tokens of the model's context.
    context: u64,
    /// Width of the model's residual stream.
    model_width: u64,
}

impl<'a> VllmDraft<'a> {
    /// Checks that `prepared` can be the draft of `model`, and joins them.
    pub(super) fn new(
        prepared: VllmPrepared<'a>,
        model: &VllmPrepared<'_>,
        speculation: VllmSpeculation,
    ) -> Result<Self, EngineError> {
        let draft = Self {
            prepared: Box::new(prepared),
            method: speculation.method,
            model_vocabulary: model.architecture.vocab_size,
            context: model.settings.workload.context,
            model_width: model.architecture.hidden_size,
        };
        draft.check_class()?;

        let own = draft.prepared.architecture;
        if draft.method == SpeculationMethod::DraftModel
            && own.vocab_size != model.architecture.vocab_size
        {
            return Err(draft.refused(&format!(
                "has {} tokens in its vocabulary and the model {}; vLLM needs equal ones",
                own.vocab_size, model.architecture.vocab_size
            )));
        }

        let context = draft.context;
        match own.max_context {
            Some(limit) if draft.method == SpeculationMethod::DraftModel && limit < context => {
                return Err(draft.refused(&format!(
                    "reads {limit} tokens, and vLLM shortens the context to that: ask for \
                     --context {limit}"
                )));
            }
            _ => {}
        }

        if model.settings.context_parallel > 1 {
            return Err(draft.refused(
                "runs with decode_context_parallel_size, under which its cache is not counted",
            ));
        }

        if !form_known_groups(&[&model.layers, &draft.prepared.layers]) {
            return Err(draft.refused(
                "has layers whose cache does not join the model's in a way that is verified: \
                 latents, states, or windows and layers of other heads",
            ));
        }

        Ok(draft)
    }

    fn check_class(&self) -> Result<(), EngineError> {
        let architecture = self.prepared.architecture;
        let class = architecture.class.as_str();
        if !self.method.is_eagle() {
            return Ok(());
        }

        let is_known = EAGLE_CLASSES.contains(&class)
            || (self.method == SpeculationMethod::Eagle && class == EARLY_EAGLE_CLASS);
        if !is_known {
            return Err(self.refused(&format!("is a {class}, whose loading as EAGLE is unknown")));
        }

        if architecture.quantization.is_some() {
            return Err(self.refused("is a quantized EAGLE head, which is not counted"));
        }

        Ok(())
    }

    fn refused(&self, why: &str) -> EngineError {
        unsupported(format!("the draft {} {why}", self.model().identity.repo))
    }

    /// The draft's model.
    pub(super) fn model(&self) -> &'a Model {
        self.prepared.model
    }

    /// The draft alone, as an engine would run it.
    pub(super) fn prepared(&self) -> &VllmPrepared<'a> {
        &self.prepared
    }

    /// The number of the draft's layers.
    pub(super) fn layer_count(&self) -> u32 {
        self.prepared.architecture.layer_count()
    }

    /// Checks that the draft can be divided like its model.
    pub(super) fn check_split(&self, split: &Split) -> Result<(), IllegalSplit> {
        if split.stages.len() > 1 {
            return illegal("a draft is counted on one pipeline stage only");
        }

        check_tensor_parallel(
            self.prepared.architecture,
            u64::from(split.tensor),
            false,
            VOCABULARY_STEP,
        )
    }

    /// `split` for the draft's own layers.
    fn split(&self, split: &Split) -> Split {
        Split {
            tensor: split.tensor,
            ..Split::single(self.layer_count())
        }
    }

    /// The draft's weights on each rank.
    pub(super) fn weights(&self, split: &Split) -> Interval {
        if self.method.is_eagle() {
            return self.head_weights(u64::from(split.tensor.max(1)));
        }

        self.prepared.weights(&self.split(split), 0)
    }

    /// The weights of an EAGLE head.
    ///
    /// It takes the model's embedding and output head, unless the checkpoint holds others. Whether
    /// they differ is known only if their shapes do (`_should_share`).
    fn head_weights(&self, tensor: u64) -> Interval {
        let (mut low, mut likely, mut high) = (Bytes::ZERO, Bytes::ZERO, Bytes::ZERO);

        for class in &self.model().inventory.classes {
            let bytes = self.loaded_bytes(class);
            let pattern = &*class.pattern;
            // The mapping from the model's tokens to the draft's is not loaded.
            if pattern.contains("t2d") {
                continue;
            }

            let is_vocabulary = pattern.contains("embed_tokens") || pattern.contains("lm_head");
            let is_as_wide = class.shape.first() == Some(&self.model_vocabulary);
            if is_vocabulary && is_as_wide {
                high += bytes;
                continue;
            }

            // Only projections are divided; the rest is whole on every rank.
            let divided = if is_vocabulary || pattern.contains("_proj") {
                bytes.div_ceil(tensor)
            } else {
                bytes
            };
            low += bytes.div_ceil(tensor);
            likely += divided;
            high += bytes;
        }

        let table = self.rotary_table();
        Interval::new(low, likely + table, high + table)
    }

    fn loaded_bytes(&self, class: &TensorClass) -> Bytes {
        let is_cast = matches!(
            class.dtype(),
            Some(Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64)
        );
        if is_cast {
            let element = self.prepared.settings.compute.bytes();
            Bytes::product([class.elements_each(), element]) * class.count
        } else {
            class.bytes()
        }
    }

    /// The head's table of rotary embeddings, which is as long as the context.
    fn rotary_table(&self) -> Bytes {
        let prepared = &self.prepared;
        let rows = prepared
            .architecture
            .max_context
            .unwrap_or(0)
            .max(self.context);
        let width = prepared
            .layers
            .kinds()
            .iter()
            .filter_map(|kind| match kind {
                CacheKind::Heads(attention) => Some(attention.key_dim),
                _ => None,
            });

        Bytes::product([
            rows,
            width.max().unwrap_or(0),
            prepared.settings.compute.bytes(),
        ])
    }

    /// The peak of the draft's own run, which begins when the model's has ended.
    pub(super) fn activations(&self, split: &Split) -> Interval {
        self.prepared.activations(&self.split(split), 0)
    }

    /// The model's hidden states of three layers, which an EAGLE-3 head reads: whole on every rank.
    ///
    /// The model keeps them until its pass ends, and the draft joins them to one tensor. Source:
    /// vLLM 0.33 `model_executor/models/interfaces.py` (`EagleModelMixin`),
    /// `v1/worker/gpu/spec_decode` (`propose`).
    pub(super) fn auxiliary_states(&self) -> Interval {
        if self.method != SpeculationMethod::Eagle3 {
            return Interval::default();
        }

        let settings = &self.prepared.settings;
        let states = Bytes::product([
            settings.batched_tokens,
            self.model_width,
            settings.compute.bytes(),
            3,
        ]);
        Interval::new(Bytes::ZERO, states, states * 2)
    }

    /// The draft's graphs. vLLM captures none for a whole model.
    pub(super) fn graphs(&self, split: &Split, device: &DeviceFacts) -> Interval {
        if self.method.is_eagle() {
            return self.prepared.graphs(&self.split(split), 0, device);
        }

        Interval::default()
    }

    /// Buffers that stay allocated: the inputs of a step, and for EAGLE the hidden states.
    ///
    /// The likely bytes are the tensors that the draft's runner allocates at its start; the high
    /// end is twice that, because block tables and slots are not summed one by one.
    pub(super) fn buffers(&self) -> Interval {
        let settings = &self.prepared.settings;
        let (tokens, sequences) = (settings.batched_tokens, settings.max_sequences);

        // Token, position and slot of each, in up to 8 bytes; the draft model's expanded copies.
        let inputs = Bytes::product([tokens.saturating_add(sequences), 6, 8]);
        let hidden = if self.method.is_eagle() {
            let width = self.prepared.architecture.hidden_size;
            Bytes::product([tokens, width, settings.compute.bytes()])
        } else {
            Bytes::ZERO
        };

        let likely = inputs + hidden;
        Interval::new(hidden, likely, likely * 2)
    }
}

/// Whether the groups of all `layers` together are verified: layers that keep every token, whatever
/// their heads, or windows too if all pages are equal.
fn form_known_groups(layers: &[&CacheLayers; 2]) -> bool {
    let mut attention = Vec::new();
    for kind in layers.iter().flat_map(|layers| layers.kinds()) {
        match kind {
            CacheKind::Heads(heads) => attention.push(heads),
            CacheKind::Latent(_) | CacheKind::State(_) => return false,
        }
    }

    let keeps_all = attention.iter().all(|heads| heads.span == Span::Full);
    let has_equal_pages = attention.windows(2).all(|pair| {
        let page = |heads: &Attention| (heads.kv_heads, heads.key_dim, heads.value_dim);
        page(pair[0]) == page(pair[1])
    });
    let keeps_windows = attention
        .iter()
        .all(|heads| matches!(heads.span, Span::Full | Span::Sliding { .. }));

    keeps_all || (has_equal_pages && keeps_windows)
}
