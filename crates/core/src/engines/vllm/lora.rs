//! LoRA slots: vLLM allocates them for every wrapped linear layer, whatever the adapter.
//!
//! Source: vLLM `lora/layers/base_linear.py`, `create_lora_weights`.

use super::VllmPrepared;
use crate::bytes::Bytes;
use crate::engines::Split;
use crate::engines::shared::tensor_parallel::{Rule, ShardPlace, classify};

impl VllmPrepared<'_> {
    /// Bytes of the slots of `rank` for one adapter of rank 1.
    pub(super) fn lora_slots(&self, split: &Split, rank: usize) -> Bytes {
        let (_, range) = split.stage_of(rank);
        let tensor = u64::from(split.tensor.max(1));
        let es = self.settings.compute.bytes();

        let experts = self
            .architecture
            .experts
            .map_or(1, |experts| experts.count.max(1));
        let slot = |class: &crate::model::TensorClass| {
            let row = classify(class);

            // Weights only, whatever they are packed in; the packing shortens one side, so scales
            // give no better figure.
            let weight = [
                "weight",
                "qweight",
                "weight_packed",
                "gate_up_proj",
                "down_proj",
            ];
            let named = weight.iter().any(|end| class.pattern.ends_with(end));
            if row.place != ShardPlace::Layers || !named || class.shape.len() < 2 {
                return Bytes::ZERO;
            }

            let [.., out, input] = *class.shape else {
                return Bytes::ZERO;
            };

            let (whole, divided) = match row.rule {
                Rule::Column | Rule::FusedQkv | Rule::KeyValue | Rule::MambaMixed => (input, out),
                Rule::Row => (out, input),
                Rule::Replicated | Rule::Vocabulary => return Bytes::ZERO,
            };

            let fused = if class.shape.len() > 2 { experts } else { 1 };
            Bytes::new(whole.saturating_add(divided.div_ceil(tensor)))
                * es
                * fused
                * class.count_in(&range)
        };

        self.model.inventory.classes.iter().map(slot).sum()
    }
}
