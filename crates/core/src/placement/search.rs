//! The search through every legal placement: numbers of devices, splits, devices and their order.

use std::collections::{BTreeMap, HashSet};

use super::candidate::SplitNumber;
use super::found::Found;
use super::groups::{
    ALL_ORDERS, alike_by_uuid, arrangements, domains, island_windows, orders, windows,
};
use super::needs::Needs;
use super::offload;
use super::order::{Form, Grade};
use super::pool::Pool;
use super::search_state::{SearchState, numbered};
use super::wires::Wires;
use crate::engines::{EngineError, Split};

/// Finds the best placements of what `needs` asks on `pool`.
pub(super) fn search<'a>(pool: &Pool<'a>, needs: &mut Needs<'a>) -> Result<Found, EngineError> {
    let mut state = SearchState::new(pool, needs);
    let joined: Vec<usize> = (0..pool.devices.len())
        .filter(|place| pool.joins(*place))
        .collect();
    try_single_devices(&mut state)?;

    for count in 2..=joined.len() {
        if joined.len() <= ALL_ORDERS {
            try_all_orders(&mut state, &joined, count)?;
        } else {
            try_roomiest(&mut state, &joined, count)?;
        }
    }

    if state.needs.ask.constraints.offload && state.found.grade() > Grade::Fits {
        offload::search(&mut state, &joined)?;
    }

    Ok(state.found)
}

/// Tries every device by itself.
fn try_single_devices(state: &mut SearchState<'_, '_>) -> Result<(), EngineError> {
    for place in 0..state.pool.devices.len() {
        let legal = state.legal(&[place])?;
        for (number, split) in numbered(&legal) {
            state.judge(number, split, &[place])?;
        }
    }

    Ok(())
}

/// Tries every ordered choice of `count` of `joined`.
fn try_all_orders(
    state: &mut SearchState<'_, '_>,
    joined: &[usize],
    count: usize,
) -> Result<(), EngineError> {
    let mut seen = HashSet::new();
    for places in orders(joined, count) {
        let legal = state.legal(&places)?;
        for (number, split) in numbered(&legal) {
            let wires = Wires::new(state.pool, split, &places);

            // If orders differ only in UUIDs, the first one has the lower UUIDs.
            let looks: Vec<_> = places
                .iter()
                .filter_map(|place| state.pool.devices.get(*place))
                .map(|it| (it.kind, it.available, it.preference))
                .collect();

            if seen.insert((number.id, wires, looks)) {
                state.judge(number, split, &places)?;
            }
        }
    }

    Ok(())
}

/// Tries the roomiest `count` of all devices, and other choices only if they can be better.
///
/// Less roomy devices fit no better. So the other choices matter only if the roomiest fit, and if
/// no placement that fits on fewer devices ranks before them whatever their form.
fn try_roomiest(
    state: &mut SearchState<'_, '_>,
    joined: &[usize],
    count: usize,
) -> Result<(), EngineError> {
    let before = state
        .found
        .first()
        .map(|best| (best.rank.grade, best.rank.form));
    let processes = state
        .needs
        .prepared(state.pool.first_kind(joined))?
        .ranks_are_processes();
    let sample: Vec<usize> = joined.iter().copied().take(count).collect();
    let mut domains_known = None;
    let legal = state.legal(&sample)?;

    for (number, split) in numbered(&legal) {
        let found_before = before.is_some_and(|(grade, form)| {
            grade == Grade::Fits && form <= Form::at_best(split, processes)
        });
        let rooms = rooms(state, split, joined, found_before)?;
        let room_on = |place: usize| rooms.get(&place).copied().unwrap_or(i128::MIN + 1);
        let Some(roomiest) = windows(joined, count, room_on).into_iter().next() else {
            continue;
        };

        let grade = try_window(state, number, split, &roomiest, !found_before)?;
        if grade > Grade::Fits || found_before {
            continue;
        }

        let domains = domains_known.get_or_insert_with(|| domains(state.pool));
        for domain in domains.iter().filter(|domain| domain.len() >= count) {
            let mut choices = vec![windows(domain, count, room_on)];
            if split.tensor > 1 && split.stages.len() > 1 {
                let groups = (split.tensor as usize, split.stages.len());
                choices.extend(island_windows(state.pool, domain, groups, room_on));
            }
            for choice in choices {
                try_while_fitting(state, number, split, choice)?;
            }
        }
    }

    Ok(())
}

/// Tries windows, roomiest first, up to the first that does not fit. No later window fits.
fn try_while_fitting(
    state: &mut SearchState<'_, '_>,
    number: SplitNumber,
    split: &Split,
    windows: Vec<Vec<usize>>,
) -> Result<(), EngineError> {
    for window in windows {
        if try_window(state, number, split, &window, true)? > Grade::Fits {
            break;
        }
    }
    Ok(())
}

/// Returns the bytes that each device of `domain` leaves after an average rank of `split`; if
/// `roughly`, the bytes that are available on it.
fn rooms(
    state: &SearchState<'_, '_>,
    split: &Split,
    domain: &[usize],
    roughly: bool,
) -> Result<BTreeMap<usize, i128>, EngineError> {
    let mut rooms = BTreeMap::new();
    let first = state.pool.first_kind(domain);

    for &place in domain {
        let Some(device) = state.pool.devices.get(place) else {
            continue;
        };

        let room = if roughly {
            i128::from(device.available.get())
        } else {
            state
                .needs
                .of(first, split, 0, state.pool, place)?
                .left(device.available)
        };

        rooms.insert(place, room);
    }

    Ok(rooms)
}

/// Tries `window` in its likely orders, or without `thorough` only in the most likely one; returns
/// the best grade.
fn try_window(
    state: &mut SearchState<'_, '_>,
    number: SplitNumber,
    split: &Split,
    window: &[usize],
    thorough: bool,
) -> Result<Grade, EngineError> {
    let stage_needs = state.stage_needs(split, window)?;
    let layers = split
        .stages
        .last()
        .map_or(1, |last| i128::from(last.end.max(1)));
    let mut best = Grade::No;

    for places in arrangements(state.pool, split, window, &stage_needs, thorough) {
        let plain = alike_by_uuid(state.pool, &places);
        let same_wires =
            Wires::new(state.pool, split, &plain) == Wires::new(state.pool, split, &places);
        let places = if same_wires { plain } else { places };
        let candidate = state.candidate(number, split, &places)?;
        let rank = &candidate.rank;
        best = best.min(rank.grade);

        // Another order moves a layer or two. It does not help if more bytes are missing.
        let hopeless = -rank.headroom.0 > 2 * i128::from(candidate.required.get()) / layers;
        state.keep(candidate)?;

        if !thorough || hopeless || split.stages.len() == 1 || best == Grade::Fits {
            break;
        }
    }

    Ok(best)
}
