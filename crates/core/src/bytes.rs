//! A count of bytes with arithmetic that cannot wrap.
//!
//! Sizes come from untrusted files, so arithmetic never wraps and never panics. A result beyond 64
//! bits becomes [`Bytes::OVERFLOW`] and stays so in all further arithmetic. It is larger than any
//! device, so an overflow can only lead to a rejection. GiB are computed only for display.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Mul};

use serde::{Deserialize, Serialize};

/// A number of bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Bytes(u64);

impl Bytes {
    /// No bytes: a true zero, never "unknown".
    pub const ZERO: Self = Self(0);
    /// A sum or product beyond 64 bits; absorbing under addition and multiplication.
    pub const OVERFLOW: Self = Self(u64::MAX);

    /// Returns `count` bytes.
    pub const fn new(count: u64) -> Self {
        Self(count)
    }

    /// Returns `count` MiB (2^20 bytes each).
    pub const fn mib(count: u64) -> Self {
        Self(count.saturating_mul(1 << 20))
    }

    /// Returns `count` GiB (2^30 bytes each).
    pub const fn gib(count: u64) -> Self {
        Self(count.saturating_mul(1 << 30))
    }

    /// Returns the count as an integer.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Whether the calculation overflowed.
    pub const fn overflowed(self) -> bool {
        self.0 == u64::MAX
    }

    /// Returns the product of sizes, such as a shape times an element's bytes.
    pub fn product(factors: impl IntoIterator<Item = u64>) -> Self {
        factors
            .into_iter()
            .fold(Self(1), |bytes, factor| bytes * factor)
    }

    /// Returns `self - other`, or zero if `other` is larger; `None` if either overflowed.
    pub fn less(self, other: Self) -> Option<Self> {
        (!self.overflowed() && !other.overflowed()).then(|| Self(self.0.saturating_sub(other.0)))
    }

    /// Returns `self - other`, or `None` if that is negative.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// Returns `self / parts`, rounded up; overflow stays overflow.
    pub fn div_ceil(self, parts: u64) -> Self {
        if self.overflowed() || parts == 0 {
            Self::OVERFLOW
        } else {
            Self(self.0.div_ceil(parts))
        }
    }

    /// Returns `self * numerator / denominator`, computed with 128 bits and rounded up.
    pub fn scale(self, numerator: u64, denominator: u64) -> Self {
        if self.overflowed() || denominator == 0 {
            return Self::OVERFLOW;
        }
        let wide = (u128::from(self.0) * u128::from(numerator)).div_ceil(u128::from(denominator));
        u64::try_from(wide).map_or(Self::OVERFLOW, Self)
    }

    /// Rounds up to a whole multiple of `step` bytes.
    pub fn round_up(self, step: u64) -> Self {
        self.div_ceil(step) * step
    }

    /// Returns the count in GiB, for display only.
    #[expect(clippy::cast_precision_loss, reason = "print only")]
    pub fn as_gib(self) -> f64 {
        self.0 as f64 / f64::from(1 << 30)
    }
}

impl Add for Bytes {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Bytes {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Mul<u64> for Bytes {
    type Output = Self;
    fn mul(self, factor: u64) -> Self {
        // Zero times an overflow stays an overflow: the true factor is unknown.
        if self.overflowed() {
            self
        } else {
            Self(self.0.saturating_mul(factor))
        }
    }
}

impl Sum for Bytes {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

/// Formats the count for people, in the largest of GiB, MiB, KiB and B that it reaches.
impl fmt::Display for Bytes {
    #[expect(clippy::cast_precision_loss, reason = "print only")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            u64::MAX => f.pad("more than 2^64 bytes"),
            count if count >= 1 << 30 => f.pad(&format!("{:.2} GiB", self.as_gib())),
            count if count >= 1 << 20 => {
                f.pad(&format!("{:.1} MiB", count as f64 / f64::from(1 << 20)))
            }
            count if count >= 1 << 10 => {
                f.pad(&format!("{:.1} KiB", count as f64 / f64::from(1 << 10)))
            }
            count => f.pad(&format!("{count} B")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflow_absorbs_everything_after_it() {
        let lost = Bytes::new(1 << 63) * 2;
        assert!(lost.overflowed());
        let none = 0;
        assert!((lost * none).overflowed());
        assert!((lost + Bytes::ZERO).overflowed());
        assert!(lost.div_ceil(4).overflowed());
        assert_eq!(lost.less(Bytes::new(1)), None);
        assert!(lost > Bytes::gib(1 << 20));
    }

    #[test]
    fn scaling_goes_through_128_bits() {
        assert_eq!(Bytes::new(1 << 62).scale(3, 4), Bytes::new(3 << 60));
        assert_eq!(Bytes::new(10).scale(1, 3), Bytes::new(4));
        assert_eq!(Bytes::new(5).round_up(4), Bytes::new(8));
    }

    #[test]
    fn prints_for_people() {
        assert_eq!(Bytes::new(16_060_522_496).to_string(), "14.96 GiB");
        assert_eq!(Bytes::mib(3).to_string(), "3.0 MiB");
        assert_eq!(Bytes::new(147_933).to_string(), "144.5 KiB");
        assert_eq!(Bytes::new(17).to_string(), "17 B");
    }
}
