//! Events of leases: sent on the watch stream, written to the journal, counted for the metrics.

use std::time::SystemTime;

use hf_mem_core::report::lease::EndReason;

use super::lease::Lease;
pub use crate::api::event::{Event, LeaseEvent, Subject, UnleasedProcess};

/// The longest model name in an event; repository names are shorter.
const MAX_NAME: usize = 200;

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

/// Something that happened, and when by the wall's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dated {
    /// The wall time.
    pub at: SystemTime,
    /// The event.
    pub event: Event,
}

impl From<Dated> for LeaseEvent {
    fn from(Dated { at, event }: Dated) -> Self {
        let state = match &event {
            Event::Ended { reason, .. } => Some(reason.state()),
            _ => None,
        };

        Self {
            at: humantime::format_rfc3339_millis(at).to_string(),
            state,
            event,
        }
    }
}

/// How often things happened since the start: for `/metrics`.
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
