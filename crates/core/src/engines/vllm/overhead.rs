//! What vLLM takes beside weights, cache and activations: CUDA graphs, context, communication,
//! libraries.
//!
//! All calibrated on start-up logs; the profile names them.

use super::VllmPrepared;
use crate::bytes::Bytes;
use crate::device::{DeviceFacts, DeviceKind};
use crate::engines::profile::Ratio;
use crate::engines::{Interval, Split};
use crate::model::architecture::FeedForward;

impl VllmPrepared<'_> {
    /// CUDA graph pools of `rank`.
    pub(super) fn graphs(&self, split: &Split, rank: usize, device: &DeviceFacts) -> Interval {
        if self.settings.eager {
            return Interval::default();
        }

        let constants = &self.constants;
        let (_, range) = split.stage_of(rank);
        let layers = self.kinds.held(&range);
        let mut likely = constants.graph_base_mib + constants.graph_per_layer_mib * layers.count();

        if layers
            .iter()
            .any(|layer| layer.feed_forward == FeedForward::Experts)
        {
            likely += constants.graph_experts_mib;
        }

        if split.tensor >= 4 {
            likely = constants.graph_tensor4_ratio.of(likely);
        }
        // A part of the pools grows with the sizes captured, a part is there for the first of them.
        let wide = device
            .capability()
            .is_some_and(|capability| (100..120).contains(&capability))
            || self.architecture.model_type == "gpt_oss";

        let most = if wide {
            constants.graph_most_tokens_wide
        } else {
            constants.graph_most_tokens
        };

        let sizes = capture_sizes(self.settings.max_sequences.saturating_mul(2).min(most));
        let all = capture_sizes(constants.graph_most_tokens);
        likely = likely.scale(all + sizes, 2 * all);

        if self.drafts() > 0 {
            // The draft's graphs are as large again: GLM-5.1 1.2 GiB without, 2.2-2.4 GiB with its
            // predictor.
            likely = likely * 2;
        }

        let high = constants.graph_high_ratio.of(likely);
        if small(device) {
            let likely = constants.graph_small_gpu_ratio.of(likely);
            Interval::new(Ratio(50_000).of(likely), likely, high)
        } else {
            Interval::new(constants.graph_low_ratio.of(likely), likely, high)
        }
    }

    /// CUDA context and libraries, allocated before vLLM looks how much is free.
    pub(super) fn context(&self, device: &DeviceFacts) -> Interval {
        let constants = &self.constants;
        match device.multiprocessors {
            Some(count) => {
                let bare = constants.context_mib_per_multiprocessor * u64::from(count);
                Interval::new(
                    bare,
                    bare + constants.context_libraries_mib,
                    bare + constants.context_libraries_high_mib,
                )
            }
            None => Interval::new(
                Bytes::mib(110),
                Bytes::mib(500),
                constants.context_unknown_mib,
            ),
        }
    }

    /// NCCL and its kin before the snapshot: outside the budget.
    pub(super) fn communication_before(&self, split: &Split, device: &DeviceFacts) -> Interval {
        let constants = &self.constants;
        if split.ranks() < 2 {
            return Interval::default();
        }

        let low = Bytes::mib(80);
        if perhaps_fabric(device) {
            let likely = constants.communication_before_consumer_mib;
            return Interval::new(low, likely, constants.communication_before_sm100_high_mib);
        }

        if device
            .capability()
            .is_some_and(|capability| (100..120).contains(&capability))
        {
            return Interval::new(
                low,
                constants.communication_before_fabric_high_mib,
                constants.communication_before_sm100_high_mib,
            );
        }

        if fabric_class(device) {
            let high = constants.communication_before_fabric_high_mib;
            return Interval::new(low, constants.communication_before_fabric_mib, high);
        }

        Interval::new(
            low,
            constants.communication_before_consumer_mib,
            constants.communication_before_consumer_high_mib,
        )
    }

    /// Symmetric memory and fused all-reduce buffers that grow during the profile: in the budget.
    pub(super) fn communication_growth(&self, split: &Split, device: &DeviceFacts) -> Interval {
        let constants = &self.constants;
        if split.tensor < 2 {
            return Interval::default();
        }

        if fabric_class(device) {
            return Interval::new(
                constants.communication_growth_fabric_low_mib,
                constants.communication_growth_fabric_mib,
                constants.communication_growth_fabric_high_mib,
            );
        }

        let high = if perhaps_fabric(device) {
            constants.communication_growth_fabric_high_mib
        } else {
            constants.communication_growth_consumer_high_mib
        };

        Interval::new(
            constants.communication_growth_consumer_low_mib,
            constants.communication_growth_consumer_mib,
            high,
        )
    }

    /// Memory beside torch that grows during load and profile on one rank (cuBLAS, kernels). With
    /// tensor parallelism the logs give it together with [`VllmPrepared::communication_growth`].
    pub(super) fn library_growth(&self, split: &Split) -> Interval {
        let constants = &self.constants;
        if split.tensor > 1 {
            return Interval::default();
        }

        let likely = if split.stages.len() > 1 {
            constants.runtime_stage_mib
        } else {
            constants.runtime_growth_mib
        };

        Interval::new(
            constants.runtime_growth_low_mib,
            likely,
            constants.runtime_growth_high_mib,
        )
    }
}

/// Data-centre GPUs of SM90 and SM10x: fabric, symmetric memory, full-size graphs.
fn fabric_class(device: &DeviceFacts) -> bool {
    device.kind != DeviceKind::UnifiedMemory
        && device
            .capability()
            .is_some_and(|capability| (90..120).contains(&capability))
}

/// A device that tells no capability and may be one of those: the smallest of them has 80 GB, and a
/// slice of one is never part of a group.
fn perhaps_fabric(device: &DeviceFacts) -> bool {
    device.kind != DeviceKind::UnifiedMemory
        && device.capability().is_none()
        && device.total_bytes >= Bytes::gib(64)
}

/// Consumer cards and unified memory, whose graphs are smaller. The smallest A100 has 39.6 GiB.
fn small(device: &DeviceFacts) -> bool {
    device.kind == DeviceKind::UnifiedMemory || device.total_bytes < Bytes::gib(36)
}

/// Number of capture sizes up to `most`: 1, 2, 4, 8 to 248 by 8, from 256 by 16 (`config/vllm.py`).
fn capture_sizes(most: u64) -> u64 {
    let small = [1, 2, 4].iter().filter(|size| **size <= most).count() as u64;
    small
        + most.min(248) / 8
        + if most >= 256 {
            (most - 256) / 16 + 1
        } else {
            0
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capture_sizes_are_counted() {
        assert_eq!(capture_sizes(512), 3 + 31 + 17);
        assert_eq!(capture_sizes(4), 3);
        assert_eq!(capture_sizes(16), 5);
    }
}
