//! Leases as a person reads them.

use hf_mem_core::report::Answer;
use hf_mem_core::report::lease::{Holder, LeaseAnswer};

use super::{size, wrapped};
use crate::api::lease::LeasesAnswer;
use crate::leases::ADVISORY;

/// All leases, who waits, and what a lease is not.
pub fn list(answer: &LeasesAnswer) -> String {
    let mut out = String::new();
    for lease in &answer.leases {
        out.push_str(&one(lease));
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

    out + &note()
}

/// The lease of an answer, if it has one.
pub fn of_answer(answer: &Answer) -> String {
    let lease = answer.lease.as_ref();
    lease.map_or_else(String::new, |lease| format!("\n{}{}", one(lease), note()))
}

fn note() -> String {
    wrapped(ADVISORY, 0, 0) + "\n"
}

fn one(lease: &LeaseAnswer) -> String {
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
            "  {}  {}, of which {} is in use\n",
            device.uuid,
            size(device.granted_bytes),
            size(device.visible_bytes)
        ));
    }

    out
}
