//! Groups of devices to try together, and their order as ranks.
//!
//! Up to [`ALL_ORDERS`] devices, every ordered choice is tried, so the result is optimal. Beyond
//! that, the choices are windows over devices sorted by the room they leave, inside every domain
//! (all devices, one kind, one island of a link kind, one kind of one island). With equal shares,
//! the window of the roomiest devices fits if any choice does.

use std::collections::BTreeSet;

use super::pool::Pool;
use crate::bytes::Bytes;
use crate::device::LinkKind;
use crate::engines::Split;

/// Up to this many devices, every ordered choice is tried: 64 of them.
pub(super) const ALL_ORDERS: usize = 4;
/// Maximum number of domains. A host with more islands is searched only in part.
const MAX_DOMAINS: usize = 32;

/// Returns every ordered choice of `count` of `places`, in lexicographic order.
pub(super) fn orders(places: &[usize], count: usize) -> Vec<Vec<usize>> {
    let mut found = vec![Vec::new()];
    for _ in 0..count {
        let mut longer = Vec::new();
        for order in &found {
            for &place in places {
                if !order.contains(&place) {
                    let mut next: Vec<usize> = order.clone();
                    next.push(place);
                    longer.push(next);
                }
            }
        }

        found = longer;
    }

    found
}

/// Returns the sets of devices that share a link level or a kind, the whole pool first.
pub(super) fn domains(pool: &Pool<'_>) -> Vec<Vec<usize>> {
    let all: Vec<usize> = (0..pool.devices.len())
        .filter(|place| pool.joins(*place))
        .collect();
    let mut seen = BTreeSet::new();
    let mut domains = Vec::new();
    let mut add_domain = |domain: Vec<usize>| {
        if domain.len() > 1 && domains.len() < MAX_DOMAINS && seen.insert(domain.clone()) {
            domains.push(domain);
        }
    };

    let levels = [
        LinkKind::System,
        LinkKind::NumaNode,
        LinkKind::HostBridge,
        LinkKind::PcieSwitch,
        LinkKind::Fabric,
    ];
    for level in levels {
        for island in islands(pool, &all, level) {
            for kind in 0..pool.kinds.len() {
                let mut alike = island.clone();
                alike.retain(|place| pool.kind_of(*place) == Some(kind));
                add_domain(alike);
            }
            add_domain(island);
        }
    }

    domains
}

/// Divides `places` into islands joined, directly or over others, by links no worse than `level`.
pub(super) fn islands(pool: &Pool<'_>, places: &[usize], level: LinkKind) -> Vec<Vec<usize>> {
    let mut left: Vec<usize> = places.to_vec();
    let mut islands = Vec::new();

    while let Some(start) = left.first().copied() {
        let mut island = vec![start];
        left.remove(0);
        let mut next = 0;
        while let Some(&from) = island.get(next) {
            let (near, far): (Vec<usize>, Vec<usize>) =
                left.iter().partition(|to| pool.link(from, **to) <= level);
            island.extend(near);
            left = far;
            next += 1;
        }

        island.sort_unstable();
        islands.push(island);
    }

    islands
}

/// Returns the windows of `count` devices over `domain` sorted by `room`, the roomiest first.
pub(super) fn windows(
    domain: &[usize],
    count: usize,
    room: impl Fn(usize) -> i128,
) -> Vec<Vec<usize>> {
    let mut sorted: Vec<(i128, usize)> =
        domain.iter().map(|place| (-room(*place), *place)).collect();
    sorted.sort_unstable();

    sorted
        .windows(count)
        .map(|window| window.iter().map(|(_, place)| *place).collect())
        .collect()
}

/// Returns the windows of `stages` tensor groups, each inside one island and of one kind, the
/// roomiest first; one list for each kind of link that makes islands of that size.
pub(super) fn island_windows(
    pool: &Pool<'_>,
    domain: &[usize],
    (tensor, stages): (usize, usize),
    room: impl Fn(usize) -> i128,
) -> Vec<Vec<Vec<usize>>> {
    let mut found = Vec::new();
    for level in [
        LinkKind::Fabric,
        LinkKind::PcieSwitch,
        LinkKind::HostBridge,
        LinkKind::NumaNode,
    ] {
        let mut groups: Vec<(i128, Vec<usize>)> = Vec::new();
        for island in islands(pool, domain, level) {
            for kind in 0..pool.kinds.len() {
                let mut alike = island.clone();
                alike.retain(|place| pool.kind_of(*place) == Some(kind));
                alike.sort_by_key(|place| (-room(*place), *place));
                groups.extend(alike.chunks_exact(tensor.max(1)).map(|group| {
                    let least = group.iter().map(|place| room(*place)).min();
                    (-least.unwrap_or(i128::MIN + 1), group.to_vec())
                }));
            }
        }

        groups.sort();
        let windows: Vec<Vec<usize>> = groups
            .windows(stages)
            .map(|window| window.iter().flat_map(|(_, group)| group.clone()).collect())
            .collect();

        if !windows.is_empty() && !found.contains(&windows) {
            found.push(windows);
        }
    }

    found
}

/// Returns `places` with interchangeable devices in the order of their UUIDs.
pub(super) fn alike_by_uuid(pool: &Pool<'_>, places: &[usize]) -> Vec<usize> {
    let mut left: Vec<usize> = places.to_vec();
    left.sort_unstable();
    let mut sorted = Vec::with_capacity(places.len());

    for &place in places {
        let Some(index) = left
            .iter()
            .position(|other| traits(pool, *other) == traits(pool, place))
        else {
            continue;
        };
        sorted.push(left.remove(index));
    }

    sorted
}

/// Returns all that distinguishes a device besides its UUID: kind, available bytes, preference.
fn traits(pool: &Pool<'_>, place: usize) -> Option<(usize, Bytes, usize)> {
    pool.devices
        .get(place)
        .map(|it| (it.kind, it.available, it.preference))
}

/// Returns the orders of ranks in which to try `window` (roomiest first) for `split`, the most
/// likely first; only that one unless `thorough`. `stage_needs` holds the need of each stage.
pub(super) fn arrangements(
    pool: &Pool<'_>,
    split: &Split,
    window: &[usize],
    stage_needs: &[i128],
    thorough: bool,
) -> Vec<Vec<usize>> {
    let tensor = split.tensor.max(1) as usize;
    let available_on = |place: &usize| pool.devices.get(*place).map(|it| it.available);

    // Tensor groups inside one island and of one kind, if the window allows it.
    let mut grouped = window.to_vec();
    if tensor > 1 {
        let islands = islands(pool, window, LinkKind::Fabric);
        let island_of = |place: usize| islands.iter().position(|island| island.contains(&place));
        grouped.sort_by_key(|place| (island_of(*place), pool.kind_of(*place)));
    }

    let mut groups: Vec<&[usize]> = grouped.chunks(tensor).collect();
    let by_uuid: Vec<usize> = groups.concat();

    // The stage that needs most goes to the group that has most.
    groups.sort_by_key(|group| std::cmp::Reverse(group.iter().filter_map(available_on).min()));
    let mut stages: Vec<usize> = (0..groups.len()).collect();
    stages.sort_by_key(|stage| std::cmp::Reverse(stage_needs.get(*stage).copied()));
    let mut matched: Vec<&[usize]> = vec![&[]; groups.len()];
    for (group, stage) in groups.iter().zip(&stages) {
        if let Some(slot) = matched.get_mut(*stage) {
            *slot = group;
        }
    }

    let matched = matched.concat();
    if !thorough {
        return vec![matched];
    }

    let mut backwards = groups.clone();
    backwards.reverse();
    let mut orders = vec![matched, groups.concat(), backwards.concat(), by_uuid];

    if tensor == 1 {
        let mut plain = window.to_vec();
        plain.sort_unstable();
        orders.push(plain);
    }

    let mut seen = BTreeSet::new();
    orders.retain(|order| seen.insert(order.clone()));

    orders
}
