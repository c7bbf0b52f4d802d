//! CUDA graphs, context, communication and libraries, calibrated on start-up logs.
//!
//! The profile names the logs.

use super::VllmPrepared;
use crate::bytes::Bytes;
use crate::device::{DeviceFacts, DeviceKind};
use crate::engines::profile::Ratio;
use crate::engines::shared::device_support::is_sm100;
use crate::engines::{Interval, Split};
use crate::model::architecture::FeedForward;

/// The low end of graph pools on small GPUs: a twentieth.
const SMALL_GPU_GRAPH_LOW: Ratio = Ratio(50_000);

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

        // The first captured size allocates half of the pools; the rest grows with the sizes.
        let wide = is_sm100(device) || self.architecture.model_type == "gpt_oss";
        let max_tokens = if wide {
            constants.graph_most_tokens_wide
        } else {
            constants.graph_most_tokens
        };

        let sizes = capture_sizes(
            self.settings
                .max_sequences
                .saturating_mul(2)
                .min(max_tokens),
        );
        let all = capture_sizes(constants.graph_most_tokens);
        likely = likely.scale(all + sizes, 2 * all);

        if self.drafts() > 0 {
            // The draft's graphs take as much again: GLM-5.1 logs 1.2 GiB without its predictor,
            // 2.2-2.4 GiB with it.
            likely = likely * 2;
        }

        let high = constants.graph_high_ratio.of(likely);
        if is_small(device) {
            let likely = constants.graph_small_gpu_ratio.of(likely);
            Interval::new(SMALL_GPU_GRAPH_LOW.of(likely), likely, high)
        } else {
            Interval::new(constants.graph_low_ratio.of(likely), likely, high)
        }
    }

    /// CUDA context and libraries, which vLLM allocates before it reads the free memory.
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

    /// NCCL and other communication buffers from before the snapshot, outside the budget.
    pub(super) fn communication_before(&self, split: &Split, device: &DeviceFacts) -> Interval {
        let constants = &self.constants;
        if split.ranks() < 2 {
            return Interval::default();
        }

        let low = Bytes::mib(80);
        if may_be_fabric(device) {
            let likely = constants.communication_before_consumer_mib;
            return Interval::new(low, likely, constants.communication_before_sm100_high_mib);
        }

        if is_sm100(device) {
            return Interval::new(
                low,
                constants.communication_before_fabric_high_mib,
                constants.communication_before_sm100_high_mib,
            );
        }

        if is_fabric(device) {
            let high = constants.communication_before_fabric_high_mib;
            return Interval::new(low, constants.communication_before_fabric_mib, high);
        }

        Interval::new(
            low,
            constants.communication_before_consumer_mib,
            constants.communication_before_consumer_high_mib,
        )
    }

    /// Symmetric memory and fused all-reduce buffers that grow during the profile run, inside the
    /// budget.
    pub(super) fn communication_growth(&self, split: &Split, device: &DeviceFacts) -> Interval {
        let constants = &self.constants;
        if split.tensor < 2 {
            return Interval::default();
        }

        if is_fabric(device) {
            return Interval::new(
                constants.communication_growth_fabric_low_mib,
                constants.communication_growth_fabric_mib,
                constants.communication_growth_fabric_high_mib,
            );
        }

        let high = if may_be_fabric(device) {
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

    /// Memory outside torch that grows during load and profile run on one rank (cuBLAS, kernels).
    ///
    /// With tensor parallelism, [`VllmPrepared::communication_growth`] includes it, as the logs do.
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

/// Whether `device` is a data-center GPU of SM90 or SM10x: fabric, symmetric memory, full-size
/// graphs.
fn is_fabric(device: &DeviceFacts) -> bool {
    device.kind != DeviceKind::UnifiedMemory
        && device
            .capability()
            .is_some_and(|capability| (90..120).contains(&capability))
}

/// Whether `device` has an unknown compute capability and may be such a GPU.
///
/// The smallest of them has 80 GB, and a MIG slice is never part of a group.
fn may_be_fabric(device: &DeviceFacts) -> bool {
    device.kind != DeviceKind::UnifiedMemory
        && device.capability().is_none()
        && device.total_bytes >= Bytes::gib(64)
}

/// Whether `device` is a consumer card or unified memory, whose graphs are smaller.
///
/// The smallest A100 has 39.6 GiB.
fn is_small(device: &DeviceFacts) -> bool {
    device.kind == DeviceKind::UnifiedMemory || device.total_bytes < Bytes::gib(36)
}

/// Number of capture sizes up to `max`: 1, 2, 4, 8 to 248 by 8, from 256 by 16 (`config/vllm.py`).
fn capture_sizes(max: u64) -> u64 {
    let first = [1, 2, 4].iter().filter(|size| **size <= max).count() as u64;
    let by_8 = max.min(248) / 8;
    let by_16 = if max >= 256 { (max - 256) / 16 + 1 } else { 0 };

    first + by_8 + by_16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capture_sizes_counted() {
        assert_eq!(capture_sizes(512), 3 + 31 + 17);
        assert_eq!(capture_sizes(4), 3);
        assert_eq!(capture_sizes(16), 5);
    }
}
