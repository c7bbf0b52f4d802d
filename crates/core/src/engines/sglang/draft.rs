//! The draft that SGLang loads along with a model: its weights, its pool, its step.
//!
//! SGLang loads both models before it sizes the pools. The model's pool sets bytes apart for each
//! of the draft's layers as for one of its own, whatever they take (`pool_configurator.py`), and
//! the draft's pool has as many token slots. An EAGLE head takes the model's embedding and output
//! head only after that (`speculative/eagle_worker_v2.py`, `alloc_memory_pool`).

use super::speculation::{DraftAlgorithm, SglangSpeculation};
use super::{SglangPrepared, unsupported, vocabulary_step};
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::engines::shared::cache::CacheKind;
use crate::engines::shared::split_rules::{check_tensor_parallel, illegal};
use crate::engines::{EngineError, IllegalSplit, Interval, Split};
use crate::model::Model;
use crate::model::architecture::Span;
use crate::model::tensors::TensorClass;

/// Classes of EAGLE heads whose loading is known (`models/llama_eagle.py`,
/// `models/llama_eagle3.py`).
const EAGLE_CLASSES: &[&str] = &[
    "LlamaForCausalLMEagle3",
    "LlamaForCausalLMEagle",
    "LlamaForCausalLM",
];

/// A draft that is prepared for the settings of its model.
#[derive(Debug)]
pub(super) struct SglangDraft<'a> {
    prepared: Box<SglangPrepared<'a>>,
    speculation: SglangSpeculation,
}

impl<'a> SglangDraft<'a> {
    /// Checks that `prepared` can be the draft of `model`, and joins them.
    pub(super) fn new(
        prepared: SglangPrepared<'a>,
        model: &SglangPrepared<'_>,
        speculation: SglangSpeculation,
    ) -> Result<Self, EngineError> {
        let (own, target) = (prepared.architecture, model.architecture);
        let repo = &prepared.model.identity.repo;
        let refused = |why: String| Err(unsupported(format!("the draft {repo} {why}")));

        if speculation.algorithm == DraftAlgorithm::Standalone {
            if own.vocab_size != target.vocab_size {
                return refused(format!(
                    "has {} tokens in its vocabulary and the model {}",
                    own.vocab_size, target.vocab_size
                ));
            }
        } else if !EAGLE_CLASSES.contains(&own.class.as_str()) {
            return refused(format!(
                "is a {}, whose loading as EAGLE is unknown",
                own.class
            ));
        } else if own.quantization.is_some() {
            return refused("is a quantized EAGLE head, which is not counted".to_owned());
        }

        let keeps_all = |kind: &CacheKind| match kind {
            CacheKind::Heads(attention) => attention.span == Span::Full,
            CacheKind::Latent(_) | CacheKind::State(_) => false,
        };
        let both = [&model.layers, &prepared.layers];
        if !both
            .iter()
            .all(|layers| layers.kinds().iter().all(keeps_all))
        {
            return refused(
                "has a pool that joins windows, latents or states; drafts are counted for models \
                 whose layers all keep keys and values of every token"
                    .to_owned(),
            );
        }

        Ok(Self {
            prepared: Box::new(prepared),
            speculation,
        })
    }

    /// The draft's model.
    pub(super) fn model(&self) -> &'a Model {
        self.prepared.model
    }

    /// How it is used.
    pub(super) fn speculation(&self) -> SglangSpeculation {
        self.speculation
    }

    /// Checks that the draft can be divided like its model.
    pub(super) fn check_split(&self, split: &Split) -> Result<(), IllegalSplit> {
        if split.stages.len() > 1 {
            return illegal("a draft is counted on one pipeline stage only");
        }

        let (own, tensor) = (self.prepared.architecture, u64::from(split.tensor));
        check_tensor_parallel(own, tensor, false, vocabulary_step(own.vocab_size, tensor))
    }

    fn split(&self, split: &Split) -> Split {
        Split {
            tensor: split.tensor,
            ..Split::single(self.prepared.architecture.layer_count())
        }
    }

    /// The draft's weights on each rank when the pools are sized.
    pub(super) fn weights(&self, split: &Split) -> Interval {
        if self.speculation.algorithm == DraftAlgorithm::Standalone {
            return self.prepared.weights(&self.split(split), 0);
        }

        self.head_weights(u64::from(split.tensor.max(1)))
    }

    /// The weights of an EAGLE head, with the embedding and the output head that it allocates.
    fn head_weights(&self, tensor: u64) -> Interval {
        let (mut own, mut divided, mut vocabulary) = (Bytes::ZERO, Bytes::ZERO, Bytes::ZERO);
        let (mut has_embedding, mut has_head) = (false, false);
        let element = self.prepared.settings.compute.bytes();
        let cast = |class: &TensorClass| {
            let bytes = Bytes::product([class.elements_each(), element]) * class.count;
            bytes.max(class.bytes())
        };

        for class in &self.model().inventory.classes {
            let (bytes, pattern) = (cast(class), &*class.pattern);
            has_embedding |= pattern.contains("embed_tokens");
            has_head |= pattern.contains("lm_head");

            if pattern.contains("embed_tokens") || pattern.contains("lm_head") {
                vocabulary += bytes.div_ceil(tensor);
            } else if pattern.contains("_proj") {
                own += bytes;
                divided += bytes.div_ceil(tensor);
            } else {
                own += bytes;
                divided += bytes;
            }
        }

        let own_architecture = self.prepared.architecture;
        let table = Bytes::product([
            own_architecture.vocab_size,
            own_architecture.hidden_size,
            element,
        ])
        .div_ceil(tensor);
        let absent = u64::from(!has_embedding) + u64::from(!has_head);
        let all = vocabulary + table * absent;

        Interval::new(own.div_ceil(tensor), divided + all, own + all)
    }

    /// Bytes of one token slot: as the draft's layers take, and as the model's pool sets apart.
    pub(super) fn slot(&self, model: &SglangPrepared<'_>, split: &Split) -> (Bytes, Bytes) {
        let taken = self.prepared.slot(&self.split(split), 0);
        let layers = u64::from(model.architecture.layer_count().max(1));
        let own = u64::from(self.prepared.architecture.layer_count());
        let set_apart = model.slot(split, 0).scale(own, layers);

        (taken, set_apart)
    }

    /// The most that a step of the draft and its graphs take.
    ///
    /// EAGLE also keeps hidden states of the model for a step: of three layers for EAGLE-3, and the
    /// head's input of them.
    pub(super) fn transient(&self, split: &Split, device: &DeviceFacts) -> Bytes {
        let prepared = &self.prepared;
        let step = prepared.transient(&self.split(split), device);
        if self.speculation.algorithm == DraftAlgorithm::Standalone {
            return step;
        }

        let states = prepared.settings.chunk.saturating_mul(4);
        let width = prepared.architecture.hidden_size;
        step + Bytes::product([states, width, prepared.settings.compute.bytes()])
    }
}
