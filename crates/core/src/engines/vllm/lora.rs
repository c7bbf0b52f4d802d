//! LoRA slots, which vLLM allocates for every linear layer it wraps, whatever the adapter.
//!
//! Source: vLLM `lora/layers/base_linear.py`, `create_lora_weights`.

use std::ops::Range;

use super::VllmPrepared;
use crate::bytes::Bytes;
use crate::engines::Split;
use crate::engines::shared::tensor_parallel::{Rule, ShardPlace, classify};
use crate::model::TensorClass;

/// Name endings of weights, whatever packs them; scales are no better, as packing shortens a side.
const WEIGHT_NAMES: [&str; 5] = [
    "weight",
    "qweight",
    "weight_packed",
    "gate_up_proj",
    "down_proj",
];

impl VllmPrepared<'_> {
    /// Bytes of the slots on `rank` for one adapter of rank 1.
    pub(super) fn lora_slots(&self, split: &Split, rank: usize) -> Bytes {
        let (_, layers) = split.stage_of(rank);
        let tensor = u64::from(split.tensor.max(1));

        self.model
            .inventory
            .classes
            .iter()
            .map(|class| self.class_slots(class, &layers, tensor))
            .sum()
    }

    /// Bytes of the slots for the tensors of one class in `layers`.
    fn class_slots(&self, class: &TensorClass, layers: &Range<u32>, tensor: u64) -> Bytes {
        let row = classify(class);
        let is_weight = WEIGHT_NAMES
            .iter()
            .any(|name| class.pattern.ends_with(name));
        let [.., out, input] = *class.shape else {
            return Bytes::ZERO;
        };

        if row.place != ShardPlace::Layers || !is_weight {
            return Bytes::ZERO;
        }

        let (whole, divided) = match row.rule {
            Rule::Column | Rule::FusedQkv | Rule::KeyValue | Rule::MambaMixed => (input, out),
            Rule::Row => (out, input),
            Rule::Replicated | Rule::Vocabulary => return Bytes::ZERO,
        };

        // A tensor of three dimensions holds all experts of a layer.
        let experts = if class.shape.len() > 2 {
            self.architecture
                .experts
                .map_or(1, |experts| experts.count.max(1))
        } else {
            1
        };

        Bytes::new(whole.saturating_add(divided.div_ceil(tensor)))
            * self.settings.compute.bytes()
            * experts
            * class.count_in(layers)
    }
}
