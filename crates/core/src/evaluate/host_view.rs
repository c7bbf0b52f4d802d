//! The host as a question sees it: available memory, holders of memory, and notes on devices.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::bytes::Bytes;
use crate::device::{Snapshot, declared};
use crate::placement::{Availability, MemoryHolder, availability};
use crate::report::problem::Problem;

/// The devices and the memory that a question can use.
#[derive(Clone, Debug)]
pub struct HostView {
    /// The available memory of each device.
    pub availability: Availability,
    /// The time of the reading.
    pub sampled_at: SystemTime,
    /// Whether the reading is older than it should be.
    pub stale: bool,
    /// Processes and leases that could make room.
    pub holders: Vec<MemoryHolder>,
    /// Bytes a second that become free without action, by UUID.
    pub draining: BTreeMap<String, Bytes>,
    /// Warnings of devices that may still be used, by UUID.
    pub notes: BTreeMap<String, Vec<String>>,
}

impl HostView {
    /// Returns the devices that `spec` declares, as free as it says.
    pub fn declared(spec: &str, at: SystemTime) -> Result<Self, Problem> {
        let snapshot = declared::parse(spec, at)?;
        Ok(Self::new(&snapshot, &BTreeMap::new()))
    }

    /// Returns the view of a reading, less what leases claim.
    pub fn new(snapshot: &Snapshot, leased: &BTreeMap<String, Bytes>) -> Self {
        Self {
            availability: availability(snapshot, leased),
            sampled_at: snapshot.sampled_at,
            stale: snapshot.stale,
            holders: MemoryHolder::processes(snapshot),
            draining: BTreeMap::new(),
            notes: notes(snapshot),
        }
    }
}

/// Collects the warnings of each device.
fn notes(snapshot: &Snapshot) -> BTreeMap<String, Vec<String>> {
    let noted = snapshot
        .devices
        .iter()
        .filter(|device| !device.warnings.is_empty());

    noted
        .map(|device| {
            let messages = device.warnings.iter();
            let messages = messages.map(|warning| warning.message.clone()).collect();
            (device.facts.uuid.clone(), messages)
        })
        .collect()
}
