//! Weights on one rank: sharded, cast, padded by kernels, and less what stays on the host.

use std::sync::{Arc, PoisonError};

use super::{VllmPrepared, pooling};
use crate::bytes::Bytes;
use crate::engines::shared::device_support::is_fp4;
use crate::engines::shared::dtype::ComputeDtype;
use crate::engines::shared::shard_size::{ExpertPadding, ShardContext};
use crate::engines::shared::tensor_parallel::is_predictor_vocabulary;
use crate::engines::shared::weights::{Omitted, WeightTable};
use crate::engines::{Interval, Split};
use crate::model::{Dtype, Format};

/// vLLM pads the vocabulary to a multiple of this many rows.
pub(super) const VOCABULARY_STEP: u64 = 64;

impl VllmPrepared<'_> {
    /// Weights on `rank`, without what `cpu_offload_gb` keeps on the host.
    pub(super) fn weights(&self, split: &Split, rank: usize) -> Interval {
        let table = self.weight_table(split);
        let mut whole = self.weights_interval(self.with_heads(table.bytes(split, rank)));

        // MLA's projections are views of unquantized weights and copies of others; a start-up log
        // of unquantized weights holds copies all the same.
        let absorbed = table.absorbed(split, rank);
        whole.low = whole.low.less(absorbed).unwrap_or(Bytes::OVERFLOW);

        let (shared, certain) = self.shared_by_predictor(split, rank);
        if shared > Bytes::ZERO {
            let less = |bytes: Bytes| bytes.less(shared).unwrap_or(Bytes::OVERFLOW);
            whole.low = less(whole.low);
            if certain {
                whole = Interval::new(whole.low, less(whole.likely), less(whole.high));
            }
        }

        // Only decoder layers can stay on the host: embeddings and the head cannot
        // (`maybe_offload_to_cpu`).
        let offloaded =
            Bytes::new(self.settings.cpu_offload_bytes).min(table.of_layers(split, rank));
        if offloaded == Bytes::ZERO {
            return whole;
        }

        let [low, likely, high] = [whole.low, whole.likely, whole.high]
            .map(|bytes| bytes.less(offloaded).unwrap_or(Bytes::OVERFLOW));
        Interval::new(low, likely, high)
    }

    /// `tensors` with the heads of a model that pools.
    fn with_heads(&self, tensors: Bytes) -> Bytes {
        let (settings, class) = (&self.settings, &self.architecture.class);
        let heads = pooling::heads(self.model, class, settings.task, settings.compute.bytes());

        (tensors + heads.more)
            .less(heads.less)
            .unwrap_or(Bytes::OVERFLOW)
    }

    /// Stored bytes of a predictor's own embedding and output head on `rank`, and whether the
    /// predictor certainly takes the model's instead.
    fn shared_by_predictor(&self, split: &Split, rank: usize) -> (Bytes, bool) {
        let certain = match self.settings.speculation {
            Some(speculation) if self.drafts() > 0 => speculation.shares_vocabulary,
            _ => return (Bytes::ZERO, false),
        };
        if !split.is_last_stage(rank) {
            return (Bytes::ZERO, false);
        }

        let layers = self.architecture.layer_count();
        let predictor = layers..layers.saturating_add(self.drafts());
        let shared = self
            .model
            .inventory
            .classes
            .iter()
            .filter(|class| is_predictor_vocabulary(&class.pattern))
            .map(|class| {
                let rows = class.shape.first().copied().unwrap_or(0);
                let padded = rows
                    .div_ceil(VOCABULARY_STEP)
                    .saturating_mul(VOCABULARY_STEP);
                let width = class.elements_each() / rows.max(1);
                let own = padded.div_ceil(u64::from(split.tensor.max(1)));
                Bytes::product([own, width, self.settings.compute.bytes()])
                    * class.count_in(&predictor)
            })
            .sum();

        (shared, certain)
    }

    /// The interval around `likely`: tensors and tables are exact, but FP4 layouts and towers
    /// depend on the installed kernels.
    fn weights_interval(&self, likely: Bytes) -> Interval {
        let constants = &self.constants;
        if self.model.format == Format::PytorchBin {
            // A pickle can hold 16-bit tensors although its configuration says 32. Loading then
            // does not halve its size, so the high end is twice the likely one.
            let stored = if self.architecture.dtype == Some(Dtype::F32) {
                likely * 2
            } else {
                likely
            };
            return Interval::new(likely.scale(95, 100), likely, stored.scale(106, 100));
        }

        let fp4 = self.architecture.quantization.as_ref().is_some_and(is_fp4);
        let towers =
            self.settings.towers && (self.architecture.vision.is_some() || self.architecture.audio);
        let (low, high) = if fp4 || towers {
            (
                constants.weights_soft_low_ratio,
                constants.weights_soft_high_ratio,
            )
        } else {
            (constants.weights_low_ratio, constants.weights_high_ratio)
        };

        let high = if fp4 && self.repacks_experts() {
            constants.weights_marlin_high_ratio
        } else {
            high
        };

        Interval::new(
            low.of(likely),
            likely,
            high.of(likely) + constants.weights_high_mib,
        )
    }

    /// Whether Marlin repacks NVFP4 experts: on cards without FP4 tensor cores.
    ///
    /// [`VllmPrepared::expert_padding`] counts the padding of MXFP4 experts.
    fn repacks_experts(&self) -> bool {
        self.architecture.experts.is_some()
            && self.expert_padding().is_none()
            && self
                .settings
                .capability
                .is_none_or(|capability| capability < 100)
    }

    /// Weights by layer for the degrees of `split`.
    fn weight_table(&self, split: &Split) -> Arc<WeightTable> {
        let key = (split.tensor, split.expert_parallel);
        let mut tables = self.weights.lock().unwrap_or_else(PoisonError::into_inner);
        let table = tables.entry(key).or_insert_with(|| {
            let shard = ShardContext {
                architecture: self.architecture,
                compute: self.settings.compute,
                online: self.settings.online,
                mxfp4: self.expert_padding(),
                rope: self.settings.rope,
                tensor: u64::from(split.tensor.max(1)),
                expert_parallel: split.expert_parallel,
            };

            let omitted = Omitted {
                towers: !self.settings.towers,
                drafts: self.drafts() == 0,
            };

            Arc::new(match self.model.format {
                Format::PytorchBin => WeightTable::flat(self.pickled_bytes(), &shard),
                _ => WeightTable::new(&self.classes, &shard, VOCABULARY_STEP, omitted),
            })
        });

        Arc::clone(table)
    }

    /// Weights of a pickle, which names no types: stored as configured, cast like other weights.
    fn pickled_bytes(&self) -> Bytes {
        let stored = self.model.inventory.bytes();
        let stored_width = self.architecture.dtype.map_or(2, |dtype| {
            ComputeDtype::from_config(dtype).map_or(2, ComputeDtype::bytes)
        });
        stored.scale(self.settings.compute.bytes(), stored_width)
    }

    /// Padding of MXFP4 experts by the kernel that vLLM selects for the device
    /// (`layers/fused_moe/oracle/mxfp4.py`).
    ///
    /// A device of unknown compute capability gets the wider padding.
    fn expert_padding(&self) -> Option<ExpertPadding> {
        let quantization = self.architecture.quantization.as_ref()?;
        let has_mxfp4_experts =
            quantization.method == "mxfp4" || self.architecture.model_type == "deepseek_v4";
        let gpt_oss = self.architecture.model_type == "gpt_oss";

        has_mxfp4_experts.then_some(match self.settings.capability {
            Some(90..=99) if gpt_oss && !self.constants.mxfp4_marlin_sm90 => ExpertPadding {
                width: 64,
                hidden: 256,
                scales: false,
            },
            _ => ExpertPadding {
                width: 128,
                hidden: 256,
                scales: true,
            },
        })
    }
}
