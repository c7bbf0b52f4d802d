//! Several models at once: all of them, or none.
//!
//! The model that needs most is placed first, each next one on what the others leave, in the order
//! of `order.rs`. Where one finds no room, the last choice before it is taken back and the next
//! best tried, up to a fixed number of choices.

use std::collections::BTreeMap;

use super::ask::{Ask, PlacementError};
use super::availability::Availability;
use super::plan::{Plan, plan};
use super::ways::ways;
use crate::bytes::Bytes;
use crate::device::{DeviceKind, Unusable, UnusableReason};
use crate::report::answer::Verdict;

/// Choices tried before it is said that they do not fit together.
const CHOICES: usize = 256;

/// Whether and how several models fit at once.
#[derive(Clone, Debug)]
pub struct BatchFit {
    /// Fits or tight if all of them do at once, and the worst of them.
    pub verdict: Verdict,
    /// One plan for each question, in the order asked. Where they fit together, each stands beside
    /// the others. Where they do not, each stands on what those before it left, in the order of
    /// their need: the first "no" says what is short.
    pub plans: Vec<Plan>,
    /// Whether there were more choices than were tried, so that a "no" is not proven.
    pub gave_up: bool,
}

/// Whether and how all of `asks` fit on what is available here at once.
pub fn fit_together(asks: &[Ask<'_>], here: &Availability) -> Result<BatchFit, PlacementError> {
    // What one takes away must not change the default context of the next.
    let settled: Vec<Ask<'_>> = asks
        .iter()
        .map(|ask| ask.settled(here).into_owned())
        .collect();
    let asks = &settled[..];
    let mut order = Vec::with_capacity(asks.len());

    for (number, ask) in asks.iter().enumerate() {
        let need = ways(ask, here)?
            .fitting
            .first()
            .map_or(Bytes::OVERFLOW, |way| way.required);
        order.push((std::cmp::Reverse(need), number));
    }

    order.sort_unstable();
    let order: Vec<usize> = order.into_iter().map(|(_, number)| number).collect();
    let mut choices = CHOICES;
    let mut made = Vec::new();
    if !place(asks, &order, here, &mut choices, &mut made)? {
        // Each on what those before it left: the first "no" says what is short.
        made.clear();
        let mut left = here.clone();
        for ask in order.iter().filter_map(|number| asks.get(*number)) {
            let plan = plan(ask, &left)?;
            left = after(left, &plan);
            made.push(plan);
        }
    }

    let verdict = made.iter().map(Plan::verdict).fold(Verdict::Fits, worse);
    let mut plans: Vec<(usize, Plan)> = order.into_iter().zip(made).collect();
    plans.sort_by_key(|(number, _)| *number);
    let plans = plans.into_iter().map(|(_, plan)| plan).collect();

    Ok(BatchFit {
        verdict,
        plans,
        gave_up: verdict == Verdict::DoesNotFit && choices == 0,
    })
}

/// Places the questions of `order` one after another, each beside those before it; whether all of
/// them found room.
fn place(
    asks: &[Ask<'_>],
    order: &[usize],
    here: &Availability,
    choices: &mut usize,
    made: &mut Vec<Plan>,
) -> Result<bool, PlacementError> {
    let Some((&number, rest)) = order.split_first() else {
        return Ok(true);
    };

    let Some(ask) = asks.get(number) else {
        return Ok(false);
    };

    for way in ways(ask, here)?.fitting {
        if *choices == 0 {
            return Ok(false);
        }
        *choices -= 1;

        let mut ask = ask.clone();
        ask.constraints.devices = Some(way.devices);
        let plan = plan(&ask, here)?;
        if plan.verdict() == Verdict::DoesNotFit {
            continue;
        }

        let left = after(here.clone(), &plan);
        made.push(plan);

        if place(asks, rest, &left, choices, made)? {
            return Ok(true);
        }

        made.pop();
    }

    Ok(false)
}

/// What is left once `plan` is carried out, if it can be. A MIG instance takes one model.
fn after(here: Availability, plan: &Plan) -> Availability {
    let Some(placement) = plan
        .recommended
        .as_ref()
        .filter(|it| it.verdict != Verdict::DoesNotFit)
    else {
        return here;
    };

    // What the engine really takes, where that is more than it needs.
    let taken: BTreeMap<String, Bytes> = placement
        .ranks
        .iter()
        .map(|rank| {
            (
                rank.device.uuid.clone(),
                rank.takes
                    .map_or(rank.required.high, |it| it.max(rank.required.high)),
            )
        })
        .collect();

    let host = placement
        .host
        .as_ref()
        .filter(|host| !host.unified)
        .map_or(Bytes::ZERO, |host| host.required.high);

    let mut left = here.after_leasing(&taken);
    for device in &mut left.devices {
        if device.facts.kind == DeviceKind::MigInstance && taken.contains_key(&device.facts.uuid) {
            device.unusable = Some(Unusable {
                reason: UnusableReason::Taken.into(),
                message: "another model of the same question is on this MIG instance".into(),
            });
        }
    }

    if let Some(memory) = &mut left.host {
        memory.available_bytes = memory.available_bytes.less(host).unwrap_or(Bytes::ZERO);
    }

    left
}

fn worse(a: Verdict, b: Verdict) -> Verdict {
    let rank = |verdict| match verdict {
        Verdict::Fits => 0,
        Verdict::Tight => 1,
        Verdict::Unknown => 2,
        Verdict::DoesNotFit => 3,
    };

    if rank(a) >= rank(b) { a } else { b }
}
