//! More than there is here: further devices of the same kind, host memory that was not read.

use super::Tried;
use crate::bytes::Bytes;
use crate::devices::{DeviceKind, HostMemory};
use crate::placement::ask::{Ask, PlacementError};
use crate::placement::order::Grade;
use crate::placement::plan::Plan;
use crate::placement::ways::grade;

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
pub(super) fn host_memory(tried: &mut Tried<'_>, ask: &Ask<'_>, plan: &Plan) -> Result<(), PlacementError> {
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
