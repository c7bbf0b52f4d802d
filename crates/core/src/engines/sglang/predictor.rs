//! The model's own next-token predictor as its draft (`NEXTN`).
//!
//! SGLang loads it as a second model from the same files before it sizes the pools, with an
//! embedding and an output head that it gives up for the model's afterwards
//! (`models/deepseek_nextn.py`, `speculative/eagle_worker_v2.py`).

use super::SglangPrepared;
use super::speculation::DraftAlgorithm;
use crate::bytes::Bytes;
use crate::engines::{Interval, Split};

impl SglangPrepared<'_> {
    /// Whether the model's own predictor proposes tokens.
    pub(super) fn predicts(&self) -> bool {
        self.settings
            .speculation
            .is_some_and(|speculation| speculation.algorithm == DraftAlgorithm::OwnLayers)
    }

    /// The predictor's weights on `rank` when the pools are sized.
    pub(super) fn predictor_weights(&self, split: &Split, rank: usize) -> Option<Interval> {
        if !self.predicts() {
            return None;
        }

        let with = self.table(split, None, true).bytes(split, rank);
        let without = self.table(split, None, false).bytes(split, rank);
        let stored = with.less(without).unwrap_or(Bytes::OVERFLOW);

        let stored_vocabulary = self.stored_vocabulary(split);
        let element = self.settings.compute.bytes();
        let table = Bytes::product([
            self.architecture.vocab_size,
            self.architecture.hidden_size,
            element,
        ]);
        let allocated = (table * 2).div_ceil(u64::from(split.tensor.max(1)));
        let body = stored.less(stored_vocabulary).unwrap_or_default();
        let likely = body + allocated.max(stored_vocabulary);

        Some(Interval::new(
            body.scale(985, 1000),
            likely,
            likely.scale(1015, 1000) + Bytes::mib(128),
        ))
    }

    /// Bytes of the predictor's embedding and output head, as its files hold them.
    fn stored_vocabulary(&self, split: &Split) -> Bytes {
        let layers = self.architecture.layer_count();
        let predictor = layers..layers.saturating_add(self.architecture.mtp_layers);
        let element = self.settings.compute.bytes();

        self.model
            .inventory
            .classes
            .iter()
            .filter(|class| {
                class.pattern.ends_with(".embed_tokens.weight")
                    || class.pattern.ends_with(".shared_head.head.weight")
            })
            .map(|class| {
                let each = Bytes::product([class.elements_each(), element]);
                each.div_ceil(u64::from(split.tensor.max(1))) * class.count_in(&predictor)
            })
            .sum()
    }

    /// Bytes of one token slot in the predictor's layers, which are like the model's: as they take,
    /// and as the model's pool sets apart.
    pub(super) fn predictor_slot(&self, split: &Split) -> Option<(Bytes, Bytes)> {
        if !self.predicts() {
            return None;
        }

        let layers = u64::from(self.architecture.layer_count().max(1));
        let predictor = u64::from(self.architecture.mtp_layers);
        let slot = self.slot(split, 0).scale(predictor, layers);

        Some((slot, slot))
    }
}
