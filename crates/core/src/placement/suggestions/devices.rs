//! More hardware than the host is known to have: more devices of the same kind, unread host memory.

use super::trials::Trials;
use crate::bytes::Bytes;
use crate::device::{DeviceKind, HostMemory};
use crate::engines::Offload;
use crate::placement::order::Grade;
use crate::placement::plan::{Plan, plan};
use crate::placement::search_summary::grade;
use crate::report::answer::Verdict;

/// More host memory than any model needs.
const PLENTY: Bytes = Bytes::gib(1 << 20);
/// Numbers of devices in common hosts.
const COUNTS: [usize; 4] = [2, 4, 8, 16];

/// Suggests the number of devices like the roomiest one that would hold the model.
pub(super) fn more_devices(trials: &mut Trials<'_>) {
    let asked = &trials.ask.constraints;
    if trials.tight_already
        || asked.devices.is_some()
        || asked.tensor.is_some()
        || asked.pipeline.is_some()
    {
        return;
    }

    let usable: Vec<_> = trials
        .host
        .devices
        .iter()
        .filter(|it| it.unusable.is_none() && it.facts.kind == DeviceKind::Gpu)
        .collect();
    let roomiest = usable
        .iter()
        .max_by(|a, b| (a.available, &b.facts.uuid).cmp(&(b.available, &a.facts.uuid)));
    let Some((like, available)) = roomiest.and_then(|it| Some((*it, it.available?))) else {
        return;
    };

    for count in COUNTS.into_iter().filter(|count| *count > usable.len()) {
        let added = count - usable.len();
        let found = grade(&trials.ask, &trials.host.with_more(like, added));
        if !matches!(found, Ok(Some(best)) if best.grade == Grade::Fits) {
            continue;
        }

        let message = format!(
            "with {added} more like {}, {available} available on each",
            like.facts.name
        );
        trials.keep(
            &format!("devices={count}"),
            &message,
            Grade::Fits,
            Bytes::ZERO,
        );

        break;
    }
}

/// Suggests the amount of host memory, if only that is unknown.
pub(super) fn host_memory(trials: &mut Trials<'_>, now: &Plan) {
    let denied = !trials.ask.constraints.offload;
    if trials.host.host.is_some() || (!denied && now.short_by > Bytes::ZERO) {
        return;
    }

    let need = if denied {
        need_with_plenty(trials)
    } else {
        now.recommended
            .as_ref()
            .and_then(|placement| placement.host.as_ref())
            .map(|host| host.required.high)
    };

    let Some(gib) = need
        .map(|need| need.div_ceil(1 << 30))
        .filter(|gib| !gib.overflowed())
    else {
        return;
    };

    // Plan exactly the suggested question: this much host memory, and no more.
    let bytes = Bytes::gib(gib.get());
    let mut known = trials.host.clone();
    known.host = Some(HostMemory {
        total_bytes: bytes,
        available_bytes: bytes,
    });
    let mut offloaded = trials.ask.clone();
    offloaded.constraints.offload = true;
    let Ok(Some(best)) = grade(&offloaded, &known) else {
        return;
    };

    let (change, cost) = if denied {
        ("offload=allow ", ", at the cost of speed")
    } else {
        ("", "")
    };

    let change = format!("{change}host_memory_bytes={}", bytes.get());
    let message = format!(
        "{gib} GiB of it is enough{cost}; for declared devices add ,host:{gib}GiB",
        gib = gib.get()
    );
    trials.keep(&change, &message, best.grade, Bytes::ZERO);
}

/// Returns what the model would keep in host memory if there were plenty of it.
fn need_with_plenty(trials: &Trials<'_>) -> Option<Bytes> {
    let mut offloaded = trials.ask.clone();
    offloaded.constraints.offload = true;
    let mut known = trials.host.clone();
    known.host = Some(HostMemory {
        total_bytes: PLENTY,
        available_bytes: PLENTY,
    });

    // An engine that keeps nothing there cannot use host memory now either.
    let with_plenty = plan(&offloaded, &known).ok()?;
    let placement = with_plenty
        .recommended
        .as_ref()
        .filter(|it| it.split.offload != Offload::None)?;
    let host = placement
        .host
        .as_ref()
        .filter(|_| with_plenty.verdict() <= Verdict::Tight)?;

    Some(host.required.high)
}
