//! Attributes memory on a device to leases: how much of each lease is already in use. No byte
//! counts for two leases.

mod visible_memory;

use hf_mem_core::device::{Device, Process, Snapshot};

pub use self::visible_memory::visible;
pub(super) use self::visible_memory::visible_in;

use super::clock::Boottime;
use super::holder::{Ancestry, ProcessIdentity};
use super::lease::{Baseline, Holder, Lease};

/// A reading of the devices, and the process trees to attribute its memory with.
#[derive(Clone, Copy, Debug)]
pub struct HolderReading<'a> {
    /// The snapshot.
    pub snapshot: &'a Snapshot,
    /// When the reading *began*. It may lack memory that was taken after that.
    pub taken_at: Boottime,
    /// The trees of the processes in it, of all leases' holders, and of a new grant's holder.
    pub ancestry: &'a Ancestry,
}

impl<'a> HolderReading<'a> {
    /// A device by its UUID.
    pub fn device(&self, uuid: &str) -> Option<&'a Device> {
        self.snapshot
            .devices
            .iter()
            .find(|device| device.facts.uuid == uuid)
    }
}

/// A device in a reading, with the ancestors of each process on it.
#[derive(Debug)]
pub(super) struct Occupied<'a> {
    device: &'a Device,
    reading: &'a HolderReading<'a>,
    lines: Vec<Vec<ProcessIdentity>>,
}

impl<'a> Occupied<'a> {
    pub(super) fn new(device: &'a Device, reading: &'a HolderReading<'a>) -> Self {
        let lines = device
            .processes
            .iter()
            .map(|process| reading.ancestry.line_of(process.pid))
            .collect();

        Self {
            device,
            reading,
            lines,
        }
    }

    fn processes(&self) -> impl Iterator<Item = (&Process, &[ProcessIdentity])> {
        self.device
            .processes
            .iter()
            .zip(self.lines.iter().map(Vec::as_slice))
    }
}

/// Returns the distance of a process, with this line of ancestors, to a lease's holder. The nearest
/// lease takes memory first. `None`: the process does not belong to the holder.
fn distance_to_holder(lease: &Lease, process: &Process, line: &[ProcessIdentity]) -> Option<usize> {
    let lease_holder = &lease.holder;
    if let Some(holder) = &lease_holder.process {
        let start_in_tree = line.first().map(|process| process.start_ticks);

        // The driver's entry must name the very process in the tree. In a container's own PID
        // namespace the pid may be another process's, and memory attributed to the wrong lease
        // would be granted twice.
        let is_same = process.start_ticks.is_some() && process.start_ticks == start_in_tree;
        if is_same && let Some(generations) = line.iter().position(|ancestor| ancestor == holder) {
            return Some(generations);
        }

        // A process that was seen in the tree stays in it, and so do its children, also after a
        // process in between has exited.
        let members = &lease.members;

        if !members.is_empty() {
            let identity = process.start_ticks.map(|start_ticks| ProcessIdentity {
                pid: process.pid,
                start_ticks,
            });

            if identity.is_some_and(|identity| members.contains(&identity))
                || (is_same && line.iter().any(|ancestor| members.contains(ancestor)))
            {
                return Some(MEMBER);
            }
        }
    }

    let in_unit = lease_holder.unit.is_some() && lease_holder.unit == process.unit;
    let in_cgroup = match (&lease_holder.cgroup, &process.cgroup) {
        (Some(outer), Some(inner)) => inner
            .strip_prefix(outer.trim_end_matches('/'))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        _ => false,
    };

    (in_unit || in_cgroup).then_some(GROUP)
}

/// The distance of a process that was seen in the tree: farther than any generation.
const MEMBER: usize = 1_000;
/// The distance of a process in the lease's unit or cgroup: farther still.
const GROUP: usize = 2_000;

/// Returns what processes that may belong to the holder hold on a device now. A lease granted on
/// this reading does not count it. A process that is known to be in another tree never joins the
/// holder's.
pub(super) fn baselines(
    holder: &Holder,
    device: &Device,
    reading: &HolderReading<'_>,
) -> Vec<Baseline> {
    device
        .processes
        .iter()
        .filter(|process| may_belong_to(process, holder, reading))
        .map(|process| Baseline {
            pid: process.pid,
            start_ticks: process.start_ticks,
            used_bytes: process.used_bytes,
        })
        .collect()
}

/// Whether a process belongs to a holder or may turn out to.
fn may_belong_to(process: &Process, holder: &Holder, reading: &HolderReading<'_>) -> bool {
    if holder.unit.is_some() || holder.cgroup.is_some() {
        return true;
    }

    holder.process.is_some_and(|holder| {
        let line = reading.ancestry.line_of(process.pid);
        line.contains(&holder) || !reading.ancestry.reaches_init(&line)
    })
}

/// Returns the processes on a device that descend from the holder, so that they stay the holder's.
pub(super) fn descendants(lease: &Lease, occupied: &Occupied<'_>) -> Vec<ProcessIdentity> {
    occupied
        .processes()
        .filter_map(|(process, line)| {
            let distance = distance_to_holder(lease, process, line)?;
            let start_ticks = line.first()?.start_ticks;
            (distance < GROUP).then_some(ProcessIdentity {
                pid: process.pid,
                start_ticks,
            })
        })
        .collect()
}

/// Returns the inner lease's holder if it is in the outer holder's tree. It stays there, even if
/// the processes in between exit before a reading shows memory of it.
pub(super) fn holder_below(
    inner: &Lease,
    outer: &Lease,
    ancestry: &Ancestry,
) -> Option<ProcessIdentity> {
    let (inner, outer) = (inner.holder.process?, outer.holder.process?);
    let is_known = inner != outer && ancestry.start_ticks(inner.pid) == Some(inner.start_ticks);
    (is_known && ancestry.generations_below(&outer, inner.pid).is_some()).then_some(inner)
}

/// Whether a process belongs to any of these leases.
pub(super) fn is_lessee(leases: &[&Lease], process: &Process, reading: &HolderReading<'_>) -> bool {
    let line = reading.ancestry.line_of(process.pid);
    leases
        .iter()
        .any(|lease| distance_to_holder(lease, process, &line).is_some())
}
