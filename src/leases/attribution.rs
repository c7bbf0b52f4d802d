//! Whose memory is whose on a device: what part of each promise is already in use, no byte counted
//! for two leases.

use std::collections::{BTreeMap, HashMap};

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{Device, Process, Snapshot};

use super::clock::Boottime;
use super::holder::{Ancestry, ProcessIdentity};
use super::lease::{Baseline, Holder, Lease};

/// One reading of the devices, and what is needed to judge it.
#[derive(Clone, Copy, Debug)]
pub struct HolderReading<'a> {
    /// What was read.
    pub snapshot: &'a Snapshot,
    /// When the reading *began*: memory taken after that may be missing from it.
    pub taken_at: Boottime,
    /// The process trees of the processes in it and of the holders of all leases (and of the one
    /// that asks).
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

/// One device in a reading, and the lines of descent of those who hold memory there.
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

/// How near a process, of this line of descent, is to a lease's holder; nearer leases are served
/// first. `None`: not its.
fn nearness(lease: &Lease, process: &Process, line: &[ProcessIdentity]) -> Option<usize> {
    let lease_holder = &lease.holder;
    if let Some(holder) = &lease_holder.process {
        let in_tree = line.first().map(|read| read.start_ticks);

        // The driver's entry must be proved to be of the very process that the tree was read of: in
        // a container's own PID namespace its number may be another's, and memory given to the
        // wrong lease would be promised twice.
        let same = process.start_ticks.is_some() && process.start_ticks == in_tree;
        if same && let Some(generations) = line.iter().position(|ancestor| ancestor == holder) {
            return Some(generations);
        }
        // What was once seen in the tree stays of it, and so do its own children, when a process in
        // between dies.
        let members = &lease.members;

        if !members.is_empty() {
            let itself = process.start_ticks.map(|start_ticks| ProcessIdentity {
                pid: process.pid,
                start_ticks,
            });

            if itself.is_some_and(|itself| members.contains(&itself))
                || (same && line.iter().any(|ancestor| members.contains(ancestor)))
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

/// Farther than any generation: was once seen in the tree.
const MEMBER: usize = 1_000;
/// Farther still: shares the unit or cgroup.
const GROUP: usize = 2_000;

/// What processes on a device hold now that may be the holder's: what a lease granted on this
/// reading does not count as its own. One that is known to be of another tree never comes into the
/// holder's.
pub(super) fn baselines(
    holder: &Holder,
    device: &Device,
    reading: &HolderReading<'_>,
) -> Vec<Baseline> {
    let by_group = holder.unit.is_some() || holder.cgroup.is_some();
    let may_be = |process: &&Process| match &holder.process {
        _ if by_group => true,
        Some(holder) => {
            let line = reading.ancestry.line_of(process.pid);
            line.contains(holder) || !reading.ancestry.reaches_init(&line)
        }
        None => false,
    };

    let entry = |process: &Process| Baseline {
        pid: process.pid,
        start_ticks: process.start_ticks,
        used_bytes: process.used_bytes,
    };

    device.processes.iter().filter(may_be).map(entry).collect()
}

/// The baseline of a process in a lease; `None` where it must not be attributed at all.
fn baseline_of(lease: &Lease, uuid: &str, process: &Process) -> Option<Bytes> {
    let share = lease.devices.get(uuid)?;
    let same = |base: &&Baseline| {
        base.pid == process.pid
            && (base.start_ticks == process.start_ticks
                || base.start_ticks.is_none()
                || process.start_ticks.is_none())
    };

    // A process may have several entries (compute, graphics): the largest is the safe one.
    let mut largest = Bytes::ZERO;
    for base in share.baselines.iter().filter(same) {
        largest = largest.max(base.used_bytes?);
    }

    Some(largest)
}

/// The driver lists a process that computes and draws twice, with the same memory: only the smaller
/// entry counts, and no entry at all where one of them is unknown.
fn listed_again(device: &Device, place: usize, process: &Process) -> bool {
    let key = |entry: &Process, place: usize| (entry.used_bytes, place);
    let mut entries = device
        .processes
        .iter()
        .enumerate()
        .filter(|(_, entry)| entry.pid == process.pid);

    entries.any(|(other, entry)| key(entry, other) < key(process, place))
}

/// What is taken of one process.
#[derive(Default)]
struct Taken(Vec<LeasePart>);

/// What one lease takes of one process.
#[derive(Clone, Copy)]
struct LeasePart {
    /// Of the lease.
    baseline: Bytes,
    bytes: Bytes,
    /// Of one that has ended: the first reading past its end, or the far end of time before there
    /// was one. Of one that lives: the moment of boot.
    ended: Boottime,
}

impl LeasePart {
    /// Whether it may have been taken after the baselines of a lease that was granted on a reading
    /// of `baseline_at`.
    fn overlaps(&self, baseline_at: Boottime) -> bool {
        self.ended > baseline_at
    }
}

impl Taken {
    /// The most that a lease with this baseline, of a reading at `baseline_at`, may be given of a
    /// process that holds `used`. Memory above any baseline can be given once only: for each
    /// baseline at or below, what is given above it stays within `used`. What one that has ended
    /// took while this one lived may lie above all of them.
    fn room(&self, used: Bytes, baseline: Bytes, baseline_at: Boottime) -> Bytes {
        let lower = self
            .0
            .iter()
            .map(|part| part.baseline)
            .filter(|other| *other <= baseline);
        let rooms = lower.chain([baseline]).map(|threshold| {
            let above = self
                .0
                .iter()
                .filter(|part| part.baseline >= threshold || part.overlaps(baseline_at));
            let given: Bytes = above.map(|part| part.bytes).sum();
            used.less(threshold)
                .and_then(|grown| grown.less(given))
                .unwrap_or(Bytes::ZERO)
        });

        rooms.min().unwrap_or(Bytes::ZERO)
    }
}

/// One lease's claim to the memory of one process.
struct Claim<'a> {
    lease: &'a Lease,
    /// How far its holder is from the process.
    distance: usize,
    /// Memory below it is not the lease's.
    baseline: Bytes,
}

/// One turn of taking: in this order, a lease takes of one process until it has `most` in all.
struct Turn<'a> {
    /// What was seen before, and then what is new.
    again: bool,
    distance: usize,
    place: usize,
    used: Bytes,
    /// Memory above it can be the lease's.
    from: Bytes,
    /// Memory above it is less by what the lease takes.
    baseline: Bytes,
    most: Bytes,
    lease: &'a Lease,
}

impl Turn<'_> {
    fn order(&self) -> (bool, usize, bool, u64, usize) {
        (
            self.again,
            self.distance,
            self.lease.is_live(),
            self.lease.serial,
            self.place,
        )
    }
}

/// The part of each lease's promise that its holder is seen to hold on one device, by the lease's
/// serial.
///
/// Only what a process holds beyond its baseline counts, never more than was promised, and never
/// the same byte for two leases: the nearest holder first, then the older lease. A lease that has
/// ended still takes its part when others go on, because its memory may well be there still: before
/// those of the same holder, and of a nearer one before all that it was not seen to hold already.
pub fn visible(leases: &[&Lease], uuid: &str, reading: &HolderReading<'_>) -> BTreeMap<u64, Bytes> {
    match reading.device(uuid) {
        Some(device) if !leases.is_empty() => visible_in(leases, &Occupied::new(device, reading)),
        _ => BTreeMap::new(),
    }
}

/// As [`visible`].
pub(super) fn visible_in(leases: &[&Lease], occupied: &Occupied<'_>) -> BTreeMap<u64, Bytes> {
    let mut seen = BTreeMap::new();
    let mut turns = Vec::new();

    for (place, (process, line)) in occupied.processes().enumerate() {
        let Some(used) = process.used_bytes.filter(|used| !used.overflowed()) else {
            continue;
        };
        if !listed_again(occupied.device, place, process) {
            turns.extend(turns_at(leases, occupied, (process, line), (place, used)));
        }
    }

    turns.sort_by_key(Turn::order);
    let mut taken: HashMap<usize, Taken> = HashMap::new();

    for turn in turns {
        let so_far = seen.entry(turn.lease.serial).or_insert(Bytes::ZERO);
        let wanted = turn.most.less(*so_far).unwrap_or(Bytes::ZERO);
        let of_process = taken.entry(turn.place).or_default();
        let given = wanted.min(of_process.room(turn.used, turn.from, turn.lease.baseline_at));
        let far = Boottime::from_millis(u64::MAX);

        let ended = turn
            .lease
            .ending
            .map_or(Boottime::BOOT, |ending| ending.seen_at.unwrap_or(far));
        of_process.0.push(LeasePart {
            baseline: turn.baseline,
            bytes: given,
            ended,
        });

        *so_far += given;
    }

    seen
}

/// Who may take of one process (which holds `used`, at `place` in the list), and up to what.
fn turns_at<'a>(
    leases: &[&'a Lease],
    occupied: &Occupied<'_>,
    (process, line): (&Process, &[ProcessIdentity]),
    (place, used): (usize, Bytes),
) -> Vec<Turn<'a>> {
    let uuid = &occupied.device.facts.uuid;
    let mut claims = Vec::new();

    for lease in leases {
        if lease.seen_by(occupied.reading.taken_at)
            && let Some(distance) = nearness(lease, process, line)
            && let Some(baseline) = baseline_of(lease, uuid, process)
        {
            // Of those that know it from before, the one whose holder is deepest in the others'
            // trees is nearest.
            let distance = if distance == MEMBER {
                MEMBER.saturating_sub(depth(lease, leases))
            } else {
                distance
            };

            claims.push(Claim {
                lease,
                distance,
                baseline,
            });
        }
    }
    // Which of its leases a process freed memory of, and for which it took some, is not to be seen.
    // As long as all of them live only their sum counts; of one that has ended the most is assumed,
    // so that no other seems served by it.
    let lowest = claims
        .iter()
        .map(|claim| claim.baseline)
        .min()
        .unwrap_or(Bytes::ZERO);

    let farthest_ended = claims
        .iter()
        .filter(|claim| !claim.lease.is_live())
        .map(|claim| claim.distance)
        .max();

    let mut turns = Vec::new();
    for Claim {
        lease,
        distance,
        baseline,
    } in claims
    {
        let Some(share) = lease.devices.get(uuid) else {
            continue;
        };

        let turn = |again, from, most| Turn {
            again,
            distance,
            place,
            used,
            from,
            baseline,
            most,
            lease,
        };

        match lease.ending {
            // After the first reading past its end a lease takes no more than was seen then.
            Some(ending) if ending.seen_at.is_some() => {
                turns.push(turn(false, lowest, share.visible_bytes));
            }
            Some(_) => turns.push(turn(false, lowest, share.granted_bytes)),
            None => {
                // What was seen as its own does not become that of one farther off because that one
                // ends.
                if farthest_ended.is_some_and(|ended| distance < ended) {
                    turns.push(turn(false, baseline, share.visible_bytes));
                }
                turns.push(turn(true, baseline, share.granted_bytes));
            }
        }
    }

    turns
}

/// In how many others' trees a lease's holder is.
fn depth(lease: &Lease, leases: &[&Lease]) -> usize {
    let Some(holder) = lease.holder.process else {
        return 0;
    };

    leases
        .iter()
        .filter(|other| other.holder.process != Some(holder) && other.members.contains(&holder))
        .count()
}

/// Processes on a device that are now seen to be the holder's by descent, so that they stay its.
pub(super) fn descendants(lease: &Lease, occupied: &Occupied<'_>) -> Vec<ProcessIdentity> {
    let identity = |(process, line): (&Process, &[ProcessIdentity])| {
        let distance = nearness(lease, process, line)?;
        let start_ticks = line.first()?.start_ticks;
        (distance < GROUP).then_some(ProcessIdentity {
            pid: process.pid,
            start_ticks,
        })
    };

    occupied.processes().filter_map(identity).collect()
}

/// Whether one lease's holder is of another's tree: then it stays so, even if the processes in
/// between die before any reading shows memory of it.
pub(super) fn holder_below(
    inner: &Lease,
    outer: &Lease,
    ancestry: &Ancestry,
) -> Option<ProcessIdentity> {
    let (inner, outer) = (inner.holder.process?, outer.holder.process?);
    let same = inner != outer && ancestry.start_ticks(inner.pid) == Some(inner.start_ticks);
    (same && ancestry.generations_below(&outer, inner.pid).is_some()).then_some(inner)
}

/// Whether a process is of any of these leases.
pub(super) fn is_lessee(leases: &[&Lease], process: &Process, reading: &HolderReading<'_>) -> bool {
    let line = reading.ancestry.line_of(process.pid);
    leases
        .iter()
        .any(|lease| nearness(lease, process, &line).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_above_a_baseline_is_given_once() {
        let at = Boottime::from_millis(7);
        let part = |baseline, bytes| LeasePart {
            baseline: Bytes::new(baseline),
            bytes: Bytes::new(bytes),
            ended: Boottime::BOOT,
        };

        // A (baseline 0) was given 10 of a process that holds 14; B's baseline is 4.
        let taken = Taken(vec![part(0, 10)]);
        assert_eq!(taken.room(Bytes::new(14), Bytes::new(4), at), Bytes::new(4));

        // A took only what lay below B's baseline: all above is B's.
        let taken = Taken(vec![part(0, 4)]);
        assert_eq!(
            taken.room(Bytes::new(14), Bytes::new(4), at),
            Bytes::new(10)
        );

        // The same from the other side: what a later baseline took is above the earlier one too.
        let taken = Taken(vec![part(4, 10)]);
        assert_eq!(taken.room(Bytes::new(14), Bytes::ZERO, at), Bytes::new(4));

        // Never below zero.
        assert_eq!(taken.room(Bytes::new(2), Bytes::new(4), at), Bytes::ZERO);

        // One that ended before B's reading is in B's baseline; one that ended later may have grown
        // since.
        let ended = |moment| {
            Taken(vec![LeasePart {
                ended: Boottime::from_millis(moment),
                ..part(0, 4)
            }])
        };

        assert_eq!(
            ended(6).room(Bytes::new(14), Bytes::new(4), at),
            Bytes::new(10)
        );
        assert_eq!(
            ended(8).room(Bytes::new(14), Bytes::new(4), at),
            Bytes::new(6)
        );
    }
}
