//! One promise and its life: granted → settling → settled → released, expired or orphaned, with the
//! reason.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use hf_mem_core::bytes::Bytes;
use hf_mem_core::report::lease::{EndReason, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::clock::{Boottime, Now};
use super::holder::ProcessIdentity;

/// Who holds a lease: a process, whose death ends it, or only a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The process; `None` for a holder that is only a name and lives by its time to live.
    pub process: Option<ProcessIdentity>,
    /// What it calls itself, for people.
    pub name: Option<String>,
    /// A systemd unit whose memory counts as this lease's; only where the asker said so.
    pub unit: Option<String>,
    /// A cgroup whose memory (and whose children's) counts as this lease's; only where the asker
    /// said so. It is never guessed from the process: a login session's cgroup is shared by all
    /// that the user runs.
    pub cgroup: Option<String>,
}

impl Holder {
    /// Held by a process and what it starts.
    pub fn process(process: ProcessIdentity) -> Self {
        Self {
            process: Some(process),
            name: None,
            unit: None,
            cgroup: None,
        }
    }

    /// Held by a name: nothing on a device can be seen to be its.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            process: None,
            name: Some(name.into()),
            unit: None,
            cgroup: None,
        }
    }
}

/// What the lease was asked for, in brief.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuestionSummary {
    /// The model as it was named.
    pub model: String,
    /// The engine, where one was named or chosen.
    pub engine: Option<String>,
    /// A digest of the whole question, by which a repeated key is told from a reused one.
    pub digest: String,
}

/// What a process held on a device when a lease was granted: that is not the lease's memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// The process.
    pub pid: u32,
    /// When it started, where known.
    pub start_ticks: Option<u64>,
    /// What it held; `None` where the driver did not say: then its memory is never taken for the
    /// lease's.
    pub used_bytes: Option<Bytes>,
}

/// A lease's part on one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Promised.
    pub granted_bytes: Bytes,
    /// Of which seen in the holder's use, at the last reading; never more than was promised.
    pub visible_bytes: Bytes,
    /// What processes that may be the holder's held here when the lease was granted.
    pub baselines: Vec<Baseline>,
}

/// How a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// Why.
    pub reason: EndReason,
    /// When: readings taken until then do not yet show all that the holder took, and the lease
    /// still counts in them.
    pub at: Boottime,
    /// The same for people.
    #[serde(with = "super::clock::rfc3339")]
    pub wall: SystemTime,
    /// The first reading after the end. From it on the memory that was seen as this lease's stays
    /// accounted to it, so that it is not taken for that of another lease of the same holder.
    pub seen_at: Option<Boottime>,
}

/// A promise, as the ledger keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its name on the socket.
    pub id: String,
    /// The order of grants.
    pub serial: u64,
    /// Whose it is: this user and root may renew and release it.
    pub uid: u32,
    /// Who holds it.
    pub holder: Holder,
    /// What for.
    pub question: QuestionSummary,
    /// The asker's key: the same key gives the same lease.
    pub idempotency_key: Option<String>,
    /// Bytes by device UUID.
    pub devices: BTreeMap<String, Share>,
    /// Where in its life it is.
    pub state: State,
    /// Time to live in milliseconds, counted from the grant or the last renewal.
    pub ttl_millis: u64,
    /// When it was granted: a reading from before says nothing of it.
    pub granted_at: Boottime,
    /// The same for people.
    #[serde(with = "super::clock::rfc3339")]
    pub granted_wall: SystemTime,
    /// When the reading was taken that it was granted on.
    pub baseline_at: Boottime,
    /// When it ends if nobody renews it.
    pub expires_at: Boottime,
    /// How far growing memory may push the end out.
    pub extendable_until: Boottime,
    /// When its memory was last seen to grow.
    pub grown_at: Option<Boottime>,
    /// Processes once seen as the holder's: they stay its when their parent dies.
    pub members: BTreeSet<ProcessIdentity>,
    /// How it ended; `None` while it lives.
    pub ending: Option<Ending>,
}

impl Lease {
    /// Whether the promise still holds.
    pub fn is_live(&self) -> bool {
        self.ending.is_none()
    }

    /// Whether it must be counted against a reading taken at `taken_at`: as long as it lives, and
    /// after its end against readings that are too old to show what its holder really took.
    pub fn counts_in(&self, taken_at: Boottime) -> bool {
        self.ending.is_none_or(|ending| taken_at <= ending.at)
    }

    /// Whether a reading taken at `taken_at` can show memory of this lease.
    pub fn seen_by(&self, taken_at: Boottime) -> bool {
        taken_at > self.granted_at
    }

    /// The sum over its devices of what was promised.
    pub fn granted_bytes(&self) -> Bytes {
        self.devices.values().map(|share| share.granted_bytes).sum()
    }

    /// The time to live.
    pub fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_millis)
    }

    pub(super) fn end(&mut self, reason: EndReason, now: Now) {
        self.state = reason.state();
        self.ending = Some(Ending {
            reason,
            at: now.boottime,
            wall: now.wall,
            seen_at: None,
        });
    }
}
