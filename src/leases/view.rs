//! Leases in the types of the API.

use hf_mem_core::bytes::Bytes;
use hf_mem_core::report::SCHEMA_VERSION;
use hf_mem_core::report::lease as api;
use hf_mem_core::report::lease::{LeaseAnswer, LeasedDevice};

use super::ADVISORY;
use super::clock::Timestamp;
use super::lease::{Holder, Lease, Share};
use super::ledger::Ledger;
use super::queue::{Queue, Ticket};
use crate::api::lease::{LeasesAnswer, Waiting};

/// Describes a lease as of now.
pub fn lease(lease: &Lease, now: Timestamp) -> LeaseAnswer {
    let ended = lease.ending;
    let ends_at = ended.map_or(lease.expires_at, |ending| ending.at);
    let ends_wall = ended.map_or_else(|| now.wall_time_at(ends_at), |ending| ending.wall);

    let devices = lease
        .devices
        .iter()
        .map(|(uuid, share)| leased_device(uuid, share, lease.is_live()))
        .collect();

    LeaseAnswer {
        id: lease.id.clone(),
        state: lease.state,
        reason: ended.map(|ending| ending.reason),
        model: lease.question.model.clone(),
        holder: holder(&lease.holder),
        uid: lease.uid,
        granted_at: humantime::format_rfc3339_seconds(lease.granted_wall).to_string(),
        expires_at: humantime::format_rfc3339_seconds(ends_wall).to_string(),
        expires_in_seconds: ends_at.since(now.boottime).as_secs(),
        ttl_seconds: lease.ttl().as_secs(),
        devices,
        note: ADVISORY.to_owned(),
    }
}

fn leased_device(uuid: &str, share: &Share, is_live: bool) -> LeasedDevice {
    let claimed = if is_live {
        share.granted_bytes.less(share.visible_bytes)
    } else {
        Some(Bytes::ZERO)
    };

    LeasedDevice {
        uuid: uuid.to_owned(),
        granted_bytes: share.granted_bytes.get(),
        visible_bytes: share.visible_bytes.get(),
        claimed_bytes: claimed.unwrap_or(Bytes::OVERFLOW).get(),
    }
}

fn holder(holder: &Holder) -> api::Holder {
    match (holder.process, &holder.name) {
        (Some(process), _) => api::Holder::Pid(process.pid),
        (None, name) => api::Holder::Name(name.clone().unwrap_or_default()),
    }
}

/// Describes all live leases and all waiting requests. `pid` returns the process that waits with a
/// ticket.
pub fn leases(
    ledger: &Ledger,
    queue: &Queue,
    now: Timestamp,
    pid: impl Fn(Ticket) -> Option<u32>,
) -> LeasesAnswer {
    let waiting = queue.waiters().zip(1..).map(|(waiter, position)| Waiting {
        ticket: waiter.ticket.0,
        uid: waiter.uid,
        pid: pid(waiter.ticket),
        position,
        waited_seconds: now.boottime.since(waiter.since).as_secs(),
    });

    LeasesAnswer {
        schema_version: SCHEMA_VERSION,
        leases: ledger.live().map(|live| lease(live, now)).collect(),
        waiting: waiting.collect(),
        note: ADVISORY.to_owned(),
        warnings: Vec::new(),
    }
}
