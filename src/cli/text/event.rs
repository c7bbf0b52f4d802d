//! Lease events as text.

use hf_mem_core::bytes::Bytes;
use hf_mem_core::report::lease::EndReason;

use super::size;
use crate::api::event::LeaseEvent;
use crate::leases::event::{Event, Subject};

/// Returns the line of an event, with its time.
pub fn dated_line(event: &LeaseEvent) -> String {
    format!("{}  {}\n", event.at, description(&event.event))
}

/// Returns a lease's holder, model, and leased and used memory.
pub fn subject(lease: &Subject) -> String {
    let holder = match (&lease.pid, &lease.name) {
        (Some(pid), _) => format!("pid {pid}"),
        (None, Some(name)) => format!("\"{name}\""),
        (None, None) => "no holder".to_owned(),
    };

    let devices = lease.granted_bytes.iter().map(|(uuid, granted)| {
        let seen = lease
            .visible_bytes
            .get(uuid)
            .copied()
            .unwrap_or(Bytes::ZERO);
        format!(
            "{} on {uuid} ({} in use)",
            size(granted.get()),
            size(seen.get())
        )
    });
    let devices = devices.collect::<Vec<_>>().join(", ");

    format!(
        "lease {} of uid {} for {holder}, {}: {devices}",
        lease.lease, lease.uid, lease.model
    )
}

/// Returns an event in words.
pub fn description(event: &Event) -> String {
    match event {
        Event::Granted(lease) => format!("granted  {}", subject(lease)),
        Event::Settling(lease) => format!("settling {}", subject(lease)),
        Event::Settled(lease) => format!("settled  {}", subject(lease)),
        Event::Extended(lease) => format!("extended {}", subject(lease)),
        Event::Renewed(lease) => format!("renewed  {}", subject(lease)),
        Event::Ended { lease, reason } => {
            let why = match reason {
                EndReason::ByOwner => "released",
                EndReason::HolderDied => "its holder exited",
                EndReason::TtlPassed => "expired",
                EndReason::HolderGoneAtRestart => "its holder exited before the daemon restarted",
                EndReason::Rebooted => "the host rebooted",
            };
            format!("ended    ({why}) {}", subject(lease))
        }
        Event::Overdrawn {
            device,
            short_by_bytes,
            leases,
            strangers,
        } => {
            let strangers = strangers.iter().map(|stranger| {
                let used = stranger
                    .used_bytes
                    .map_or_else(|| "?".to_owned(), |bytes| size(bytes.get()));
                format!(
                    "pid {} ({}) uses {used}",
                    stranger.pid,
                    stranger.name.as_deref().unwrap_or("?")
                )
            });
            let strangers = strangers.collect::<Vec<_>>().join(", ");
            format!(
                "{device} is {} short of the memory leased to {}; without a lease: {strangers}",
                size(short_by_bytes.get()),
                leases.join(", ")
            )
        }
        Event::Recovered { device } => {
            format!("{device} has enough free memory for its leases again")
        }
        Event::Waiting {
            ticket,
            uid,
            position,
        } => format!("uid {uid} waits in the queue: ticket {ticket}, place {position}"),
        Event::WaitEnded {
            ticket,
            timed_out: true,
        } => format!("ticket {ticket} timed out"),
        Event::WaitEnded {
            ticket,
            timed_out: false,
        } => format!("ticket {ticket} left the queue: the client disconnected"),
        Event::Warning { message } => message.clone(),
    }
}
