//! What may stay in host memory when it is allowed and nothing else fits: the least that lets the
//! rest fit.

use super::groups::{ALL_ORDERS, orders};
use super::order::Grade;
use super::search::{Search, splits};
use crate::device::DeviceKind;
use crate::engines::{EngineError, Offload, Split};

/// Tries every kind of offload, on every choice of devices (or, with many devices, on the roomiest
/// of each number).
pub(super) fn search(search: &mut Search<'_, '_>, joined: &[usize]) -> Result<(), EngineError> {
    let mut choices: Vec<Vec<usize>> = (0..search.pool.devices.len())
        .map(|place| vec![place])
        .collect();
    if joined.len() <= ALL_ORDERS {
        for count in 2..=joined.len() {
            choices.extend(orders(joined, count));
        }
    } else {
        let mut roomiest = joined.to_vec();
        roomiest.sort_by_key(|place| (std::cmp::Reverse(search.available(*place)), *place));
        choices
            .extend((2..=joined.len()).map(|count| roomiest.iter().take(count).copied().collect()));
    }

    for places in choices {
        // Host and device are one pool there: what is moved is moved nowhere.
        let unified = |place: &usize| {
            search
                .pool
                .devices
                .get(*place)
                .is_some_and(|it| it.source.facts.kind == DeviceKind::UnifiedMemory)
        };

        if places.iter().any(unified) {
            continue;
        }

        let legal = search.legal(&places)?;
        for (engine_order, (_, split)) in splits(&legal).iter().enumerate() {
            by_layers(search, engine_order, split, &places, |layers| {
                Offload::Experts { layers }
            })?;
            by_layers(search, engine_order, split, &places, |layers| {
                Offload::Layers { layers }
            })?;

            for offload in [Offload::Components, Offload::Leaves] {
                let split = Split {
                    offload,
                    ..split.clone()
                };
                if search.is_legal(&split, &places)? {
                    search.judge((None, engine_order), &split, &places)?;
                }
            }
        }
    }

    Ok(())
}

/// The fewest layers of one kind of offload with which the devices hold the rest.
fn by_layers(
    search: &mut Search<'_, '_>,
    engine_order: usize,
    split: &Split,
    places: &[usize],
    offload: impl Fn(u32) -> Offload,
) -> Result<(), EngineError> {
    let with = |layers: u32| Split {
        offload: offload(layers),
        ..split.clone()
    };

    let all = split.stages.last().map_or(0, |last| last.end);
    if all == 0 || !search.is_legal(&with(1), places)? {
        return Ok(());
    }

    let mut most = all;
    while most > 1 && !search.is_legal(&with(most), places)? {
        most -= 1;
    }

    for wanted in [Grade::Fits, Grade::Tight] {
        if search.on_devices(engine_order, &with(most), places)? > wanted {
            continue;
        }

        let (mut short, mut enough) = (0, most);
        while enough - short > 1 {
            let middle = short + (enough - short) / 2;
            if search.on_devices(engine_order, &with(middle), places)? <= wanted {
                enough = middle;
            } else {
                short = middle;
            }
        }
        // Where the host can not take that much, less of it may still be tight on the devices.
        if search.judge((None, engine_order), &with(enough), places)? <= wanted {
            return Ok(());
        }
    }

    search.judge((None, engine_order), &with(most), places)?;
    Ok(())
}

impl Search<'_, '_> {
    fn is_legal(&self, split: &Split, places: &[usize]) -> Result<bool, EngineError> {
        let first = places
            .first()
            .and_then(|place| self.pool.devices.get(*place))
            .map_or(usize::MAX, |it| it.kind);
        Ok(self.needs.prepared(first)?.check(split).is_ok())
    }

    /// How `split` goes into the devices alone.
    fn on_devices(
        &mut self,
        engine_order: usize,
        split: &Split,
        places: &[usize],
    ) -> Result<Grade, EngineError> {
        let candidate = self.weigh((None, engine_order), split, places)?;
        Ok(candidate.on_devices)
    }
}
