//! A lease as it is printed: in the answer, in `GET /v1/leases` and on the watch stream.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::lease::{self, EndReason, State};
use super::moment::Now;
use crate::bytes::Bytes;

/// A lease, or with a `position` the wait for one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Lease {
    /// Its name in `/v1/leases/{id}`.
    pub id: String,
    /// Where in its life it is.
    pub state: State,
    /// Why it ended; `null` while it lives.
    pub reason: Option<EndReason>,
    /// The user whose it is.
    pub uid: u32,
    /// Who holds it.
    pub holder: Holder,
    /// The model it was asked for.
    pub model: String,
    /// The engine, where one was named or chosen.
    pub engine: Option<String>,
    /// Its part on each device.
    pub devices: Vec<Share>,
    /// Seconds from the grant or the last renewal to its end.
    pub ttl_seconds: u64,
    /// When it was granted (RFC 3339).
    pub granted_at: String,
    /// When it ends unless renewed, or when it ended (RFC 3339).
    pub expires_at: String,
    /// Seconds until then, by the clock that nobody steps; 0 once it has ended.
    pub expires_in_seconds: u64,
    /// Place in line while waiting, 1 is the head; `null` once granted.
    pub position: Option<u64>,
    /// What a lease is not.
    pub note: String,
}

/// Who holds a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Holder {
    /// The process whose death ends it; `null` for a name only.
    pub pid: Option<u32>,
    /// Its name, if it gave one.
    pub name: Option<String>,
    /// The systemd unit whose memory counts as its.
    pub unit: Option<String>,
    /// The cgroup whose memory counts as its.
    pub cgroup: Option<String>,
}

/// A lease's part on one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Share {
    /// The device.
    pub uuid: String,
    /// Promised.
    #[schema(value_type = u64)]
    pub granted_bytes: Bytes,
    /// Of which seen in use.
    #[schema(value_type = u64)]
    pub visible_bytes: Bytes,
    /// Of which still owed, and so kept from others; nothing once it has ended.
    #[schema(value_type = u64)]
    pub claimed_bytes: Bytes,
}

impl Lease {
    /// A lease as it stands now.
    pub fn of(lease: &lease::Lease, now: Now) -> Self {
        let ended = lease.ending;
        let ends_at = ended.map_or(lease.expires_at, |ending| ending.at);
        let ends_wall = ended.map_or_else(|| now.wall_at(ends_at), |ending| ending.wall);
        let share = |(uuid, share): (&String, &lease::Share)| {
            let owed = if ended.is_some() { Some(Bytes::ZERO) } else { share.granted_bytes.less(share.visible_bytes) };
            Share {
                uuid: uuid.clone(),
                granted_bytes: share.granted_bytes,
                visible_bytes: share.visible_bytes,
                claimed_bytes: owed.unwrap_or(Bytes::OVERFLOW),
            }
        };
        Self {
            id: lease.id.clone(),
            state: lease.state,
            reason: ended.map(|ending| ending.reason),
            uid: lease.uid,
            holder: Holder {
                pid: lease.holder.process.map(|process| process.pid),
                name: lease.holder.name.clone(),
                unit: lease.holder.unit.clone(),
                cgroup: lease.holder.cgroup.clone(),
            },
            model: lease.question.model.clone(),
            engine: lease.question.engine.clone(),
            devices: lease.devices.iter().map(share).collect(),
            ttl_seconds: lease.ttl().as_secs(),
            granted_at: humantime::format_rfc3339_seconds(lease.granted_wall).to_string(),
            expires_at: humantime::format_rfc3339_seconds(ends_wall).to_string(),
            expires_in_seconds: ends_at.since(now.boottime).as_secs(),
            position: None,
            note: super::ADVISORY.to_owned(),
        }
    }
}

/// `GET /v1/leases`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct List {
    /// Version of this form.
    pub schema_version: u32,
    /// Alive, in order of their grants.
    pub leases: Vec<Lease>,
    /// Those in line, the head first.
    pub waiting: Vec<Waiting>,
    /// What a lease is not.
    pub note: String,
}

/// One in line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Waiting {
    /// Its ticket.
    pub ticket: u64,
    /// Whose.
    pub uid: u32,
    /// Place in line, 1 is the head.
    pub position: u64,
    /// Seconds in line so far.
    pub waited_seconds: u64,
}

impl List {
    /// All leases that are alive, and all who wait.
    pub fn of(ledger: &super::ledger::Ledger, queue: &super::queue::Queue, now: Now) -> Self {
        let waiting = queue.waiters().zip(1..).map(|(waiter, position)| Waiting {
            ticket: waiter.ticket.0,
            uid: waiter.uid,
            position,
            waited_seconds: now.boottime.since(waiter.since).as_secs(),
        });
        Self {
            schema_version: 1,
            leases: ledger.live().map(|lease| Lease::of(lease, now)).collect(),
            waiting: waiting.collect(),
            note: super::ADVISORY.to_owned(),
        }
    }
}
