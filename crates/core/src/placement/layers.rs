//! The number of layers of each stage, for engines that accept any number.
//!
//! The division leaves the tightest device the most room. The engine computes the cost of each
//! layer once, and the base cost of each kind of device. `stage_division.rs` finds the optimum for
//! those figures. The engine then computes the need of that division. It can differ from the
//! figures (a buffer that follows the largest layer, a rounded share). The difference is charged to
//! the device, and the division is repeated.

use std::collections::hash_map::Entry;

use rustc_hash::FxHashMap;

use super::needs::Needs;
use super::pool::Pool;
use super::stage_division::{divide, ranges};
use crate::bytes::Bytes;
use crate::engines::{EngineError, Split};

/// Maximum number of corrections of a division by the engine's figures.
const MAX_CORRECTIONS: usize = 3;

/// Tensor degree, and what stays on the host.
type TensorAndOffload = (u32, (u8, u32));

/// Costs of layers, by kind of the first device, tensor degree and what stays on the host.
#[derive(Default)]
pub(super) struct LayerCosts {
    known: FxHashMap<(usize, u32, (u8, u32)), Costs>,
    /// The engine's figures for the layers. They are usually the same for every kind of first
    /// device.
    before: FxHashMap<TensorAndOffload, Vec<Vec<i128>>>,
}

struct Costs {
    /// Cost of all layers before each one, without the base cost of a device; never falling.
    before: Vec<i128>,
    /// The base cost of each kind of device.
    base: FxHashMap<usize, i128>,
}

impl LayerCosts {
    /// Returns `template` with its stages divided for `places`; `None` if there are fewer layers
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
                slot.insert(Costs::new(needs, pool, first.kind, template, alike)?)
            }
        };

        let tensor = template.tensor.max(1) as usize;
        let mut room = Vec::with_capacity(stages);

        for group in places.chunks(tensor) {
            let mut least = i128::MAX;
            for device in group.iter().filter_map(|place| pool.devices.get(*place)) {
                let base = costs.base(needs, pool, first.kind, template, device.kind)?;
                least = least.min(i128::from(device.available.get()) - base);
            }
            room.push(least);
        }

        let mut best: Option<(i128, Split)> = None;
        let mut ends_before = Vec::new();
        for _ in 0..MAX_CORRECTIONS {
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
                let expected = *room - (costs.cost_before(end) - costs.cost_before(start));
                let mut actual = i128::MAX;

                for rank in stage * tensor..(stage + 1) * tensor {
                    let Some(&place) = places.get(rank) else {
                        continue;
                    };
                    let Some(device) = pool.devices.get(place) else {
                        continue;
                    };
                    let claim = needs.of(first.kind, &split, rank, pool, place)?;
                    actual = actual.min(claim.left(device.available));
                }

                headroom = headroom.min(actual);
                corrected |= actual != expected;
                *room += actual - expected;
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
    /// Computes the costs for a first device of kind `first`.
    ///
    /// `alike` holds the figures for other kinds of first devices and the same number of layers. If
    /// the difference to one of them is the same at four layers, it is assumed to be the same at
    /// all. The corrections catch the rest.
    fn new(
        needs: &Needs<'_>,
        pool: &Pool<'_>,
        first: usize,
        template: &Split,
        alike: &mut Vec<Vec<i128>>,
    ) -> Result<Self, EngineError> {
        let layers = template.stages.last().map_or(0, |last| last.end);
        let need_up_to = |end: u32| {
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
            let difference_at = |end: u32| -> Result<i128, EngineError> {
                Ok(need_up_to(end)? - other.get(end as usize).copied().unwrap_or(i128::MAX / 4))
            };

            let [first, half, most, all] = probes.map(difference_at);
            let first = first?;

            if first == half? && first == most? && first == all? {
                known = Some(
                    other
                        .iter()
                        .enumerate()
                        .map(|(layer, cost)| if layer == 0 { 0 } else { cost + first })
                        .collect(),
                );
                break;
            }
        }

        let before: Vec<i128> = if let Some(known) = known {
            known
        } else {
            let figures = std::iter::once(Ok(0))
                .chain((1..=layers).map(need_up_to))
                .collect::<Result<Vec<_>, _>>()?;
            alike.push(figures.clone());
            figures
        };

        let mut costs = Self {
            before,
            base: FxHashMap::default(),
        };

        let base = costs.base(needs, pool, first, template, first)?;
        let mut most = 0;

        for (layer, cost) in costs.before.iter_mut().enumerate() {
            *cost = if layer == 0 {
                0
            } else {
                (*cost - base).max(most)
            };
            most = *cost;
        }

        Ok(costs)
    }

    /// Returns the cost of the layers before `layer`.
    fn cost_before(&self, layer: usize) -> i128 {
        self.before.get(layer).copied().unwrap_or(i128::MAX / 4)
    }

    /// Returns the base cost of a device of `kind`: a middle stage of one layer, less that layer.
    fn base(
        &mut self,
        needs: &Needs<'_>,
        pool: &Pool<'_>,
        first: usize,
        template: &Split,
        kind: usize,
    ) -> Result<i128, EngineError> {
        if let Some(known) = self.base.get(&kind) {
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
        let base = stage - (self.cost_before(2) - self.cost_before(1));
        self.base.insert(kind, base);

        Ok(base)
    }
}

/// Returns the high end of what `rank` needs on a device of `kind` if the stages end at `ends`.
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
