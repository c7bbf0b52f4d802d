//! What happened to leases, as a person reads it.

use hf_mem_core::bytes::Bytes;
use hf_mem_core::report::lease::EndReason;

use super::size;
use crate::api::event::LeaseEvent;
use crate::leases::event::{Event, Subject};

/// One line, with its time.
pub fn dated(event: &LeaseEvent) -> String {
    format!("{}  {}\n", event.at, happened(&event.event))
}

/// A lease: whose, for what, how much of it is in use.
pub fn subject(lease: &Subject) -> String {
    let whose = match (&lease.pid, &lease.name) {
        (Some(pid), _) => format!("pid {pid}"),
        (None, Some(name)) => format!("\"{name}\""),
        (None, None) => "nobody".to_owned(),
    };

    let devices = lease.granted_bytes.iter().map(|(uuid, granted)| {
        let seen = lease
            .visible_bytes
            .get(uuid)
            .copied()
            .unwrap_or(Bytes::ZERO);
        format!(
            "{} on {uuid} ({} seen in use)",
            size(granted.get()),
            size(seen.get())
        )
    });
    let devices = devices.collect::<Vec<_>>().join(", ");

    format!(
        "lease {} of uid {} for {whose}, {}: {devices}",
        lease.lease, lease.uid, lease.model
    )
}

/// An event in words.
pub fn happened(event: &Event) -> String {
    match event {
        Event::Granted(lease) => format!("granted  {}", subject(lease)),
        Event::Settling(lease) => format!("settling {}", subject(lease)),
        Event::Settled(lease) => format!("settled  {}", subject(lease)),
        Event::Extended(lease) => format!("extended {}", subject(lease)),
        Event::Renewed(lease) => format!("renewed  {}", subject(lease)),
        Event::Ended { lease, reason } => {
            let why = match reason {
                EndReason::ByOwner => "given back",
                EndReason::HolderDied => "its holder ended",
                EndReason::TtlPassed => "its time was up",
                EndReason::HolderGoneAtRestart => "its holder was gone at the daemon's restart",
                EndReason::Rebooted => "the host was restarted",
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
                    "pid {} ({}) holds {used}",
                    stranger.pid,
                    stranger.name.as_deref().unwrap_or("?")
                )
            });
            let strangers = strangers.collect::<Vec<_>>().join(", ");
            format!(
                "{device} is short by {} of what is promised to {}; without a lease: {strangers}",
                size(short_by_bytes.get()),
                leases.join(", ")
            )
        }
        Event::Recovered { device } => format!("{device} covers what is promised again"),
        Event::Waiting {
            ticket,
            uid,
            position,
        } => format!("uid {uid} waits, ticket {ticket}, place {position}"),
        Event::WaitEnded {
            ticket,
            timed_out: true,
        } => format!("ticket {ticket} waited in vain"),
        Event::WaitEnded {
            ticket,
            timed_out: false,
        } => format!("ticket {ticket} hung up"),
        Event::Warning { message } => message.clone(),
    }
}
