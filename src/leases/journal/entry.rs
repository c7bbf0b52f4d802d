//! The journal's lines.

use std::collections::BTreeSet;
use std::time::SystemTime;

use hf_mem_core::bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::leases::event::{Event, Subject};
use crate::leases::observed::Observed;

/// A process took memory on a device, or released it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemoryChange {
    /// The device.
    pub device: String,
    /// The process.
    pub pid: u32,
    /// Its command, if known.
    pub name: Option<String>,
    /// Its user, if known.
    pub uid: Option<u32>,
    /// The bytes that it held at its last line; `null`: nothing.
    #[schema(value_type = Option<u64>)]
    pub before_bytes: Option<Bytes>,
    /// The bytes that it holds now; `null`: nothing.
    #[schema(value_type = Option<u64>)]
    pub after_bytes: Option<Bytes>,
    /// The free bytes of the device now, if they could be read.
    #[schema(value_type = Option<u64>)]
    pub free_bytes: Option<Bytes>,
    /// Whether it was found after a gap between readings: the time of the change is unknown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub found: bool,
}

/// All that is known at one time. It replaces what earlier lines say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Checkpoint {
    /// The live leases.
    pub leases: Vec<Subject>,
    /// The processes that hold memory on the devices that could be read.
    pub memory: Vec<MemoryChange>,
    /// The devices that could be read, by UUID.
    pub devices: BTreeSet<String>,
}

/// A line: an event of a lease, a change of a process's memory, a span of readings, or a
/// checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    /// When, by the wall clock.
    #[serde(with = "hf_mem_core::rfc3339")]
    #[schema(value_type = String)]
    pub at: SystemTime,
    /// An event of a lease.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "hf_mem_core::strict_json::tagged"
    )]
    pub event: Option<Event>,
    /// A process took or released memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryChange>,
    /// A span of device readings that ends at `at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Observed>,
    /// All that is known at `at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
}

impl Entry {
    /// A line for an event.
    pub fn event(at: SystemTime, event: Event) -> Self {
        Self {
            event: Some(event),
            ..Self::empty(at)
        }
    }

    /// A line for a change of memory.
    pub fn memory(at: SystemTime, memory: MemoryChange) -> Self {
        Self {
            memory: Some(memory),
            ..Self::empty(at)
        }
    }

    /// A line for a span of readings that ends at `at`.
    pub fn observed(at: SystemTime, observed: Observed) -> Self {
        Self {
            observed: Some(observed),
            ..Self::empty(at)
        }
    }

    /// A line for all that is known.
    pub fn checkpoint(at: SystemTime, checkpoint: Checkpoint) -> Self {
        Self {
            checkpoint: Some(checkpoint),
            ..Self::empty(at)
        }
    }

    fn empty(at: SystemTime) -> Self {
        Self {
            at,
            event: None,
            memory: None,
            observed: None,
            checkpoint: None,
        }
    }
}
