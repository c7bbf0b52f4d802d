//! Waiting for memory that is already on its way out.

use std::collections::BTreeMap;

use crate::bytes::Bytes;
use crate::placement::ask::Ask;
use crate::placement::availability::Availability;
use crate::placement::order::Grade;
use crate::placement::ways::grade;
use crate::report::answer::Verdict;

/// A rate is not followed further than this.
const LONGEST_SECONDS: u64 = 60;

/// Seconds until it fits if memory goes on coming free at `rates` (bytes a second, by UUID), and
/// the verdict then; `None` where it would not even after a minute.
pub fn wait(
    ask: &Ask<'_>,
    here: &Availability,
    rates: &BTreeMap<String, Bytes>,
) -> Option<(u64, Verdict)> {
    if rates.is_empty() {
        return None;
    }

    let after = |seconds: u64| {
        let freed = rates
            .iter()
            .map(|(uuid, rate)| (uuid.clone(), *rate * seconds))
            .collect();
        let (grade, ..) = grade(ask, &here.clone().after_freeing(&freed))
            .ok()
            .flatten()?;
        (grade < Grade::No).then_some(grade)
    };

    let mut then = after(LONGEST_SECONDS)?;
    let (mut short, mut enough) = (0, LONGEST_SECONDS);
    while enough - short > 1 {
        let middle = short + (enough - short) / 2;
        match after(middle) {
            Some(grade) => (enough, then) = (middle, grade),
            None => short = middle,
        }
    }

    Some((enough, then.verdict()))
}
