//! A device as a bar: what is in use, what is promised, what this model would take, what is left.

/// Letters of the parts, in order, with their meaning for the legend.
pub const LEGEND: [(char, &str); 6] = [
    ('#', "in use"),
    ('%', "leased"),
    ('W', "weights"),
    ('K', "KV cache"),
    ('o', "other need"),
    ('.', "left"),
];

/// Bytes of a device by part, in the order of [`LEGEND`]; what is left is the rest of `total`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BarParts {
    /// Bytes in use by anyone.
    pub used: u64,
    /// Bytes promised to leases and not yet in use.
    pub leased: u64,
    /// Weights of the model in question.
    pub weights: u64,
    /// Its cache and states.
    pub cache: u64,
    /// The rest of its need.
    pub other: u64,
    /// The device's total.
    pub total: u64,
}

/// The bar, `width` characters between its brackets. A part that is there at all gets at least one
/// character; parts that pass the total are cut, with a `>` in place of the closing bracket.
pub fn bar(parts: &BarParts, width: usize) -> String {
    let mut out = String::with_capacity(width + 2);
    out.push('[');

    let amounts = [
        parts.used,
        parts.leased,
        parts.weights,
        parts.cache,
        parts.other,
    ];

    let mut sum: u128 = 0;
    let mut filled = 0;

    for ((letter, _), amount) in LEGEND.iter().zip(amounts) {
        sum += u128::from(amount);
        let end = if parts.total == 0 {
            width as u128
        } else {
            (sum * width as u128).div_ceil(u128::from(parts.total))
        };

        let end = usize::try_from(end).unwrap_or(width).min(width);
        let end = if amount > 0 {
            end.max((filled + 1).min(width))
        } else {
            filled
        };

        out.extend(std::iter::repeat_n(*letter, end - filled));
        filled = end;
    }

    out.extend(std::iter::repeat_n('.', width - filled));
    out.push(if sum > u128::from(parts.total) {
        '>'
    } else {
        ']'
    });

    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_fill_in_proportion() {
        let parts = BarParts {
            used: 10,
            leased: 0,
            weights: 20,
            cache: 10,
            other: 0,
            total: 80,
        };

        assert_eq!(bar(&parts, 8), "[#WWK....]");
    }

    #[test]
    fn a_small_part_is_still_seen_and_an_overflow_is_marked() {
        assert_eq!(
            bar(
                &BarParts {
                    used: 1,
                    total: 1000,
                    ..BarParts::default()
                },
                8
            ),
            "[#.......]"
        );

        assert_eq!(
            bar(
                &BarParts {
                    weights: 90,
                    cache: 30,
                    total: 100,
                    ..BarParts::default()
                },
                10
            ),
            "[WWWWWWWWWK>"
        );

        assert_eq!(
            bar(
                &BarParts {
                    used: 5,
                    total: 0,
                    ..BarParts::default()
                },
                4
            ),
            "[####>"
        );
    }
}
