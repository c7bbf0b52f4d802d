//! Short figures for the first screen: one decimal and a unit.

use hf_mem_core::report::answer::IntervalAnswer;

/// The unit of the figures in one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FigureUnit {
    /// 2^20 bytes.
    Mib,
    /// 2^30 bytes.
    Gib,
}

impl FigureUnit {
    /// Returns the unit for `bytes` and what is part of it.
    pub(super) fn of_bytes(bytes: u64) -> Self {
        if bytes >= 1 << 30 {
            Self::Gib
        } else {
            Self::Mib
        }
    }

    fn bytes(self) -> u64 {
        match self {
            Self::Mib => 1 << 20,
            Self::Gib => 1 << 30,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Mib => "MiB",
            Self::Gib => "GiB",
        }
    }

    /// Returns `bytes` in this unit, rounded to one decimal, without the unit's name.
    pub(super) fn number(self, bytes: u64) -> String {
        let unit = u128::from(self.bytes());
        let tenths = (u128::from(bytes) * 10 + unit / 2) / unit;
        format!("{}.{}", tenths / 10, tenths % 10)
    }
}

/// Returns `bytes` with one decimal and its unit: `15.3 GiB`.
pub(super) fn figure(bytes: u64) -> String {
    let unit = FigureUnit::of_bytes(bytes);
    format!("{} {}", unit.number(bytes), unit.name())
}

/// Returns the likely figure with its interval: `25.5 GiB (22.5 to 29.4)`.
pub(super) fn interval(interval: IntervalAnswer) -> String {
    let likely = figure(interval.likely_bytes);
    if interval.low_bytes == interval.high_bytes {
        return likely;
    }

    let unit = FigureUnit::of_bytes(interval.likely_bytes);
    format!(
        "{likely} ({} to {})",
        unit.number(interval.low_bytes),
        unit.number(interval.high_bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_one_decimal() {
        assert_eq!(figure(0), "0.0 MiB");
        assert_eq!(figure(1 << 29), "512.0 MiB");
        assert_eq!(figure(3 << 29), "1.5 GiB");
        assert_eq!(figure(u64::MAX), "17179869184.0 GiB");
    }

    #[test]
    fn interval_shares_unit() {
        let wide = IntervalAnswer {
            low_bytes: 1 << 29,
            likely_bytes: 1 << 30,
            high_bytes: 1 << 31,
        };
        assert_eq!(interval(wide), "1.0 GiB (0.5 to 2.0)");

        let exact = IntervalAnswer {
            low_bytes: 7,
            likely_bytes: 7,
            high_bytes: 7,
        };
        assert_eq!(interval(exact), "0.0 MiB");
    }
}
