//! More than there is here: further devices of the same kind, host memory that was not read.

use super::Tried;
use crate::bytes::Bytes;
use crate::device::{DeviceKind, HostMemory};
use crate::engines::Offload;
use crate::placement::order::Grade;
use crate::placement::plan::{Plan, plan};
use crate::placement::ways::grade;
use crate::report::answer::Verdict;

/// Host memory that no model outgrows.
const PLENTY: Bytes = Bytes::gib(1 << 20);
/// Numbers of devices that hosts are built with.
const COUNTS: [usize; 4] = [2, 4, 8, 16];

/// How many devices like the roomiest here would hold it, where those that are here do not.
pub(super) fn more(tried: &mut Tried<'_>) {
    let asked = &tried.ask.constraints;
    if tried.tight_already
        || asked.devices.is_some()
        || asked.tensor.is_some()
        || asked.pipeline.is_some()
    {
        return;
    }

    let usable = |it: &&crate::placement::Available| {
        it.unusable.is_none() && it.facts.kind == DeviceKind::Gpu
    };

    let here: Vec<_> = tried.here.devices.iter().filter(usable).collect();
    let roomiest = here
        .iter()
        .max_by(|a, b| (a.available, &b.facts.uuid).cmp(&(b.available, &a.facts.uuid)));
    let Some((like, available)) = roomiest.and_then(|it| Some((*it, it.available?))) else {
        return;
    };

    for count in COUNTS.into_iter().filter(|count| *count > here.len()) {
        let added = count - here.len();
        let found = grade(&tried.ask, &tried.here.with_more(like, added));
        let Ok(Some((Grade::Fits, ..))) = found else {
            continue;
        };

        let message = format!(
            "with {added} more like {}, {available} available on each",
            like.facts.name
        );
        tried.keep(
            &format!("devices={count}"),
            &message,
            Grade::Fits,
            Bytes::ZERO,
        );

        break;
    }
}

/// How much host memory it takes, where only that is not known.
pub(super) fn host_memory(tried: &mut Tried<'_>, now: &Plan) {
    let denied = !tried.ask.constraints.offload;
    if tried.here.host.is_some() || (!denied && now.short_by > Bytes::ZERO) {
        return;
    }

    let need = if denied {
        moved_with_plenty(tried)
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

    // Exactly the question that the words lead to: so much host memory, and no more.
    let bytes = Bytes::gib(gib.get());
    let mut known = tried.here.clone();
    known.host = Some(HostMemory {
        total_bytes: bytes,
        available_bytes: bytes,
    });
    let mut offloaded = tried.ask.clone();
    offloaded.constraints.offload = true;
    let Ok(Some((grade, ..))) = grade(&offloaded, &known) else {
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
    tried.keep(&change, &message, grade, Bytes::ZERO);
}

/// What the model would keep in host memory if there were plenty of it.
fn moved_with_plenty(tried: &Tried<'_>) -> Option<Bytes> {
    let mut offloaded = tried.ask.clone();
    offloaded.constraints.offload = true;
    let mut known = tried.here.clone();
    known.host = Some(HostMemory {
        total_bytes: PLENTY,
        available_bytes: PLENTY,
    });

    // An engine that keeps nothing there has no other way now either.
    let there = plan(&offloaded, &known).ok()?;
    let placement = there
        .recommended
        .as_ref()
        .filter(|it| it.split.offload != Offload::None)?;
    let host = placement
        .host
        .as_ref()
        .filter(|_| there.verdict() <= Verdict::Tight)?;

    Some(host.required.high)
}
