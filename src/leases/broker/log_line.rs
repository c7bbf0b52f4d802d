//! An event as a line of the log: each fact a field of its own, under the names that the watch
//! stream has.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hf_mem_core::bytes::Bytes;
use tracing::{debug, info, warn};

use super::attributed_event::AttributedEvent;
use crate::leases::event::{Event, Subject, UnleasedProcess};

const OVERDRAWN: &str = "memory that was promised has been taken by others";

/// Writes the line; one that is beyond its user's budget is for whoever looks closer.
pub(super) fn say(happened: &AttributedEvent, within_budget: bool) {
    let request_id = happened.request_id.as_deref();
    macro_rules! line {
        ($($fields:tt)*) => {
            if within_budget { info!($($fields)*) } else { debug!($($fields)*) }
        };
    }

    macro_rules! lease {
        ($event:literal, $lease:expr, $reason:expr, $message:literal) => {{
            let Subject {
                lease,
                uid,
                pid,
                name,
                model,
                granted_bytes,
                visible_bytes,
            } = $lease;

            let (lease, name, model) = (lease.as_str(), name.as_deref(), model.as_str());
            let (granted_bytes, visible_bytes) =
                (by_device(granted_bytes), by_device(visible_bytes));
            let (granted_bytes, visible_bytes) = (granted_bytes.as_str(), visible_bytes.as_str());
            let reason: Option<&str> = $reason;

            line!(
                event = $event,
                lease,
                uid,
                pid,
                name,
                model,
                granted_bytes,
                visible_bytes,
                reason,
                request_id,
                $message
            );
        }};
    }

    match &happened.event {
        Event::Granted(lease) => lease!("granted", lease, None, "a lease is granted"),
        Event::Settling(lease) => {
            lease!("settling", lease, None, "part of a lease's memory is seen");
        }
        Event::Settled(lease) => lease!(
            "settled",
            lease,
            None,
            "a lease's holder has what it wanted"
        ),
        Event::Extended(lease) => lease!(
            "extended",
            lease,
            None,
            "a lease goes on while its memory grows"
        ),
        Event::Renewed(lease) => lease!("renewed", lease, None, "a lease is renewed"),
        Event::Ended { lease, reason } => {
            lease!("ended", lease, Some(reason.word()), "a lease has ended");
        }
        Event::Overdrawn {
            device,
            short_by_bytes,
            leases,
            strangers,
        } => {
            let (device, short_by_bytes) = (device.as_str(), short_by_bytes.get());
            let (leases, strangers) = (leases.join(","), by_process(strangers));
            let (leases, strangers) = (leases.as_str(), strangers.as_str());

            if within_budget {
                warn!(
                    event = "overdrawn",
                    device, short_by_bytes, leases, strangers, "{OVERDRAWN}"
                );
            } else {
                debug!(
                    event = "overdrawn",
                    device, short_by_bytes, leases, strangers, "{OVERDRAWN}"
                );
            }
        }
        Event::Recovered { device } => {
            line!(
                event = "recovered",
                device = device.as_str(),
                "what is free covers what is promised again"
            );
        }
        Event::Waiting {
            ticket,
            uid,
            position,
        } => {
            line!(
                event = "waiting",
                ticket,
                uid,
                position,
                request_id,
                "a caller waits in line for memory"
            );
        }
        Event::WaitEnded { ticket, timed_out } => {
            line!(
                event = "wait_ended",
                ticket,
                timed_out,
                request_id,
                "a caller left the line without a lease"
            );
        }
        Event::Warning { message } => {
            warn!(
                event = "warning",
                why = message.as_str(),
                "the keeper of the leases warns"
            );
        }
    }
}

/// `UUID=BYTES,UUID=BYTES`.
fn by_device(bytes: &BTreeMap<String, Bytes>) -> String {
    let shares = bytes
        .iter()
        .map(|(uuid, bytes)| format!("{uuid}={}", bytes.get()));
    shares.collect::<Vec<_>>().join(",")
}

/// `PID=BYTES,PID`, the largest first; without bytes where the driver does not say.
fn by_process(strangers: &[UnleasedProcess]) -> String {
    let mut text = String::new();
    for UnleasedProcess {
        pid, used_bytes, ..
    } in strangers
    {
        let comma = if text.is_empty() { "" } else { "," };
        // Writing into a string cannot fail.
        let _ = match used_bytes {
            Some(bytes) => write!(text, "{comma}{pid}={}", bytes.get()),
            None => write!(text, "{comma}{pid}"),
        };
    }

    text
}
