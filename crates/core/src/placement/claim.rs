//! The claim of a rank on its device: what it needs, and what a configured share adds.

use super::order::Grade;
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::engines::{EngineError, Interval, PreparedEngine, Share, Split, Workload};

/// The claim of one rank on one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// The memory that must be available for the need.
    pub(super) need: Interval,
    /// All that the engine takes, if the question sets a share of the device.
    pub(super) taken: Option<Interval>,
}

impl Claim {
    /// Returns a claim without a share.
    pub(super) const fn of_need(need: Interval) -> Self {
        Self { need, taken: None }
    }

    /// Computes what `rank` of `split` claims on `device` for `workload`.
    pub(super) fn new(
        prepared: &dyn PreparedEngine,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
        workload: Workload,
    ) -> Result<Self, EngineError> {
        let fixed = prepared.fixed_sum(split, rank, device)?;
        let variable = prepared.variable_sum(split, rank, device, workload)?;
        let need = prepared.must_be_available(split, device, fixed.plus(variable));
        if need.likely.overflowed() {
            return Err(EngineError::Overflow { what: "need" });
        }

        Ok(Self::in_share(
            need,
            prepared.share(split, rank, device).as_ref(),
        ))
    }

    /// Returns the claim of `need` within `share`.
    pub(super) fn in_share(need: Interval, share: Option<&Share>) -> Self {
        Self {
            need,
            taken: share.map(|share| share.taken),
        }
    }

    /// Adds `more` to the claim, outside of any share.
    pub(super) fn plus(self, more: Interval) -> Self {
        Self {
            need: self.need.plus(more),
            taken: self.taken.map(|taken| taken.plus(more)),
        }
    }

    /// Returns the bytes that must be available: the share if it holds the need, else the need.
    pub(super) fn required(self) -> Interval {
        match self.taken {
            Some(taken) if !self.outgrows_share() => self.need.max(taken),
            _ => self.need,
        }
    }

    /// Whether the share is too small for the likely need. No amount of free memory helps then.
    pub(super) fn outgrows_share(self) -> bool {
        self.taken
            .is_some_and(|taken| self.need.likely > taken.likely)
    }

    /// Returns whether the claim fits in `available`.
    pub(super) fn grade(self, available: Bytes) -> Grade {
        let fits_in = |need: Bytes, taken: Option<Bytes>| {
            !need.overflowed()
                && need <= available
                && taken.is_none_or(|taken| need <= taken && taken <= available)
        };

        if fits_in(self.need.high, self.taken.map(|taken| taken.high)) {
            Grade::Fits
        } else if fits_in(self.need.likely, self.taken.map(|taken| taken.likely)) {
            Grade::Tight
        } else {
            Grade::No
        }
    }

    /// Returns the bytes that the high end leaves of `available` and of the share; negative if it
    /// does not fit.
    pub(super) fn left(self, available: Bytes) -> i128 {
        let of_device = difference(available, self.need.high);
        match self.taken {
            Some(taken) => of_device
                .min(difference(taken.high, self.need.high))
                .min(difference(available, taken.high)),
            None => of_device,
        }
    }

    /// Returns the bytes that the high end is short of; zero if it fits.
    pub(super) fn short_by(self, available: Bytes) -> Bytes {
        if self.need.high.overflowed() || available.overflowed() {
            return Bytes::OVERFLOW;
        }
        u64::try_from(-self.left(available).min(0)).map_or(Bytes::OVERFLOW, Bytes::new)
    }
}

/// Returns `have - need`, which may be negative.
fn difference(have: Bytes, need: Bytes) -> i128 {
    i128::from(have.get()) - i128::from(need.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(low: u64, likely: u64, high: u64) -> Interval {
        Interval::new(Bytes::new(low), Bytes::new(likely), Bytes::new(high))
    }

    fn claim(need: Interval, share: u64) -> Claim {
        Claim {
            need,
            taken: Some(Interval::exact(Bytes::new(share))),
        }
    }

    #[test]
    fn claim_without_share_is_its_need() {
        let claim = Claim::of_need(interval(8, 9, 10));
        assert_eq!(claim.required(), claim.need);

        assert_eq!(
            [10, 9, 8].map(|free| claim.grade(Bytes::new(free))),
            [Grade::Fits, Grade::Tight, Grade::No]
        );
        assert_eq!(
            [10, 7].map(|free| claim.short_by(Bytes::new(free)).get()),
            [0, 3]
        );
        assert_eq!(claim.left(Bytes::new(12)), 2);
    }

    #[test]
    fn share_must_be_free_as_whole() {
        let claim = claim(interval(8, 9, 10), 20);
        assert_eq!(claim.required(), interval(20, 20, 20));
        assert_eq!(claim.grade(Bytes::new(20)), Grade::Fits);
        assert_eq!(claim.grade(Bytes::new(19)), Grade::No);
        assert_eq!(claim.short_by(Bytes::new(19)).get(), 1);
    }

    #[test]
    fn small_share_never_fits() {
        let outgrown = claim(interval(8, 9, 10), 7);
        assert_eq!(
            outgrown.required(),
            outgrown.need,
            "the need, not the share"
        );

        assert_eq!(outgrown.grade(Bytes::new(1000)), Grade::No);
        assert_eq!(
            outgrown.short_by(Bytes::new(1000)).get(),
            3,
            "short of the share"
        );

        let tight = claim(interval(8, 9, 10), 9);
        assert_eq!(tight.grade(Bytes::new(1000)), Grade::Tight);
        assert_eq!(tight.required(), interval(9, 9, 10));
    }

    #[test]
    fn overflow_never_fits() {
        let lost = Claim::of_need(Interval::exact(Bytes::OVERFLOW));
        assert_eq!(lost.grade(Bytes::OVERFLOW), Grade::No);
        assert_eq!(lost.short_by(Bytes::new(1)), Bytes::OVERFLOW);
    }
}
