//! The decisions on one grant: run its plan, judge the answer, choose the bytes to grant.

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

/// Returns the bytes that leases claim in a reading, by device UUID.
pub(super) fn claims(ledger: &Ledger, reading: &HolderReading<'_>) -> BTreeMap<String, Bytes> {
    let accounts = ledger.available(reading).into_iter();
    accounts
        .map(|(uuid, account)| (uuid, account.leased_bytes))
        .collect()
}

/// Runs a plan. If it panics, its client gets an error and the ledger is unharmed.
pub(super) fn run_plan(
    plan: &Plan,
    snapshot: &Snapshot,
    claims: &BTreeMap<String, Bytes>,
) -> Result<Answer, Problem> {
    catch_unwind(AssertUnwindSafe(|| plan(snapshot, claims))).unwrap_or_else(|_| {
        Err(Problem::new(
            Reason::Internal,
            "computing the placement panicked; see the daemon's log",
        ))
    })
}

/// Whether an answer is a yes that can be leased; with `strict`, "tight" is not.
pub(super) fn is_grantable(answer: &Answer, strict: bool) -> bool {
    let yes = match answer.verdict {
        Some(Verdict::Fits) => true,
        Some(Verdict::Tight) => !strict,
        _ => false,
    };
    yes && answer.placement.is_some()
}

/// Whether an answer is a no that may become a yes when memory is freed.
pub(super) fn may_become_yes(answer: &Answer, strict: bool) -> bool {
    match answer.verdict {
        Some(Verdict::DoesNotFit) => true,
        Some(Verdict::Tight) => strict,
        _ => false,
    }
}

/// Explains why a "tight" answer has no lease if the request was strict. Other answers stay as they
/// are.
pub(super) fn explain_strict(mut answer: Answer, strict: bool) -> Answer {
    if strict && answer.verdict == Some(Verdict::Tight) {
        answer.message = format!(
            "{}; no lease is granted: a strict request needs the high end",
            answer.message
        );
    }

    answer
}

/// Whether the plan would fit if all devices were idle: only then does waiting help.
pub(super) fn fits_when_idle(plan: &Plan, snapshot: &Snapshot, strict: bool) -> bool {
    let mut idle = snapshot.clone();
    for device in &mut idle.devices {
        // A device that is unusable or unreadable now stays so.
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

    run_plan(plan, &idle, &BTreeMap::new()).is_ok_and(|answer| is_grantable(&answer, strict))
}

/// Resolves the devices that a client names, by UUID or by a prefix of it. `None` means any device,
/// also if a name matches no device here.
pub(super) fn candidates(
    names: Option<&BTreeSet<String>>,
    snapshot: &Snapshot,
) -> Option<BTreeSet<String>> {
    let mut candidates = BTreeSet::new();
    for name in names? {
        let known = candidates.len();
        candidates.extend(
            snapshot
                .devices
                .iter()
                .map(|device| &device.facts.uuid)
                .filter(|uuid| !name.is_empty() && uuid.starts_with(name.as_str()))
                .cloned(),
        );

        if candidates.len() == known && !candidates.contains(name) {
            return None;
        }
    }

    (!candidates.is_empty()).then_some(candidates)
}

/// Returns the claims, with all memory claimed on the devices `reserved` for grants ahead in the
/// queue.
pub(super) fn claims_with_reserved(
    claims: &BTreeMap<String, Bytes>,
    reserved: &BTreeSet<String>,
    snapshot: &Snapshot,
) -> BTreeMap<String, Bytes> {
    let mut claims = claims.clone();
    for device in snapshot
        .devices
        .iter()
        .filter(|device| reserved.contains(&device.facts.uuid))
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

/// Returns the bytes to grant for a yes, by device UUID: on each device the high end of what the
/// model needs, or what the engine will take if that is more. `None` if less than that is
/// available.
///
/// An engine that sizes its cache by the driver's free memory also takes leased memory that is not
/// in use yet. If it would take more than is available, the answer is a no.
///
/// "Tight" means that the high end is not available. The lease then covers all that is available,
/// so that no other client gets it as free.
pub(super) fn bytes_to_grant(
    answer: &Answer,
    ledger: &Ledger,
    reading: &HolderReading<'_>,
) -> Option<BTreeMap<String, Bytes>> {
    let placement = answer.placement.as_ref()?;
    let mut wanted: BTreeMap<String, (Bytes, Bytes)> = BTreeMap::new();
    for share in &placement.devices {
        let (least, most) = wanted.entry(share.uuid.clone()).or_default();
        *least += Bytes::new(share.required_bytes);
        *most += taken_bytes(share);
    }

    let mut granted = BTreeMap::new();
    for (uuid, (least, most)) in wanted {
        // A device that holds no part of the model needs no lease.
        if most == Bytes::ZERO {
            continue;
        }

        let available = ledger.availability(&uuid, reading).available_bytes?;
        let is_enough = answer.verdict == Some(Verdict::Tight) || available >= least;
        let taken_from_others = most.scale(100, MAX_TAKEN_PERCENT) > available.max(least);
        if !is_enough || taken_from_others || available == Bytes::ZERO || most.overflowed() {
            return None;
        }

        granted.insert(uuid, most.min(available));
    }

    Some(granted)
}

/// The memory that an engine takes may exceed what is available by rounding alone, up to this
/// percentage.
const MAX_TAKEN_PERCENT: u64 = 101;

fn taken_bytes(share: &DeviceShare) -> Bytes {
    Bytes::new(share.takes_bytes.map_or(share.required_bytes, |takes| {
        takes.max(share.required_bytes)
    }))
}

/// Turns a yes that cannot be leased now into a no: the memory is free, but others take precedence.
pub(super) fn not_yet(mut answer: Answer, ahead: usize) -> Answer {
    answer.verdict = Some(Verdict::DoesNotFit);
    answer.set_reason(Reason::Leased);

    let obstacle = match ahead {
        0 => "the free memory is reserved or leased to others".to_owned(),
        1 => "1 other request waits in the queue for this memory".to_owned(),
        _ => format!("{ahead} other requests wait in the queue for this memory"),
    };
    answer.message = format!("{}; but {obstacle}", answer.message);

    if let Some(placement) = &mut answer.placement {
        placement.launch = None;
    }

    answer
}

/// The answer to a wait that has timed out: a no that may be a yes another time.
pub(super) fn timed_out(
    mut answer: Answer,
    waited: Duration,
    position: usize,
    queue_length: usize,
) -> Answer {
    answer.set_reason(Reason::WaitOver);
    let seconds = waited.as_secs();
    answer.message = format!(
        "{}; waited {seconds} s in the queue, last at position {position} of {queue_length}",
        answer.message
    );

    if let Some(placement) = &mut answer.placement {
        placement.launch = None;
    }

    answer
}
