//! Leases as text.

use hf_mem_core::report::Answer;
use hf_mem_core::report::lease::{Holder, LeaseAnswer};

use super::{size, wrapped};
use crate::api::lease::LeasesAnswer;
use crate::leases::ADVISORY;

/// Returns all leases, the queue and the warnings.
pub fn list(answer: &LeasesAnswer) -> String {
    let mut out = String::new();
    for lease in &answer.leases {
        out.push_str(&lease_lines(lease));
    }

    for waiting in &answer.waiting {
        out.push_str(&format!(
            "waiting: place {}, uid {}, for {} s\n",
            waiting.position, waiting.uid, waiting.waited_seconds
        ));
    }

    for warning in &answer.warnings {
        out.push_str(&(wrapped(&format!("warning: {warning}"), 0, 9) + "\n"));
    }

    if answer.leases.is_empty() && answer.waiting.is_empty() && answer.warnings.is_empty() {
        out.push_str("no leases\n");
    }

    out
}

/// Returns the lines about an answer's lease, or nothing if it has none.
pub fn of_answer(answer: &Answer) -> String {
    let Some(lease) = &answer.lease else {
        return String::new();
    };

    format!("\n{}{}", lease_lines(lease), note())
}

fn note() -> String {
    wrapped(ADVISORY, 0, 0) + "\n"
}

fn lease_lines(lease: &LeaseAnswer) -> String {
    let holder = match &lease.holder {
        Holder::Name(name) => format!("\"{name}\""),
        Holder::Pid(pid) => format!("pid {pid}"),
    };

    let mut out = format!(
        "lease {}  {}, ends in {} s\n  {} for {holder} of uid {}\n",
        lease.id,
        format!("{:?}", lease.state).to_lowercase(),
        lease.expires_in_seconds,
        lease.model,
        lease.uid
    );
    for device in &lease.devices {
        out.push_str(&format!(
            "  {}  {} leased, {} in use\n",
            device.uuid,
            size(device.granted_bytes),
            size(device.visible_bytes)
        ));
    }

    out
}
