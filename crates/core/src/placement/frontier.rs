//! The frontier of a placement: the largest context for each number of sequences.

use super::ask::{Ask, PlacementError};
use super::placed::Placement;
use super::workload_limits::WorkloadLimits;
use crate::device::HostMemory;
use crate::engines::AskedContext;
use crate::report::answer::FrontierPoint;

/// Returns the largest context that fits on `placement` for 1, 2, 4, ... sequences.
pub fn frontier(
    ask: &Ask<'_>,
    placement: &Placement,
    host: Option<HostMemory>,
) -> Result<Vec<FrontierPoint>, PlacementError> {
    let Some(first) = placement.ranks.first() else {
        return Ok(Vec::new());
    };

    let mut ask = ask.clone();
    ask.asked.context = Some(AskedContext::Tokens(placement.workload.context));
    let ask = &ask;
    let prepared = ask.prepare(&first.device)?;

    let devices = placement
        .ranks
        .iter()
        .map(|rank| (&rank.device, rank.available));

    Ok(WorkloadLimits::new((ask, &*prepared), &placement.split, devices, host)?.frontier()?)
}
