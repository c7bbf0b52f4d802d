//! The search for the least that must stay in host memory so that the rest fits on devices.
//!
//! It runs only if the question allows offload and no placement fits without it.

use super::candidate::SplitNumber;
use super::groups::{ALL_ORDERS, orders};
use super::order::Grade;
use super::pool::Pool;
use super::search_state::{SearchState, numbered};
use crate::device::DeviceKind;
use crate::engines::{EngineError, Offload, Split};

/// Tries every kind of offload on every choice of devices. With many devices, it tries the roomiest
/// of each number.
pub(super) fn search(
    search: &mut SearchState<'_, '_>,
    joined: &[usize],
) -> Result<(), EngineError> {
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
        // Host and device share one pool: moving data to the host saves nothing.
        if places.iter().any(|place| is_unified(search.pool, *place)) {
            continue;
        }

        let legal = search.legal(&places)?;
        for (number, split) in numbered(&legal) {
            let number = SplitNumber { id: None, ..number };
            try_layers(search, number, split, &places, |layers| Offload::Experts {
                layers,
            })?;
            try_layers(search, number, split, &places, |layers| Offload::Layers {
                layers,
            })?;

            for offload in [Offload::Components, Offload::Leaves] {
                let split = Split {
                    offload,
                    ..split.clone()
                };
                if search.is_legal(&split, &places)? {
                    search.judge(number, &split, &places)?;
                }
            }
        }
    }

    Ok(())
}

/// Whether the device shares one memory pool with the host.
fn is_unified(pool: &Pool<'_>, place: usize) -> bool {
    pool.devices
        .get(place)
        .is_some_and(|it| it.source.facts.kind == DeviceKind::UnifiedMemory)
}

/// Finds the fewest layers of one kind of offload with which the rest fits on the devices.
fn try_layers(
    search: &mut SearchState<'_, '_>,
    number: SplitNumber,
    split: &Split,
    places: &[usize],
    offload: impl Fn(u32) -> Offload,
) -> Result<(), EngineError> {
    let with_offload = |layers: u32| Split {
        offload: offload(layers),
        ..split.clone()
    };

    let all = split.stages.last().map_or(0, |last| last.end);
    if all == 0 || !search.is_legal(&with_offload(1), places)? {
        return Ok(());
    }

    let mut most = all;
    while most > 1 && !search.is_legal(&with_offload(most), places)? {
        most -= 1;
    }

    for wanted in [Grade::Fits, Grade::Tight] {
        if search.grade_on_devices(number, &with_offload(most), places)? > wanted {
            continue;
        }

        let (mut short, mut enough) = (0, most);
        while enough - short > 1 {
            let middle = short + (enough - short) / 2;
            if search.grade_on_devices(number, &with_offload(middle), places)? <= wanted {
                enough = middle;
            } else {
                short = middle;
            }
        }
        // If the host cannot hold that much, fewer layers may still be tight on the devices.
        if search.judge(number, &with_offload(enough), places)? <= wanted {
            return Ok(());
        }
    }

    search.judge(number, &with_offload(most), places)?;
    Ok(())
}

impl SearchState<'_, '_> {
    /// Whether the engine accepts `split` on these devices.
    fn is_legal(&self, split: &Split, places: &[usize]) -> Result<bool, EngineError> {
        let first = self.pool.first_kind(places);
        Ok(self.needs.prepared(first)?.check(split).is_ok())
    }

    /// Returns whether `split` fits on the devices, without regard to host memory.
    fn grade_on_devices(
        &mut self,
        number: SplitNumber,
        split: &Split,
        places: &[usize],
    ) -> Result<Grade, EngineError> {
        let candidate = self.candidate(number, split, places)?;
        Ok(candidate.on_devices)
    }
}
