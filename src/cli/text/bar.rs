//! A device's memory as a bar: in use, leased, needed by the model, left.

/// The letters of the parts, in order, with their legend.
pub const LEGEND: [(char, &str); 6] = [
    ('#', "in use"),
    ('%', "leased"),
    ('W', "weights"),
    ('K', "KV cache"),
    ('o', "other need"),
    ('.', "left"),
];

/// A device's bytes by part, in the order of [`LEGEND`]. The rest of `total` is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BarParts {
    /// Bytes in use by all processes.
    pub used: u64,
    /// Bytes leased and not yet in use.
    pub leased: u64,
    /// Weights of the model.
    pub weights: u64,
    /// KV cache and states of the model.
    pub cache: u64,
    /// The rest of the model's requirement.
    pub other: u64,
    /// The device's total.
    pub total: u64,
}

/// The cells of a bar by part, in the order of [`LEGEND`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cells {
    /// The number of cells of each part. The sum is the bar's width.
    pub counts: [usize; LEGEND.len()],
    /// Whether the parts exceed the total.
    pub overflow: bool,
}

/// Divides a bar of `width` cells among the parts.
///
/// A part above zero gets at least one cell while there is room. Parts beyond the total are cut.
pub fn cells(parts: &BarParts, width: usize) -> Cells {
    let amounts = [
        parts.used,
        parts.leased,
        parts.weights,
        parts.cache,
        parts.other,
    ];

    let mut counts = [0; LEGEND.len()];
    let mut sum: u128 = 0;
    let mut filled = 0;

    for (count, amount) in counts.iter_mut().zip(amounts) {
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

        *count = end - filled;
        filled = end;
    }

    counts[LEGEND.len() - 1] = width - filled;

    Cells {
        counts,
        overflow: sum > u128::from(parts.total),
    }
}

/// Returns the bar in ASCII, with `width` characters between its brackets.
///
/// If the parts exceed the total, a `>` replaces the closing bracket.
pub fn bar(parts: &BarParts, width: usize) -> String {
    let cells = cells(parts, width);
    let mut out = String::with_capacity(width + 2);
    out.push('[');

    for ((letter, _), count) in LEGEND.iter().zip(cells.counts) {
        out.extend(std::iter::repeat_n(*letter, count));
    }

    out.push(if cells.overflow { '>' } else { ']' });
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
    fn small_part_and_overflow_show() {
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
