//! How many layers each stage gets where the engine takes any number: as many as leaves the
//! tightest device the most room.
//!
//! The engine is asked for the cost of each layer once and for what each kind of device costs
//! besides. On those figures the best division is found exactly (the largest headroom for which
//! taking as many layers as go, device by device, covers them all). The engine is then asked about
//! that division itself; where it differs from the figures (a buffer that follows the largest
//! layer, a rounded share) the difference is charged to the device and the search repeated.

use std::collections::hash_map::Entry;

use super::needs::Needs;
use super::pool::Pool;
use super::quick_hash::QuickMap;
use crate::bytes::Bytes;
use crate::engines::{EngineError, Split};

/// How often a division is corrected by what the engine says of it.
const CORRECTIONS: usize = 3;

/// (Tensor degree, what stays on the host).
type Way = (u32, (u8, u32));

/// Costs of layers, by (kind of the first device, tensor degree, what stays on the host).
#[derive(Default)]
pub(super) struct LayerCosts {
    known: QuickMap<(usize, u32, (u8, u32)), Costs>,
    /// What the engine said of the layers, by (tensor degree, what stays on the host): most often
    /// the same, whichever kind of device is the first.
    before: QuickMap<Way, Vec<Vec<i128>>>,
}

struct Costs {
    /// Cost of all layers before each one, without what a device costs besides; never falling.
    before: Vec<i128>,
    /// What a device of each kind costs besides.
    besides: QuickMap<usize, i128>,
}

impl LayerCosts {
    /// `template` with its stages divided anew for `places`; `None` where there are fewer layers
    /// than stages.
    pub(super) fn divide(
        &mut self,
        needs: &Needs<'_>,
        pool: &Pool<'_>,
        template: &Split,
        places: &[usize],
    ) -> Result<Option<Split>, EngineError> {
        let stages = template.stages.len();
        let layers = template.stages.last().map_or(0, |last| last.end);
        if stages < 2 || (layers as usize) < stages {
            return Ok(None);
        }

        let Some(first) = places.first().and_then(|place| pool.devices.get(*place)) else {
            return Ok(None);
        };

        let key = (
            first.kind,
            template.tensor,
            super::order::harm(template.offload),
        );
        let costs = match self.known.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(slot) => {
                let alike = self.before.entry((template.tensor, key.2)).or_default();
                slot.insert(Costs::of(needs, pool, first.kind, template, alike)?)
            }
        };

        let tensor = template.tensor.max(1) as usize;
        let mut room = Vec::with_capacity(stages);

        for group in places.chunks(tensor) {
            let mut least = i128::MAX;
            for device in group.iter().filter_map(|place| pool.devices.get(*place)) {
                let besides = costs.besides(needs, pool, first.kind, template, device.kind)?;
                least = least.min(i128::from(device.available.get()) - besides);
            }
            room.push(least);
        }

        let mut best: Option<(i128, Split)> = None;
        let mut ends_before = Vec::new();
        for _ in 0..CORRECTIONS {
            let ends = divide(&costs.before, &room);
            if ends == ends_before {
                break;
            }

            let split = Split {
                stages: ranges(&ends),
                ..template.clone()
            };

            let mut start = 0;
            let mut headroom = i128::MAX;
            let mut corrected = false;

            for (stage, (&end, room)) in ends.iter().zip(room.iter_mut()).enumerate() {
                let figured = *room - (costs.at(end) - costs.at(start));
                let mut really = i128::MAX;

                for rank in stage * tensor..(stage + 1) * tensor {
                    let Some(&place) = places.get(rank) else {
                        continue;
                    };
                    let Some(device) = pool.devices.get(place) else {
                        continue;
                    };
                    let claim = needs.of(first.kind, &split, rank, pool, place)?;
                    really = really.min(claim.left(device.available));
                }

                headroom = headroom.min(really);
                corrected |= really != figured;
                *room += really - figured;
                start = end;
            }

            if best.as_ref().is_none_or(|(known, _)| headroom > *known) {
                best = Some((headroom, split));
            }

            if !corrected {
                break;
            }

            ends_before = ends;
        }

        Ok(best.map(|(_, split)| split))
    }
}

impl Costs {
    /// `alike`: figures of other kinds of first devices, from the same number of layers. Where
    /// one's differ from these by the same at four places, they are taken to do so at all; the
    /// corrections catch what is not.
    fn of(
        needs: &Needs<'_>,
        pool: &Pool<'_>,
        first: usize,
        template: &Split,
        alike: &mut Vec<Vec<i128>>,
    ) -> Result<Self, EngineError> {
        let layers = template.stages.last().map_or(0, |last| last.end);
        let upto = |end: u32| {
            let ends: &[u32] = if end == layers {
                &[end]
            } else {
                &[end, layers]
            };
            figure(needs, pool, (first, first), template, ends, 0)
        };

        let probes = [1, layers / 2, layers.saturating_sub(1), layers];
        let mut known = None;

        for other in alike.iter().filter(|_| layers > 8) {
            let differs = |end: u32| -> Result<i128, EngineError> {
                Ok(upto(end)? - other.get(end as usize).copied().unwrap_or(i128::MAX / 4))
            };

            let [one, half, most, all] = probes.map(differs);
            let one = one?;

            if one == half? && one == most? && one == all? {
                known = Some(
                    other
                        .iter()
                        .enumerate()
                        .map(|(at, cost)| if at == 0 { 0 } else { cost + one })
                        .collect(),
                );
                break;
            }
        }

        let before: Vec<i128> = if let Some(known) = known {
            known
        } else {
            let figures = std::iter::once(Ok(0))
                .chain((1..=layers).map(upto))
                .collect::<Result<Vec<_>, _>>()?;
            alike.push(figures.clone());
            figures
        };

        let mut costs = Self {
            before,
            besides: QuickMap::default(),
        };

        let besides = costs.besides(needs, pool, first, template, first)?;
        let mut most = 0;

        for (at, cost) in costs.before.iter_mut().enumerate() {
            *cost = if at == 0 {
                0
            } else {
                (*cost - besides).max(most)
            };
            most = *cost;
        }

        Ok(costs)
    }

    /// Cost of the layers before `layer`.
    fn at(&self, layer: usize) -> i128 {
        self.before.get(layer).copied().unwrap_or(i128::MAX / 4)
    }

    /// What a device of `kind` costs besides its layers: a middle stage of one layer, less that
    /// layer.
    fn besides(
        &mut self,
        needs: &Needs<'_>,
        pool: &Pool<'_>,
        first: usize,
        template: &Split,
        kind: usize,
    ) -> Result<i128, EngineError> {
        if let Some(known) = self.besides.get(&kind) {
            return Ok(*known);
        }

        let layers = template.stages.last().map_or(0, |last| last.end);
        let ends: &[u32] = if layers > 2 {
            &[1, 2, layers]
        } else {
            &[1, layers]
        };

        let stage = figure(
            needs,
            pool,
            (first, kind),
            template,
            ends,
            template.tensor.max(1) as usize,
        )?;
        let besides = stage - (self.at(2) - self.at(1));
        self.besides.insert(kind, besides);

        Ok(besides)
    }
}

/// The high end of what `rank` needs on a device of `kind` when the stages end at `ends`.
fn figure(
    needs: &Needs<'_>,
    pool: &Pool<'_>,
    (first, kind): (usize, usize),
    template: &Split,
    ends: &[u32],
    rank: usize,
) -> Result<i128, EngineError> {
    let ends: Vec<usize> = ends.iter().map(|end| *end as usize).collect();
    let split = Split {
        stages: ranges(&ends),
        ..template.clone()
    };

    let need = match pool.kinds.get(kind) {
        Some(facts) => needs.of_kind((first, kind), &split, rank, facts)?.need.high,
        None => Bytes::OVERFLOW,
    };

    Ok(i128::from(need.get()))
}

/// The ranges that end at `ends`.
fn ranges(ends: &[usize]) -> Vec<std::ops::Range<u32>> {
    let mut start = 0;
    let mut ranges = Vec::with_capacity(ends.len());
    for end in ends {
        let end = u32::try_from(*end).unwrap_or(u32::MAX);
        ranges.push(start..end);
        start = end;
    }

    ranges
}

/// Where the stages end that leave the largest smallest headroom: stage `i` has `room[i]` bytes,
/// and the layers before layer `l` cost `before[l]`.
fn divide(before: &[i128], room: &[i128]) -> Vec<usize> {
    let all = before.last().copied().unwrap_or(0);
    let most = room.iter().copied().min().unwrap_or(0);

    // With `all` more than the tightest has, each stage could take everything: feasible whatever
    // the room.
    let mut best = take(before, room, most - all).unwrap_or_default();

    // No more than the tightest has, and no more than the average leaves.
    let stages = i128::try_from(room.len()).unwrap_or(1).max(1);
    let average = room
        .iter()
        .fold(0_i128, |sum, room| sum.saturating_add(*room))
        .saturating_sub(all)
        .div_euclid(stages);

    let (mut feasible, mut above) = (
        smallest(before, room, &best),
        most.min(average).saturating_add(1),
    );
    while above - feasible > 1 {
        // A division often leaves more than was asked for; where nothing leaves a byte more, it is
        // the best.
        let Some(better) = take(before, room, feasible + 1) else {
            break;
        };

        feasible = smallest(before, room, &better);
        best = better;
        let middle = feasible + (above - feasible) / 2;

        match take(before, room, middle) {
            Some(better) => {
                feasible = smallest(before, room, &better);
                best = better;
            }
            None => above = middle,
        }
    }

    best
}

/// The smallest headroom of a division.
fn smallest(before: &[i128], room: &[i128], ends: &[usize]) -> i128 {
    let cost = |layer: usize| before.get(layer).copied().unwrap_or(0);
    let mut start = 0;
    let left = ends.iter().zip(room).map(|(&end, room)| {
        let left = room - (cost(end) - cost(start));
        start = end;
        left
    });

    left.min().unwrap_or(0)
}

/// Where the stages may end with `headroom` to spare on each, if they can.
///
/// Taking as many layers as go is the answer most often; not where it leaves the next device a
/// layer that is too large for it, for every stage must have a layer. Then all ends that can be
/// reached are followed.
fn take(before: &[i128], room: &[i128], headroom: i128) -> Option<Vec<usize>> {
    let layers = before.len().checked_sub(1)?;
    let furthest = |stage: usize, start: usize| {
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
            start = furthest(stage, start)?;
            Some(start)
        })
        .collect();

    if ends.len() == room.len() {
        return (start == layers).then_some(ends);
    }
    // For each stage, the first start from which each end can be reached.
    let mut reached: Vec<Vec<Option<usize>>> = Vec::with_capacity(room.len());

    for stage in 0..room.len() {
        let mut from = vec![None; layers + 1];
        let mut next = 0;

        for start in 0..=layers {
            let can_start = reached.last().map_or(start == 0, |ends| {
                ends.get(start).is_some_and(Option::is_some)
            });

            if !can_start {
                continue;
            }
            // A later start never ends earlier, so each end is looked at once.
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
    let mut ends = Vec::with_capacity(room.len());
    for reached in reached.iter().rev() {
        ends.push(end);
        end = (*reached.get(end)?)?;
    }

    ends.reverse();
    Some(ends)
}
