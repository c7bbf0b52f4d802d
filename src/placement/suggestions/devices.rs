//! More than there is here: further devices of the same kind, host memory that was not read.

use super::Tried;
use crate::api::answer::Verdict;
use crate::bytes::Bytes;
use crate::devices::{DeviceKind, HostMemory};
use crate::engines::Offload;
use crate::placement::ask::{Ask, PlacementError};
use crate::placement::order::Grade;
use crate::placement::plan::{Plan, plan};
use crate::placement::ways::grade;

/// Host memory that no model outgrows.
const PLENTY: Bytes = Bytes::gib(1 << 20);
/// Numbers of devices that hosts are built with.
const COUNTS: [usize; 4] = [2, 4, 8, 16];

/// How many devices like the roomiest here would hold it, where those that are here do not.
pub(super) fn more(tried: &mut Tried<'_>, ask: &Ask<'_>) -> Result<(), PlacementError> {
    let asked = &ask.constraints;
    if tried.tight_already || asked.devices.is_some() || asked.tensor.is_some() || asked.pipeline.is_some() {
        return Ok(());
    }
    let usable = |it: &&crate::placement::Available| it.unusable.is_none() && it.facts.kind == DeviceKind::Gpu;
    let here: Vec<_> = tried.here.devices.iter().filter(usable).collect();
    let roomiest = here.iter().max_by(|a, b| (a.available, &b.facts.uuid).cmp(&(b.available, &a.facts.uuid)));
    let Some((like, available)) = roomiest.and_then(|it| Some((*it, it.available?))) else { return Ok(()) };
    for count in COUNTS.into_iter().filter(|count| *count > here.len()) {
        let added = count - here.len();
        let Some((Grade::Fits, ..)) = grade(ask, &tried.here.with_more(like, added))? else { continue };
        let message = format!("with {added} more like {}, {available} available on each", like.facts.name);
        tried.keep(&format!("devices={count}"), &message, Grade::Fits, Bytes::ZERO);
        break;
    }
    Ok(())
}

/// How much host memory it takes, where only that is not known.
pub(super) fn host_memory(tried: &mut Tried<'_>, ask: &Ask<'_>, now: &Plan) -> Result<(), PlacementError> {
    if !ask.constraints.offload && tried.here.host.is_none() {
        return offloaded(tried, ask);
    }
    let plan = now;
    let Some(host) = plan.recommended.as_ref().and_then(|placement| placement.host.as_ref()) else { return Ok(()) };
    if host.available.is_some() || plan.short_by > Bytes::ZERO {
        return Ok(());
    }
    let need = host.required.high;
    let mut known = tried.here.clone();
    known.host = Some(HostMemory { total_bytes: need, available_bytes: need });
    if let Some((grade, ..)) = grade(ask, &known)? {
        let gib = need.div_ceil(1 << 30).get();
        let message = format!("{need} of it is enough; for declared devices add ,host:{gib}GiB");
        tried.keep(&format!("host_memory_bytes={}", need.get()), &message, grade, Bytes::ZERO);
    }
    Ok(())
}

/// The same where host memory was denied besides.
fn offloaded(tried: &mut Tried<'_>, ask: &Ask<'_>) -> Result<(), PlacementError> {
    let mut offloaded = ask.clone();
    offloaded.constraints.offload = true;
    let mut known = tried.here.clone();
    known.host = Some(HostMemory { total_bytes: PLENTY, available_bytes: PLENTY });
    // An engine that keeps nothing there has no other way now either.
    let Ok(there) = plan(&offloaded, &known) else { return Ok(()) };
    let Some((placement, host)) = there.recommended.as_ref().and_then(|it| Some((it, it.host.as_ref()?))) else {
        return Ok(());
    };
    let need = host.required.high;
    if placement.split.offload != Offload::None && there.verdict() <= Verdict::Tight {
        let gib = need.div_ceil(1 << 30).get();
        let grade = if there.verdict() == Verdict::Fits { Grade::Fits } else { Grade::Tight };
        let message = format!("{need} of it is enough, at the cost of speed; for declared devices add ,host:{gib}GiB");
        tried.keep(&format!("offload=allow host_memory_bytes={}", need.get()), &message, grade, Bytes::ZERO);
    }
    Ok(())
}
