//! An event as a log line: each fact is a field, named as in the watch stream.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hf_mem_core::bytes::Bytes;
use tracing::{debug, info, warn};

use super::AttributedEvent;
use crate::leases::event::{Event, Subject, UnleasedProcess};

const OVERDRAWN: &str = "other processes have taken leased memory";

/// Writes the log line of an event, at debug level if the rate limiter did not admit it.
pub(super) fn write_log_line(attributed: &AttributedEvent, admitted: bool) {
    let request_id = attributed.request_id.as_deref();
    macro_rules! line {
        ($($fields:tt)*) => {
            if admitted { info!($($fields)*) } else { debug!($($fields)*) }
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

    match &attributed.event {
        Event::Granted(lease) => lease!("granted", lease, None, "lease granted"),
        Event::Settling(lease) => {
            lease!(
                "settling",
                lease,
                None,
                "part of the lease's memory is in use"
            );
        }
        Event::Settled(lease) => {
            lease!("settled", lease, None, "the lease's holder has its memory");
        }
        Event::Extended(lease) => lease!(
            "extended",
            lease,
            None,
            "lease extended while its memory grows"
        ),
        Event::Renewed(lease) => lease!("renewed", lease, None, "lease renewed"),
        Event::Ended { lease, reason } => {
            lease!("ended", lease, Some(reason.word()), "lease ended");
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

            if admitted {
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
                "free memory covers the leases again"
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
                "a request waits in the queue for memory"
            );
        }
        Event::WaitEnded { ticket, timed_out } => {
            line!(
                event = "wait_ended",
                ticket,
                timed_out,
                request_id,
                "a request left the queue without a lease"
            );
        }
        Event::Warning { message } => {
            warn!(
                event = "warning",
                why = message.as_str(),
                "lease broker warning"
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

/// `PID=BYTES,PID`, the largest first; without bytes if the driver does not report them.
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
