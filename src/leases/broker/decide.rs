//! One asker's case: plan on the reading, take a place in line, promise.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::Snapshot;
use hf_mem_core::report::answer::{Answer, DeviceShare, Verdict};
use hf_mem_core::report::problem::{Problem, Reason};

use super::grant_command::Plan;
use crate::leases::attribution::HolderReading;
use crate::leases::ledger::Ledger;

/// Bytes that leases claim in a reading, by device.
pub(super) fn claims(ledger: &Ledger, reading: &HolderReading<'_>) -> BTreeMap<String, Bytes> {
    let accounts = ledger.available(reading).into_iter();
    accounts
        .map(|(uuid, account)| (uuid, account.leased_bytes))
        .collect()
}

/// Runs an asker's plan. A plan that breaks costs its asker the answer, and nobody the ledger.
pub(super) fn run(
    plan: &Plan,
    snapshot: &Snapshot,
    claims: &BTreeMap<String, Bytes>,
) -> Result<Answer, Problem> {
    catch_unwind(AssertUnwindSafe(|| plan(snapshot, claims))).unwrap_or_else(|_| {
        Err(Problem::new(
            Reason::Internal,
            "working out the placement broke; see the log",
        ))
    })
}

/// Whether an answer is a yes that can be held; with `strict`, "tight" is not.
pub(super) fn is_yes(answer: &Answer, strict: bool) -> bool {
    let yes = match answer.verdict {
        Some(Verdict::Fits) => true,
        Some(Verdict::Tight) => !strict,
        _ => false,
    };
    yes && answer.placement.is_some()
}

/// Whether an answer is a no that memory coming free may turn into a yes.
pub(super) fn may_turn(answer: &Answer, strict: bool) -> bool {
    match answer.verdict {
        Some(Verdict::DoesNotFit) => true,
        Some(Verdict::Tight) => strict,
        _ => false,
    }
}

/// A "tight" that is not held because the asker was strict; other answers stay as they are.
pub(super) fn not_held(mut answer: Answer, strict: bool) -> Answer {
    if strict && answer.verdict == Some(Verdict::Tight) {
        answer.message = format!(
            "{}; no lease is held: a strict request needs the high end",
            answer.message
        );
    }

    answer
}

/// Whether the plan would work out were nothing on the devices in use: only then does waiting help.
pub(super) fn could_ever(plan: &Plan, snapshot: &Snapshot, strict: bool) -> bool {
    let mut idle = snapshot.clone();
    for device in &mut idle.devices {
        // What is not usable or not readable now is not waited for.
        if device.free_bytes.is_some() && device.unusable.is_none() {
            let most = device
                .facts
                .cuda_total()
                .unwrap_or(device.facts.total_bytes);
            device.free_bytes = device.free_bytes.max(Some(most));
            device.used_bytes = Some(Bytes::ZERO);
            device.processes.clear();
        }
    }

    run(plan, &idle, &BTreeMap::new()).is_ok_and(|answer| is_yes(&answer, strict))
}

/// The devices that an asker's names mean, exact or by their beginning; `None`: any, also where a
/// name means none here.
pub(super) fn candidates(
    names: Option<&BTreeSet<String>>,
    snapshot: &Snapshot,
) -> Option<BTreeSet<String>> {
    let uuids = || snapshot.devices.iter().map(|device| &device.facts.uuid);
    let mut candidates = BTreeSet::new();
    for name in names? {
        let known = candidates.len();
        candidates.extend(
            uuids()
                .filter(|uuid| !name.is_empty() && uuid.starts_with(name.as_str()))
                .cloned(),
        );

        if candidates.len() == known && !candidates.contains(name) {
            return None;
        }
    }

    (!candidates.is_empty()).then_some(candidates)
}

/// The claims, with the devices closed on which one ahead in line has precedence.
pub(super) fn with_closed(
    claims: &BTreeMap<String, Bytes>,
    closed: &BTreeSet<String>,
    snapshot: &Snapshot,
) -> BTreeMap<String, Bytes> {
    let mut claims = claims.clone();
    for device in snapshot
        .devices
        .iter()
        .filter(|device| closed.contains(&device.facts.uuid))
    {
        let whole = device
            .free_bytes
            .unwrap_or(device.facts.total_bytes)
            .max(device.facts.total_bytes);
        let claim = claims
            .entry(device.facts.uuid.clone())
            .or_insert(Bytes::ZERO);
        *claim = (*claim).max(whole);
    }

    claims
}

/// Returns what to grant for a yes: on each device what the model needs at the high end, or what
/// the engine will take where that is more. `None` where less than that is available here.
///
/// An engine that sizes its cache by what the driver calls free takes of leases that are not in use
/// yet: where that is more than is available, the answer is a no.
///
/// "Tight" means that the high end is not available: then all that is available is granted, so that
/// no other client is told it is free.
pub(super) fn promise(
    answer: &Answer,
    ledger: &Ledger,
    reading: &HolderReading<'_>,
) -> Option<BTreeMap<String, Bytes>> {
    let placement = answer.placement.as_ref()?;
    let mut wanted: BTreeMap<String, (Bytes, Bytes)> = BTreeMap::new();
    for share in &placement.devices {
        let (least, most) = wanted.entry(share.uuid.clone()).or_default();
        *least += Bytes::new(share.required_bytes);
        *most += takes(share);
    }

    let mut promised = BTreeMap::new();
    for (uuid, (least, most)) in wanted {
        // A device that takes no part of the model is not held.
        if most == Bytes::ZERO {
            continue;
        }

        let available = ledger.availability(&uuid, reading).available_bytes?;
        let enough = answer.verdict == Some(Verdict::Tight) || available >= least;
        let taken_from_others = most.scale(100, TAKES_PERCENT) > available.max(least);
        if !enough || taken_from_others || available == Bytes::ZERO || most.overflowed() {
            return None;
        }

        promised.insert(uuid, most.min(available));
    }

    Some(promised)
}

/// What an engine takes may be above what is available by rounding alone: by this many percent of
/// it, less 100.
const TAKES_PERCENT: u64 = 101;

fn takes(share: &DeviceShare) -> Bytes {
    Bytes::new(share.takes_bytes.map_or(share.required_bytes, |takes| {
        takes.max(share.required_bytes)
    }))
}

/// A yes that cannot be held now, as a no: the memory is there, but it is another's turn.
pub(super) fn in_line(mut answer: Answer, ahead: usize) -> Answer {
    answer.verdict = Some(Verdict::DoesNotFit);
    answer.set_reason(Reason::Leased);

    let others = if ahead == 1 {
        "1 other waits".to_owned()
    } else {
        format!("{ahead} others wait")
    };

    answer.message = if ahead == 0 {
        format!(
            "{}; but what is free is kept back or promised to others",
            answer.message
        )
    } else {
        format!("{}; but {others} in line for this memory", answer.message)
    };

    if let Some(placement) = &mut answer.placement {
        placement.launch = None;
    }

    answer
}

/// A no at the end of a wait: it may be a yes another time.
pub(super) fn waited(mut answer: Answer, waited: Duration, place: usize, of: usize) -> Answer {
    answer.set_reason(Reason::WaitOver);
    let seconds = waited.as_secs();
    answer.message = format!(
        "{}; waited {seconds} s in line, place {place} of {of} at the end",
        answer.message
    );

    if let Some(placement) = &mut answer.placement {
        placement.launch = None;
    }

    answer
}
