//! The parts of transformers' memory that depend on the workload.

use crate::engines::Interval;

/// The memory on one rank that depends on the workload.
#[derive(Clone, Copy, Debug)]
pub(super) struct VariableParts {
    pub(super) cache: Interval,
    /// In addition to the cache while it grows.
    pub(super) growth: Interval,
    pub(super) states: Interval,
    /// Activations of one step.
    pub(super) step: Interval,
    /// The allocator's fragmentation.
    pub(super) slack: Interval,
}

impl VariableParts {
    pub(super) const fn all(self) -> [Interval; 5] {
        [self.cache, self.growth, self.states, self.step, self.slack]
    }

    pub(super) fn sum(self) -> Interval {
        self.all().into_iter().sum()
    }
}
