//! Lease events, as the watch stream and the journal write them.

use std::collections::BTreeMap;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::report::lease::{EndReason, State};
use hf_mem_core::strict_json;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The lease that an event is about: enough to know its owner and its devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Subject {
    /// The lease's id.
    pub lease: String,
    /// The owner's uid.
    pub uid: u32,
    /// The process that holds the lease, if a process holds it.
    pub pid: Option<u32>,
    /// The holder's name, if it has one.
    pub name: Option<String>,
    /// The model of the lease's question.
    pub model: String,
    /// Granted bytes by device UUID.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub granted_bytes: BTreeMap<String, Bytes>,
    /// The part of the granted bytes that is seen in use, by device UUID.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub visible_bytes: BTreeMap<String, Bytes>,
}

/// A process without a lease that holds memory on a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnleasedProcess {
    /// Its pid.
    pub pid: u32,
    /// Its command, if known.
    pub name: Option<String>,
    /// Its user, if known.
    pub uid: Option<u32>,
    /// The memory that it holds, if the driver reports it.
    #[schema(value_type = Option<u64>)]
    pub used_bytes: Option<Bytes>,
}

/// An event of a lease, of the queue, or of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The daemon granted a lease.
    Granted(Subject),
    /// A part of the granted memory is seen in use.
    Settling(Subject),
    /// The holder uses all the memory that it needs.
    Settled(Subject),
    /// The daemon extended the lease because the holder's memory still grows.
    Extended(Subject),
    /// The owner renewed the lease.
    Renewed(Subject),
    /// The lease ended.
    Ended {
        /// The lease.
        #[serde(flatten, deserialize_with = "strict_json::nested")]
        lease: Subject,
        /// Why it ended.
        reason: EndReason,
    },
    /// Other processes took leased memory: free memory no longer covers the outstanding claims.
    Overdrawn {
        /// The device.
        device: String,
        /// How many bytes are missing.
        #[schema(value_type = u64)]
        short_by_bytes: Bytes,
        /// The leases with outstanding claims on the device.
        leases: Vec<String>,
        /// The processes that hold memory on the device without a lease, the largest first.
        #[serde(deserialize_with = "strict_json::nested")]
        strangers: Vec<UnleasedProcess>,
    },
    /// Free memory covers the outstanding claims again.
    Recovered {
        /// The device.
        device: String,
    },
    /// A caller waits in the queue.
    Waiting {
        /// The caller's ticket.
        ticket: u64,
        /// The caller's uid.
        uid: u32,
        /// Position in the queue; 1 is the head.
        position: usize,
    },
    /// A caller left the queue without a lease.
    WaitEnded {
        /// The caller's ticket.
        ticket: u64,
        /// Whether its wait timed out. Otherwise the caller disconnected.
        timed_out: bool,
    },
    /// Something went wrong that needs attention, such as a quarantined file or a full disk.
    Warning {
        /// What went wrong.
        message: String,
    },
}

impl Event {
    /// Returns the lease that the event is about, if it is about one.
    pub fn subject(&self) -> Option<&Subject> {
        match self {
            Self::Granted(lease)
            | Self::Settling(lease)
            | Self::Settled(lease)
            | Self::Extended(lease)
            | Self::Renewed(lease)
            | Self::Ended { lease, .. } => Some(lease),
            Self::Overdrawn { .. }
            | Self::Recovered { .. }
            | Self::Waiting { .. }
            | Self::WaitEnded { .. }
            | Self::Warning { .. } => None,
        }
    }
}

/// An event of the watch stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeaseEvent {
    /// When it happened, RFC 3339.
    pub at: String,
    /// How a lease ended: released, expired or orphaned. Present only for a lease that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// What happened.
    #[serde(flatten, deserialize_with = "strict_json::nested")]
    pub event: Event,
}
