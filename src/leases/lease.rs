//! A lease and its states: granted → settling → settled → released, expired or orphaned, with the
//! reason.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use hf_mem_core::bytes::Bytes;
use hf_mem_core::report::lease::{EndReason, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::clock::{Boottime, Timestamp};
use super::holder::ProcessIdentity;

/// The holder of a lease: a process, whose exit ends the lease, or only a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The process; `None` for a holder that is only a name. Such a lease ends by its time to live.
    pub process: Option<ProcessIdentity>,
    /// The name that the client chose, for people.
    pub name: Option<String>,
    /// A systemd unit whose memory counts as this lease's; only if the client named it.
    pub unit: Option<String>,
    /// A cgroup whose memory, and whose children's memory, counts as this lease's; only if the
    /// client named it. It is never inferred from the process: all processes of a login session
    /// share one cgroup.
    pub cgroup: Option<String>,
}

impl Holder {
    /// A process and its descendants.
    pub fn process(process: ProcessIdentity) -> Self {
        Self {
            process: Some(process),
            name: None,
            unit: None,
            cgroup: None,
        }
    }

    /// A name. No memory on a device can be attributed to it.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            process: None,
            name: Some(name.into()),
            unit: None,
            cgroup: None,
        }
    }
}

/// A summary of the question that the lease answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuestionSummary {
    /// The model as the client named it.
    pub model: String,
    /// The engine, if one was named or chosen.
    pub engine: Option<String>,
    /// A digest of the whole question. It distinguishes a repeated key from a reused one.
    pub digest: String,
}

/// The memory of a process on a device when a lease was granted. It is not the lease's memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// The process.
    pub pid: u32,
    /// When it started, if known.
    pub start_ticks: Option<u64>,
    /// The memory that it held; `None` if the driver did not report it. Its memory then never
    /// counts as the lease's.
    pub used_bytes: Option<Bytes>,
}

/// A lease's share of one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The granted bytes.
    pub granted_bytes: Bytes,
    /// The part that the last reading saw in the holder's use; never more than granted.
    pub visible_bytes: Bytes,
    /// The memory that processes of the holder, or possibly of it, held when the lease was granted.
    pub baselines: Vec<Baseline>,
}

/// How a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// Why it ended.
    pub reason: EndReason,
    /// When it ended. Readings until then do not show all that the holder took, so the lease still
    /// counts in them.
    pub at: Boottime,
    /// The same as wall time, for people.
    #[serde(with = "hf_mem_core::rfc3339")]
    pub wall: SystemTime,
    /// The first reading after the end. From then on the memory that was seen as this lease's stays
    /// attributed to it, so that it does not count for another lease of the same holder.
    pub seen_at: Option<Boottime>,
}

/// A lease, as the ledger keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its id in the API.
    pub id: String,
    /// The order of grants.
    pub serial: u64,
    /// The user who owns it. This user and root can renew and release it.
    pub uid: u32,
    /// The holder.
    pub holder: Holder,
    /// The question that it answers.
    pub question: QuestionSummary,
    /// The client's key: repeating it returns the same lease.
    pub idempotency_key: Option<String>,
    /// The shares by device UUID.
    pub devices: BTreeMap<String, Share>,
    /// Its state.
    pub state: State,
    /// Time to live in milliseconds, counted from the grant or the last renewal.
    pub ttl_millis: u64,
    /// When it was granted. A reading from before shows nothing of it.
    pub granted_at: Boottime,
    /// The same as wall time, for people.
    #[serde(with = "hf_mem_core::rfc3339")]
    pub granted_wall: SystemTime,
    /// The time of the reading on which it was granted.
    pub baseline_at: Boottime,
    /// When it ends unless it is renewed.
    pub expires_at: Boottime,
    /// The latest end that growing memory can extend it to.
    pub extendable_until: Boottime,
    /// When its memory was last seen to grow.
    pub grown_at: Option<Boottime>,
    /// Processes that were seen in the holder's tree. They stay the holder's when their parent
    /// exits.
    pub members: BTreeSet<ProcessIdentity>,
    /// How it ended; `None` while it is live.
    pub ending: Option<Ending>,
}

impl Lease {
    /// Whether the lease is live.
    pub fn is_live(&self) -> bool {
        self.ending.is_none()
    }

    /// Whether it counts in a reading taken at `taken_at`. A live lease does. An ended one counts
    /// in readings that are too old to show what its holder really took.
    pub fn counts_in(&self, taken_at: Boottime) -> bool {
        self.ending.is_none_or(|ending| taken_at <= ending.at)
    }

    /// Whether a reading taken at `taken_at` can show memory of this lease.
    pub fn seen_by(&self, taken_at: Boottime) -> bool {
        taken_at > self.granted_at
    }

    /// The granted bytes, summed over its devices.
    pub fn granted_bytes(&self) -> Bytes {
        self.devices.values().map(|share| share.granted_bytes).sum()
    }

    /// A figure of each share, by device UUID.
    pub(super) fn bytes_by_device(
        &self,
        figure: impl Fn(&Share) -> Bytes,
    ) -> BTreeMap<String, Bytes> {
        self.devices
            .iter()
            .map(|(uuid, share)| (uuid.clone(), figure(share)))
            .collect()
    }

    /// The time to live.
    pub fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_millis)
    }

    pub(super) fn end(&mut self, reason: EndReason, now: Timestamp) {
        self.state = reason.state();
        self.ending = Some(Ending {
            reason,
            at: now.boottime,
            wall: now.wall,
            seen_at: None,
        });
    }
}
