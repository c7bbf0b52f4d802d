//! Finds the memory changes of processes that the journal records.

use std::collections::{BTreeMap, BTreeSet};

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{Device, Snapshot};

use super::journal::MemoryChange;

/// Finds, reading after reading, the processes whose memory changed by at least a step.
#[derive(Clone, Debug)]
pub struct MemoryWatch {
    step: Bytes,
    /// The last recorded change by device and pid.
    known: BTreeMap<(String, u32), MemoryChange>,
}

impl MemoryWatch {
    /// Smaller changes than `step` are not recorded until they add up to one.
    pub fn new(step: Bytes) -> Self {
        Self {
            step,
            known: BTreeMap::new(),
        }
    }

    /// The processes that hold memory, as last recorded.
    pub fn holders(&self) -> impl Iterator<Item = &MemoryChange> {
        self.known.values()
    }

    /// Returns the changes since the last record that `admit` accepts. A change that it rejects is
    /// part of a later one. A device or process that could not be read has not changed. On devices
    /// that are not `followed` this reading comes after a gap.
    pub fn changes(
        &mut self,
        snapshot: &Snapshot,
        followed: &BTreeSet<String>,
        mut admit: impl FnMut(&MemoryChange) -> bool,
    ) -> Vec<MemoryChange> {
        let readable: Vec<&Device> = snapshot
            .devices
            .iter()
            .filter(|device| device.free_bytes.is_some())
            .collect();

        // Exits come first. Otherwise new processes could use up the budget, and the entries of
        // exited ones would never be removed.
        let mut changes = Vec::new();
        for device in &readable {
            self.take_exits(device, followed, &mut admit, &mut changes);
        }

        for device in &readable {
            self.take_moves(device, followed, &mut admit, &mut changes);
        }

        changes
    }

    /// Takes the processes that hold nothing on the device any more.
    fn take_exits(
        &mut self,
        device: &Device,
        followed: &BTreeSet<String>,
        admit: &mut impl FnMut(&MemoryChange) -> bool,
        changes: &mut Vec<MemoryChange>,
    ) {
        let uuid = &device.facts.uuid;

        self.known.retain(|_, known| {
            let is_elsewhere = known.device != *uuid;
            let still_holds = device
                .processes
                .iter()
                .any(|process| process.pid == known.pid);
            if is_elsewhere || still_holds {
                return true;
            }

            let exit = MemoryChange {
                before_bytes: known.after_bytes,
                after_bytes: None,
                free_bytes: device.free_bytes,
                found: !followed.contains(uuid),
                ..known.clone()
            };

            let admitted = admit(&exit);
            if admitted {
                changes.push(exit);
            }

            !admitted
        });
    }

    /// Takes the processes whose memory on the device changed by at least a step.
    fn take_moves(
        &mut self,
        device: &Device,
        followed: &BTreeSet<String>,
        admit: &mut impl FnMut(&MemoryChange) -> bool,
        changes: &mut Vec<MemoryChange>,
    ) {
        let uuid = &device.facts.uuid;

        for process in &device.processes {
            let Some(after) = process.used_bytes else {
                continue;
            };

            let key = (uuid.clone(), process.pid);
            let before = self.known.get(&key).and_then(|known| known.after_bytes);
            let known = before.unwrap_or(Bytes::ZERO);
            let moved = known.max(after).less(known.min(after));
            if moved.is_some_and(|moved| moved < self.step) {
                continue;
            }

            let change = MemoryChange {
                device: uuid.clone(),
                pid: process.pid,
                name: process.name.clone(),
                uid: process.uid,
                before_bytes: before,
                after_bytes: Some(after),
                free_bytes: device.free_bytes,
                found: !followed.contains(uuid),
            };

            if admit(&change) {
                self.known.insert(key, change.clone());
                changes.push(change);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leases::testing::process;

    #[test]
    fn small_moves_add_up() {
        let mut snapshot = crate::leases::testing::snapshot(&[("GPU-a", 80)]);
        let followed = BTreeSet::from(["GPU-a".to_owned()]);
        let mut watch = MemoryWatch::new(Bytes::mib(256));
        let mut recorded = Vec::new();
        for used in [100, 300, 400, 600] {
            snapshot.devices[0].processes = vec![process(7, used)];
            recorded.extend(
                watch
                    .changes(&snapshot, &followed, |_| true)
                    .into_iter()
                    .map(|change| change.after_bytes),
            );
        }

        snapshot.devices[0].free_bytes = None;
        snapshot.devices[0].processes.clear();

        assert!(
            watch.changes(&snapshot, &followed, |_| true).is_empty(),
            "a failed reading is no change"
        );
        snapshot.devices[0].free_bytes = Some(Bytes::gib(80));

        recorded.extend(
            watch
                .changes(&snapshot, &followed, |_| true)
                .into_iter()
                .map(|change| change.after_bytes),
        );

        assert_eq!(
            recorded,
            [Some(Bytes::mib(300)), Some(Bytes::mib(600)), None]
        );
        assert!(watch.changes(&snapshot, &followed, |_| true).is_empty());
    }

    #[test]
    fn exited_processes_are_forgotten() {
        let followed = BTreeSet::from(["GPU-a".to_owned()]);
        let mut watch = MemoryWatch::new(Bytes::mib(256));
        let mut snapshot = crate::leases::testing::snapshot(&[("GPU-a", 80)]);
        for reading in 0..1_000 {
            // Two new processes at each reading, and one line is admitted.
            snapshot.devices[0].processes = vec![
                process(1000 + 2 * reading, 600),
                process(1001 + 2 * reading, 600),
            ];
            let mut may_admit = true;
            watch.changes(&snapshot, &followed, |_| std::mem::take(&mut may_admit));
        }

        assert!(watch.known.len() < 3, "{} are kept", watch.known.len());
    }
}
