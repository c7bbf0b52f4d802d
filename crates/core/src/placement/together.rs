//! Several models at once: all of them, or none.
//!
//! The model that needs most is placed first. Each next one is placed on what the others leave, in
//! the order of `order.rs`. If a model finds no room, the search backtracks: it replaces the last
//! choice by the next best one, up to a fixed number of choices.

use std::collections::BTreeMap;

use super::ask::{Ask, PlacementError};
use super::availability::Availability;
use super::plan::{Plan, plan_default};
use super::search_summary::summarize;
use crate::bytes::Bytes;
use crate::device::{DeviceKind, Unusable, UnusableReason};
use crate::report::answer::Verdict;

/// Choices tried before the answer is that the models do not fit together.
const MAX_CHOICES: usize = 256;

/// A plan for several models at once.
#[derive(Clone, Debug)]
pub struct BatchFit {
    /// The worst verdict of the plans.
    pub verdict: Verdict,
    /// The plans of the questions, in the order asked.
    ///
    /// If the models fit together, the plans hold at the same time. If they do not, each plan uses
    /// what the earlier ones leave, in the order of their need; the first "no" shows what is short.
    pub plans: Vec<Plan>,
    /// Whether choices remained untried, so that a "no" is not proven.
    pub gave_up: bool,
}

/// Plans all of `asks` at once on what is available.
pub fn fit_together(asks: &[Ask<'_>], free: &Availability) -> Result<BatchFit, PlacementError> {
    // The default context of a model must not depend on what the others take.
    let asks: Vec<Ask<'_>> = asks
        .iter()
        .map(|ask| ask.with_host_context(free).into_owned())
        .collect();
    let asks = &asks[..];
    let mut order = Vec::with_capacity(asks.len());

    for (number, ask) in asks.iter().enumerate() {
        let need = summarize(ask, free)?
            .fitting
            .first()
            .map_or(Bytes::OVERFLOW, |best| best.required);
        order.push((std::cmp::Reverse(need), number));
    }

    order.sort_unstable();
    let order: Vec<usize> = order.into_iter().map(|(_, number)| number).collect();
    let mut choices = MAX_CHOICES;
    let mut made = Vec::new();
    if !place_in_order(asks, &order, free, &mut choices, &mut made)? {
        // Each model is planned on what the earlier ones leave: the first "no" shows what is short.
        made.clear();
        let mut left = free.clone();
        for ask in order.iter().filter_map(|number| asks.get(*number)) {
            let plan = plan_default(ask, &left)?;
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

/// Places the questions of `order` one after another, each on what the earlier ones leave; returns
/// whether all of them found room.
fn place_in_order(
    asks: &[Ask<'_>],
    order: &[usize],
    free: &Availability,
    choices: &mut usize,
    made: &mut Vec<Plan>,
) -> Result<bool, PlacementError> {
    let Some((&number, rest)) = order.split_first() else {
        return Ok(true);
    };

    let Some(ask) = asks.get(number) else {
        return Ok(false);
    };

    for fitting in summarize(ask, free)?.fitting {
        if *choices == 0 {
            return Ok(false);
        }
        *choices -= 1;

        let mut ask = ask.clone();
        ask.constraints.devices = Some(fitting.devices);
        let plan = plan_default(&ask, free)?;
        if plan.verdict() == Verdict::DoesNotFit {
            continue;
        }

        let left = after(free.clone(), &plan);
        made.push(plan);

        if place_in_order(asks, rest, &left, choices, made)? {
            return Ok(true);
        }

        made.pop();
    }

    Ok(false)
}

/// Returns what is left after `plan` is carried out; all of it if nothing fits. A MIG instance
/// holds one model.
fn after(free: Availability, plan: &Plan) -> Availability {
    let Some(placement) = plan
        .recommended
        .as_ref()
        .filter(|it| it.verdict != Verdict::DoesNotFit)
    else {
        return free;
    };

    // The engine can take more than it needs.
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

    let mut left = free.after_leasing(&taken);
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

/// Returns the worse of two verdicts.
fn worse(a: Verdict, b: Verdict) -> Verdict {
    if severity(a) >= severity(b) { a } else { b }
}

/// Returns the order of verdicts from good to bad.
fn severity(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Fits => 0,
        Verdict::Tight => 1,
        Verdict::Unknown => 2,
        Verdict::DoesNotFit => 3,
    }
}
