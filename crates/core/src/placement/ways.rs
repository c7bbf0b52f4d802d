//! The search without the details: what is asked again and again when changes are tried.

use super::ask::{Ask, PlacementError};
use super::availability::Availability;
use super::needs::Needs;
use super::order::Grade;
use super::pool::Pool;
use super::search::Search;
use crate::bytes::Bytes;

/// One way, in short.
pub(super) struct Way {
    /// UUIDs of its devices.
    pub(super) devices: Vec<String>,
    /// The high ends of what it needs on them, summed.
    pub(super) required: Bytes,
}

/// What the search came to.
#[derive(Default)]
pub(super) struct Ways {
    /// Grade, need and number of devices of the best way.
    best: Option<(Grade, Bytes, usize)>,
    /// The best that fit or are tight, best first.
    pub(super) fitting: Vec<Way>,
}

/// Grade, need and number of devices of the best way; `None` where there is no way.
pub(super) fn grade(
    ask: &Ask<'_>,
    here: &Availability,
) -> Result<Option<(Grade, Bytes, usize)>, PlacementError> {
    Ok(ways(ask, here)?.best)
}

/// The best ways of placing what is asked on what is available here.
pub(super) fn ways(ask: &Ask<'_>, here: &Availability) -> Result<Ways, PlacementError> {
    let ask = &*ask.settled(here);
    let mut pool = Pool::new(here, &ask.constraints, &ask.policy)?;
    if pool.devices.is_empty() {
        return Ok(Ways::default());
    }

    let (mut needs, vetoed) = Needs::new(ask, &pool.kinds, here.host)?;
    pool.veto(&vetoed, here);
    let found = Search::run(&pool, &mut needs)?;

    let uuid = |place: &usize| {
        pool.devices
            .get(*place)
            .map(|it| it.source.facts.uuid.clone())
    };

    let fitting = found.fitting.iter().map(|it| Way {
        devices: it.places.iter().filter_map(uuid).collect(),
        required: it.required,
    });

    Ok(Ways {
        best: found
            .first()
            .map(|it| (it.standing.grade, it.required, it.places.len())),
        fitting: fitting.collect(),
    })
}
