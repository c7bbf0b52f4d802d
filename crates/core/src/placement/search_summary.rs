//! The search in short: the best grade and the best placements, without details.
//!
//! Suggestions call it once for each change that they try.

use super::ask::{Ask, PlacementError};
use super::availability::Availability;
use super::needs::Needs;
use super::order::Grade;
use super::pool::Pool;
use super::search::search;
use crate::bytes::Bytes;

/// A placement that fits or is tight, in short.
pub(super) struct FittingPlacement {
    /// UUIDs of its devices.
    pub(super) devices: Vec<String>,
    /// The sum of the high ends of what it needs on them.
    pub(super) required: Bytes,
}

/// The best placement, in short.
#[derive(Clone, Copy)]
pub(super) struct BestGrade {
    /// Whether it fits.
    pub(super) grade: Grade,
    /// The sum of the high ends of what it needs.
    pub(super) required: Bytes,
}

/// The result of a search, in short.
#[derive(Default)]
pub(super) struct SearchSummary {
    best: Option<BestGrade>,
    /// The best placements that fit or are tight, best first.
    pub(super) fitting: Vec<FittingPlacement>,
}

/// Returns the grade and the need of the best placement; `None` if there is no placement.
pub(super) fn grade(
    ask: &Ask<'_>,
    host: &Availability,
) -> Result<Option<BestGrade>, PlacementError> {
    Ok(summarize(ask, host)?.best)
}

/// Finds the best placements of what is asked on what is available on the host.
pub(super) fn summarize(
    ask: &Ask<'_>,
    host: &Availability,
) -> Result<SearchSummary, PlacementError> {
    let ask = &*ask.with_host_context(host);
    let mut pool = Pool::new(host, &ask.constraints, &ask.policy)?;
    if pool.devices.is_empty() {
        return Ok(SearchSummary::default());
    }

    let (mut needs, vetoed) = Needs::new(ask, &pool.kinds, host.host)?;
    pool.veto(&vetoed, host);
    let found = search(&pool, &mut needs)?;

    let fitting = found.fitting.iter().map(|candidate| FittingPlacement {
        devices: candidate
            .places
            .iter()
            .filter_map(|place| pool.devices.get(*place))
            .map(|device| device.source.facts.uuid.clone())
            .collect(),
        required: candidate.required,
    });

    Ok(SearchSummary {
        best: found.first().map(|best| BestGrade {
            grade: best.rank.grade,
            required: best.required,
        }),
        fitting: fitting.collect(),
    })
}
