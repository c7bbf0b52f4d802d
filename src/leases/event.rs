//! What happened to leases: told on the watch stream, written to the journal, counted for the
//! metrics.

use std::collections::BTreeMap;
use std::time::SystemTime;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::report::lease::EndReason;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::lease::Lease;

/// More than any repository's name has.
const LONGEST_NAME: usize = 200;

/// A lease in an event: enough to know whose and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Subject {
    /// The lease.
    pub lease: String,
    /// Whose it is.
    pub uid: u32,
    /// The holding process, if one holds it.
    pub pid: Option<u32>,
    /// The holder's name, if it has one.
    pub name: Option<String>,
    /// The model it was asked for.
    pub model: String,
    /// Promised bytes by device UUID.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub granted_bytes: BTreeMap<String, Bytes>,
    /// Of which seen in use, by device UUID.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub visible_bytes: BTreeMap<String, Bytes>,
}

impl Subject {
    /// What an event says of a lease.
    pub fn of(lease: &Lease) -> Self {
        let shares = |bytes: fn(&super::lease::Share) -> Bytes| {
            lease
                .devices
                .iter()
                .map(|(uuid, share)| (uuid.clone(), bytes(share)))
                .collect()
        };

        Self {
            lease: lease.id.clone(),
            uid: lease.uid,
            pid: lease.holder.process.map(|process| process.pid),
            name: lease.holder.name.clone(),
            model: short(&lease.question.model),
            granted_bytes: shares(|share| share.granted_bytes),
            visible_bytes: shares(|share| share.visible_bytes),
        }
    }
}

/// The beginning of a model's name: a path may be long, and an event is written down.
fn short(name: &str) -> String {
    if name.len() <= LONGEST_NAME {
        return name.to_owned();
    }

    let end = (0..=LONGEST_NAME)
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
    /// Its command, where known.
    pub name: Option<String>,
    /// Its user, where known.
    pub uid: Option<u32>,
    /// What it holds, where the driver says.
    #[schema(value_type = Option<u64>)]
    pub used_bytes: Option<Bytes>,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A promise was given.
    Granted(Subject),
    /// Part of the promised memory is seen.
    Settling(Subject),
    /// The holder has what it wanted.
    Settled(Subject),
    /// The end was pushed out because its memory still grows.
    Extended(Subject),
    /// Its owner pushed the end out.
    Renewed(Subject),
    /// It ended.
    Ended {
        /// Which.
        #[serde(flatten, deserialize_with = "hf_mem_core::strict_json::nested")]
        lease: Subject,
        /// Why.
        reason: EndReason,
    },
    /// Memory that was promised has been taken by others: what is free no longer covers what is
    /// still owed.
    Overdrawn {
        /// The device.
        device: String,
        /// By how much.
        #[schema(value_type = u64)]
        short_by_bytes: Bytes,
        /// The leases that are owed memory there.
        leases: Vec<String>,
        /// Who holds memory there without a lease, the largest first.
        #[serde(deserialize_with = "hf_mem_core::strict_json::nested")]
        strangers: Vec<UnleasedProcess>,
    },
    /// What is free covers what is owed again.
    Recovered {
        /// The device.
        device: String,
    },
    /// Someone waits in line.
    Waiting {
        /// The waiter's ticket.
        ticket: u64,
        /// Whose.
        uid: u32,
        /// Place in line, 1 is the head.
        position: usize,
    },
    /// A waiter left the line without a lease.
    WaitEnded {
        /// The waiter's ticket.
        ticket: u64,
        /// Whether its time ran out (otherwise it hung up).
        timed_out: bool,
    },
    /// Something went wrong that a person should know, such as a file set aside or a disk that is
    /// full.
    Warning {
        /// What.
        message: String,
    },
}

impl Event {
    /// The lease that it is about, where it is about one.
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

/// Something that happened, and when by the wall's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dated {
    /// When.
    pub at: SystemTime,
    /// What.
    pub event: Event,
}

/// How often things happened since the start: for `/metrics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Promises given.
    pub granted: u64,
    /// Promises refused, for whatever reason.
    pub refused: u64,
    /// Times a lease was seen to be settled.
    pub settled: u64,
    /// Ends pushed out for growing memory.
    pub extended: u64,
    /// Renewals.
    pub renewed: u64,
    /// Released by the owner.
    pub released: u64,
    /// Released by the holder's death.
    pub holder_died: u64,
    /// Expired.
    pub expired: u64,
    /// Orphaned by a restart.
    pub orphaned: u64,
    /// Times a device was found overdrawn.
    pub overdrawn: u64,
    /// Waiters that left without a lease.
    pub waits_ended: u64,
    /// Writes of the ledger that failed.
    pub store_failures: u64,
}

impl Counters {
    /// All of them by the words of `/metrics`.
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
