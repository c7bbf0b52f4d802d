//! Waiting for memory that is already being released.

use std::collections::BTreeMap;

use crate::bytes::Bytes;
use crate::placement::ask::Ask;
use crate::placement::availability::Availability;
use crate::placement::order::Grade;
use crate::placement::search_summary::grade;
use crate::report::answer::Verdict;

/// The longest time over which a rate is extrapolated.
const MAX_SECONDS: u64 = 60;

/// Returns the seconds until the model fits, and the verdict then, if memory continues to become
/// free at `rates` (bytes a second, by UUID). `None` if it does not fit after a minute.
pub fn wait(
    ask: &Ask<'_>,
    host: &Availability,
    rates: &BTreeMap<String, Bytes>,
) -> Option<(u64, Verdict)> {
    if rates.is_empty() {
        return None;
    }

    let mut verdict = verdict_after(ask, host, rates, MAX_SECONDS)?;
    let (mut short, mut enough) = (0, MAX_SECONDS);
    while enough - short > 1 {
        let middle = short + (enough - short) / 2;
        match verdict_after(ask, host, rates, middle) {
            Some(found) => (enough, verdict) = (middle, found),
            None => short = middle,
        }
    }

    Some((enough, verdict))
}

/// Returns the verdict after `seconds`, if the model then fits at least tightly.
fn verdict_after(
    ask: &Ask<'_>,
    host: &Availability,
    rates: &BTreeMap<String, Bytes>,
    seconds: u64,
) -> Option<Verdict> {
    let freed = rates
        .iter()
        .map(|(uuid, rate)| (uuid.clone(), *rate * seconds))
        .collect();
    let best = grade(ask, &host.clone().after_freeing(&freed))
        .ok()
        .flatten()?;
    (best.grade < Grade::No).then(|| best.grade.verdict())
}
