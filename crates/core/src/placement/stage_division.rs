//! The exact division of layers into stages for given costs and room.
//!
//! The best division leaves the largest smallest headroom. It is found by bisection over the
//! headroom.

use std::ops::Range;

/// Returns the ranges of layers that end at `ends`.
pub(super) fn ranges(ends: &[usize]) -> Vec<Range<u32>> {
    let mut start = 0;
    let mut ranges = Vec::with_capacity(ends.len());
    for end in ends {
        let end = u32::try_from(*end).unwrap_or(u32::MAX);
        ranges.push(start..end);
        start = end;
    }

    ranges
}

/// Returns the ends of the stages that leave the largest smallest headroom.
///
/// Stage `i` has `room[i]` bytes, and the layers before layer `l` cost `before[l]`.
pub(super) fn divide(before: &[i128], room: &[i128]) -> Vec<usize> {
    let all = before.last().copied().unwrap_or(0);
    let most = room.iter().copied().min().unwrap_or(0);

    // At this headroom every stage could hold all layers, so the division always exists.
    let mut best = ends_with_headroom(before, room, most - all).unwrap_or_default();

    // The headroom is at most the room of the tightest stage, and at most what the average leaves.
    let stages = i128::try_from(room.len()).unwrap_or(1).max(1);
    let average = room
        .iter()
        .fold(0_i128, |sum, room| sum.saturating_add(*room))
        .saturating_sub(all)
        .div_euclid(stages);

    let (mut feasible, mut above) = (
        smallest_headroom(before, room, &best),
        most.min(average).saturating_add(1),
    );
    while above - feasible > 1 {
        // A division often leaves more than required. If none leaves a byte more, it is the best.
        let Some(better) = ends_with_headroom(before, room, feasible + 1) else {
            break;
        };

        feasible = smallest_headroom(before, room, &better);
        best = better;
        let middle = feasible + (above - feasible) / 2;

        match ends_with_headroom(before, room, middle) {
            Some(better) => {
                feasible = smallest_headroom(before, room, &better);
                best = better;
            }
            None => above = middle,
        }
    }

    best
}

/// Returns the smallest headroom of a division.
fn smallest_headroom(before: &[i128], room: &[i128], ends: &[usize]) -> i128 {
    let cost_before = |layer: usize| before.get(layer).copied().unwrap_or(0);
    let mut start = 0;
    let left = ends.iter().zip(room).map(|(&end, room)| {
        let left = room - (cost_before(end) - cost_before(start));
        start = end;
        left
    });

    left.min().unwrap_or(0)
}

/// Returns ends of the stages that leave `headroom` on each, if there are any.
///
/// The greedy division, as many layers as fit on each stage, is usually an answer. It fails if it
/// leaves the next device a layer that is too large, because every stage must have a layer. Then
/// all reachable ends are searched.
fn ends_with_headroom(before: &[i128], room: &[i128], headroom: i128) -> Option<Vec<usize>> {
    let layers = before.len().checked_sub(1)?;
    let furthest_end = |stage: usize, start: usize| {
        let spare = before
            .get(start)?
            .saturating_add(room.get(stage)?.saturating_sub(headroom));
        let end = before
            .partition_point(|cost| *cost <= spare)
            .checked_sub(1)?;
        let end = end.min(layers.saturating_sub(room.len().saturating_sub(stage + 1)));
        (end > start).then_some(end)
    };

    let mut start = 0;
    let ends: Vec<usize> = (0..room.len())
        .map_while(|stage| {
            start = furthest_end(stage, start)?;
            Some(start)
        })
        .collect();

    if ends.len() == room.len() {
        return (start == layers).then_some(ends);
    }

    reachable_ends(layers, room.len(), furthest_end)
}

/// Searches all reachable ends of `stages` stages that end at `layers`. `furthest` returns the last
/// end of a stage from a start.
fn reachable_ends(
    layers: usize,
    stages: usize,
    furthest: impl Fn(usize, usize) -> Option<usize>,
) -> Option<Vec<usize>> {
    // For each stage, the first start from which each end is reachable.
    let mut reached: Vec<Vec<Option<usize>>> = Vec::with_capacity(stages);

    for stage in 0..stages {
        let mut from = vec![None; layers + 1];
        let mut next = 0;

        for start in 0..=layers {
            let can_start = reached.last().map_or(start == 0, |ends| {
                ends.get(start).is_some_and(Option::is_some)
            });

            if !can_start {
                continue;
            }
            // A later start never ends earlier, so each end is visited once.
            if let Some(end) = furthest(stage, start) {
                next = next.max(start + 1);
                while next <= end {
                    if let Some(slot) = from.get_mut(next) {
                        *slot = Some(start);
                    }
                    next += 1;
                }
            }
        }

        reached.push(from);
    }

    let mut end = layers;
    let mut ends = Vec::with_capacity(stages);
    for reached in reached.iter().rev() {
        ends.push(end);
        end = (*reached.get(end)?)?;
    }

    ends.reverse();
    Some(ends)
}
