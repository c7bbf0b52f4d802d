//! Events of leases: sent on the watch stream, written to the journal, counted for the metrics.

use std::collections::BTreeMap;
use std::time::SystemTime;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::report::lease::EndReason;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::lease::Lease;

/// The longest model name in an event; repository names are shorter.
const MAX_NAME: usize = 200;

/// A lease in an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Subject {
    /// The lease.
    pub lease: String,
    /// The user who owns it.
    pub uid: u32,
    /// The holding process, if one holds it.
    pub pid: Option<u32>,
    /// The holder's name, if it has one.
    pub name: Option<String>,
    /// The requested model.
    pub model: String,
    /// Granted bytes by device UUID.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub granted_bytes: BTreeMap<String, Bytes>,
    /// Granted bytes that are seen in use, by device UUID.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub visible_bytes: BTreeMap<String, Bytes>,
}

impl Subject {
    /// Describes a lease for an event.
    pub fn of(lease: &Lease) -> Self {
        Self {
            lease: lease.id.clone(),
            uid: lease.uid,
            pid: lease.holder.process.map(|process| process.pid),
            name: lease.holder.name.clone(),
            model: short(&lease.question.model),
            granted_bytes: lease.bytes_by_device(|share| share.granted_bytes),
            visible_bytes: lease.bytes_by_device(|share| share.visible_bytes),
        }
    }
}

/// Shortens a model's name: a path may be long, and each event is written to disk.
fn short(name: &str) -> String {
    if name.len() <= MAX_NAME {
        return name.to_owned();
    }

    let end = (0..=MAX_NAME)
        .rev()
        .find(|end| name.is_char_boundary(*end))
        .unwrap_or_default();

    format!("{}...", name.get(..end).unwrap_or_default())
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

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A lease was granted.
    Granted(Subject),
    /// Part of the leased memory is seen in use.
    Settling(Subject),
    /// The holder has its memory.
    Settled(Subject),
    /// The end was extended because the holder's memory still grows.
    Extended(Subject),
    /// Its user renewed it.
    Renewed(Subject),
    /// It ended.
    Ended {
        /// The lease.
        #[serde(flatten, deserialize_with = "hf_mem_core::strict_json::nested")]
        lease: Subject,
        /// Why it ended.
        reason: EndReason,
    },
    /// Other processes have taken leased memory: the free memory no longer covers what leases still
    /// claim.
    Overdrawn {
        /// The device.
        device: String,
        /// By how much.
        #[schema(value_type = u64)]
        short_by_bytes: Bytes,
        /// The leases that still claim memory there.
        leases: Vec<String>,
        /// The processes that hold memory there without a lease, the largest first.
        #[serde(deserialize_with = "hf_mem_core::strict_json::nested")]
        strangers: Vec<UnleasedProcess>,
    },
    /// The free memory covers the claims of leases again.
    Recovered {
        /// The device.
        device: String,
    },
    /// A request joined the queue.
    Waiting {
        /// The waiter's ticket.
        ticket: u64,
        /// The user.
        uid: u32,
        /// Position in the queue, 1 is the head.
        position: usize,
    },
    /// A waiting request left the queue without a lease.
    WaitEnded {
        /// The waiter's ticket.
        ticket: u64,
        /// Whether it timed out; otherwise the client disconnected.
        timed_out: bool,
    },
    /// Something went wrong that an operator should know, such as a file that was set aside or a
    /// full disk.
    Warning {
        /// What went wrong.
        message: String,
    },
}

impl Event {
    /// The lease that the event is about, if it is about one.
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

/// An event and its wall time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dated {
    /// The wall time.
    pub at: SystemTime,
    /// The event.
    pub event: Event,
}

/// Event counts since the start, for `/metrics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Leases granted.
    pub granted: u64,
    /// Grants refused, for any reason.
    pub refused: u64,
    /// Leases that settled.
    pub settled: u64,
    /// Extensions for growing memory.
    pub extended: u64,
    /// Renewals.
    pub renewed: u64,
    /// Leases released by their users.
    pub released: u64,
    /// Leases ended by the exit of the holder.
    pub holder_died: u64,
    /// Leases that expired.
    pub expired: u64,
    /// Leases orphaned by a restart.
    pub orphaned: u64,
    /// Times a device was found overdrawn.
    pub overdrawn: u64,
    /// Waits that ended without a lease.
    pub waits_ended: u64,
    /// Writes of the ledger that failed.
    pub store_failures: u64,
}

impl Counters {
    /// All counts, by their labels in `/metrics`.
    pub fn by_word(&self) -> [(&'static str, u64); 12] {
        [
            ("granted", self.granted),
            ("refused", self.refused),
            ("settled", self.settled),
            ("extended", self.extended),
            ("renewed", self.renewed),
            ("released", self.released),
            ("holder_died", self.holder_died),
            ("expired", self.expired),
            ("orphaned", self.orphaned),
            ("overdrawn", self.overdrawn),
            ("wait_ended", self.waits_ended),
            ("store_failure", self.store_failures),
        ]
    }

    /// Counts one event.
    pub fn count(&mut self, event: &Event) {
        let counter = match event {
            Event::Granted(_) => &mut self.granted,
            Event::Settled(_) => &mut self.settled,
            Event::Extended(_) => &mut self.extended,
            Event::Renewed(_) => &mut self.renewed,
            Event::Ended { reason, .. } => match reason {
                EndReason::ByOwner => &mut self.released,
                EndReason::HolderDied => &mut self.holder_died,
                EndReason::TtlPassed => &mut self.expired,
                EndReason::HolderGoneAtRestart | EndReason::Rebooted => &mut self.orphaned,
            },
            Event::Overdrawn { .. } => &mut self.overdrawn,
            Event::WaitEnded { .. } => &mut self.waits_ended,
            Event::Settling(_)
            | Event::Recovered { .. }
            | Event::Waiting { .. }
            | Event::Warning { .. } => return,
        };

        *counter = counter.saturating_add(1);
    }
}
