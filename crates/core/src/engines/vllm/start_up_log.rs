//! The figures that vLLM prints while it starts, to compare the estimate with a measured log.

use super::VllmPrepared;
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::engines::{Interval, Split};

/// The figures that vLLM's start-up log prints for one rank.
#[derive(Clone, Copy, Debug)]
pub struct StartUpLog {
    /// "Model loading took".
    pub weights: Interval,
    /// Peak of the profile run, weights excluded.
    pub activations: Interval,
    /// Growth since the snapshot of memory that torch does not manage.
    pub non_torch: Interval,
    /// "Graph capturing finished ... took".
    pub graphs: Interval,
}

impl VllmPrepared<'_> {
    /// Returns the figures that the log of `rank` would print.
    pub fn start_up_log(&self, split: &Split, rank: usize, device: &DeviceFacts) -> StartUpLog {
        let workspace = self.flashinfer_workspace();
        StartUpLog {
            weights: self.weights(split, rank),
            // The peak includes the workspace if the profile run allocates it.
            activations: self.activations(split, rank).plus(Interval::new(
                Bytes::ZERO,
                Bytes::ZERO,
                workspace.high,
            )),
            non_torch: self
                .library_growth(split)
                .plus(self.communication_growth(split, device)),
            graphs: self.graphs(split, rank, device),
        }
    }

    /// Returns the blocks in `bytes` of cache on every rank: the minimum over all stages.
    pub fn blocks_in(&self, split: &Split, bytes: Bytes) -> u64 {
        (0..split.ranks())
            .map(|rank| bytes.get() / self.block_bytes(split, rank))
            .min()
            .unwrap_or(0)
    }

    /// Bytes of one block on `rank`, at least 1.
    pub(super) fn block_bytes(&self, split: &Split, rank: usize) -> u64 {
        self.pages(split)
            .bytes_per_block(&self.layers, &self.cached_layers(split, rank))
            .get()
            .max(1)
    }

    /// Returns "GPU KV cache size" in tokens as this release logs it for `blocks` blocks.
    pub fn logged_tokens(&self, split: &Split, blocks: u64) -> u64 {
        let pages = self.pages(split);
        if !self.constants.capacity_by_request {
            return pages.logged_tokens(blocks);
        }

        let context = self.settings.workload.context;
        let request = pages.blocks(&self.layers, context).total().max(1);

        u64::try_from(u128::from(blocks) * u128::from(context) / u128::from(request))
            .unwrap_or(u64::MAX)
    }

    /// Returns the cache on one rank for one sequence of the resolved context: "KV cache is
    /// needed".
    pub fn needed_for_one(&self, split: &Split, rank: usize) -> Interval {
        let range = self.cached_layers(split, rank);
        let pages = self.pages(split);
        let blocks = pages.blocks(&self.layers, self.settings.workload.context);
        let bytes = pages.bytes_per_block(&self.layers, &range) * blocks.total();
        Interval::new(bytes, bytes, pages.upper_bound(bytes))
    }
}
