//! The cache that a server has when the user gives it a share of the device.

use super::VllmPrepared;
use super::launch::cuda_total;
use crate::bytes::Bytes;
use crate::engines::{
    CacheCapacity, EngineError, Interval, LaunchDevice, LaunchPlan, PreparedEngine as _,
};

/// The memory that a share leaves for the cache.
#[derive(Clone, Copy, Debug)]
struct CacheRoom {
    likely: Bytes,
    low: Bytes,
}

impl VllmPrepared<'_> {
    /// The cache of a server with an asked share, as its log reports it.
    ///
    /// Returns `None` without an asked share, as the workload then sizes the cache, and for a model
    /// without a cache.
    pub(super) fn cache_capacity(
        &self,
        plan: &LaunchPlan<'_>,
    ) -> Result<Option<CacheCapacity>, EngineError> {
        let Some(share) = self.settings.asked_share else {
            return Ok(None);
        };

        let (mut blocks, mut low_blocks) = (u64::MAX, u64::MAX);

        for (rank, device) in plan.devices.iter().enumerate() {
            let Some(room) = self.cache_room(plan, rank, device, share)? else {
                return Ok(None);
            };

            let block = self.block_bytes(plan.split, rank);
            blocks = blocks.min(room.likely.get() / block);
            low_blocks = low_blocks.min(room.low.get() / block);
        }

        let request = self
            .pages(plan.split)
            .blocks(&self.layers, plan.workload.context)
            .total();
        if request == 0 || plan.devices.is_empty() {
            return Ok(None);
        }

        let hundredths = u128::from(blocks) * 100 / u128::from(request);
        Ok(Some(CacheCapacity {
            tokens: self.logged_tokens(plan.split, blocks),
            low_tokens: self.logged_tokens(plan.split, low_blocks),
            concurrency_hundredths: u64::try_from(hundredths).unwrap_or(u64::MAX),
        }))
    }

    /// The memory that `share` leaves `rank` for its cache; `None` for a model without a cache.
    fn cache_room(
        &self,
        plan: &LaunchPlan<'_>,
        rank: usize,
        device: &LaunchDevice<'_>,
        share: u64,
    ) -> Result<Option<CacheRoom>, EngineError> {
        let Some(variable) = self.variable_bytes(plan.split, rank, plan.workload)? else {
            return Ok(None);
        };

        let others = self
            .fixed_sum(plan.split, rank, device.facts)?
            .plus(variable.tables);
        let taken = Interval::exact(cuda_total(device).scale(share, 1_000_000))
            .plus(self.outside_share(plan.split, rank, device.facts));

        Ok(Some(CacheRoom {
            likely: taken.likely.less(others.likely).unwrap_or_default(),
            low: taken.high.less(others.high).unwrap_or_default(),
        }))
    }
}
