//! Computes how much of each lease its holder is seen to hold on one device.

use std::collections::{BTreeMap, HashMap};

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{Device, Process};

use super::{HolderReading, MEMBER, Occupied, distance_to_holder};
use crate::leases::clock::Boottime;
use crate::leases::holder::ProcessIdentity;
use crate::leases::lease::Lease;

/// Returns the baseline of a process in a lease; `None` if its memory must not be attributed.
fn baseline_of(lease: &Lease, uuid: &str, process: &Process) -> Option<Bytes> {
    let share = lease.devices.get(uuid)?;
    // A process can have several entries (compute, graphics): the largest is the safe one.
    let mut largest = Bytes::ZERO;
    for base in &share.baselines {
        let may_be_same = base.pid == process.pid
            && (base.start_ticks == process.start_ticks
                || base.start_ticks.is_none()
                || process.start_ticks.is_none());
        if may_be_same {
            largest = largest.max(base.used_bytes?);
        }
    }

    Some(largest)
}

/// Whether another entry of the same process counts instead of this one. The driver lists a process
/// that computes and draws twice, with the same memory. Only the smaller entry counts, and none if
/// one of them is unknown.
fn is_duplicate(device: &Device, index: usize, process: &Process) -> bool {
    device
        .processes
        .iter()
        .enumerate()
        .filter(|(_, entry)| entry.pid == process.pid)
        .any(|(other, entry)| (entry.used_bytes, other) < (process.used_bytes, index))
}

/// The memory of one process that is attributed to leases.
#[derive(Default)]
struct AttributedParts(Vec<LeasePart>);

/// The memory of one process that is attributed to one lease.
#[derive(Clone, Copy)]
struct LeasePart {
    /// The baseline of the process in the lease.
    baseline: Bytes,
    bytes: Bytes,
    /// For an ended lease: the first reading after its end, or the end of time before there is one.
    /// For a live lease: the time of boot.
    ended: Boottime,
}

impl LeasePart {
    /// Whether it may have been taken after the baselines of a lease that was granted on the
    /// reading of `baseline_at`.
    fn overlaps(&self, baseline_at: Boottime) -> bool {
        self.ended > baseline_at
    }
}

impl AttributedParts {
    /// The most that can be attributed of a process that holds `used` to a lease with this
    /// baseline, of a reading at `baseline_at`.
    ///
    /// Each byte above a baseline belongs to one lease. So, for this baseline and each lower one,
    /// the memory attributed above it must stay within `used`; the tightest of these limits holds.
    /// A lease that has ended may have taken memory above all of them.
    fn remaining(&self, used: Bytes, baseline: Bytes, baseline_at: Boottime) -> Bytes {
        self.0
            .iter()
            .map(|part| part.baseline)
            .filter(|other| *other <= baseline)
            .chain([baseline])
            .map(|threshold| self.remaining_above(threshold, used, baseline_at))
            .min()
            .unwrap_or(Bytes::ZERO)
    }

    fn remaining_above(&self, threshold: Bytes, used: Bytes, baseline_at: Boottime) -> Bytes {
        let attributed: Bytes = self
            .0
            .iter()
            .filter(|part| part.baseline >= threshold || part.overlaps(baseline_at))
            .map(|part| part.bytes)
            .sum();

        used.less(threshold)
            .and_then(|grown| grown.less(attributed))
            .unwrap_or(Bytes::ZERO)
    }
}

/// The claim of one lease to the memory of one process.
struct Claim<'a> {
    lease: &'a Lease,
    /// The distance of the process to the lease's holder.
    distance: usize,
    /// Memory below it does not belong to the lease.
    baseline: Bytes,
}

/// A step of the attribution: a lease gets memory of one process until it has `max` in total. The
/// steps run in the order of [`AttributionStep::order`].
struct AttributionStep<'a> {
    /// Whether the step attributes new memory; memory that was seen before comes first.
    is_new: bool,
    distance: usize,
    /// The index of the process on the device.
    process: usize,
    used: Bytes,
    /// The lease can get memory above this.
    from: Bytes,
    /// The lease's part is no longer available above this.
    baseline: Bytes,
    max: Bytes,
    lease: &'a Lease,
}

impl AttributionStep<'_> {
    fn order(&self) -> (bool, usize, bool, u64, usize) {
        (
            self.is_new,
            self.distance,
            self.lease.is_live(),
            self.lease.serial,
            self.process,
        )
    }
}

/// Returns the part of each lease that its holder is seen to hold on one device, by the lease's
/// serial.
///
/// Only what a process holds beyond its baseline counts, never more than was granted, and never the
/// same byte for two leases. The nearest holder comes first, then the older lease. An ended lease
/// still gets its part, because its memory may still be there: before the leases of the same
/// holder, and before all memory that a nearer holder was not seen to hold already.
pub fn visible(leases: &[&Lease], uuid: &str, reading: &HolderReading<'_>) -> BTreeMap<u64, Bytes> {
    match reading.device(uuid) {
        Some(device) if !leases.is_empty() => visible_in(leases, &Occupied::new(device, reading)),
        _ => BTreeMap::new(),
    }
}

/// Does the same as [`visible`], for a device whose process lines are known.
pub(in crate::leases) fn visible_in(
    leases: &[&Lease],
    occupied: &Occupied<'_>,
) -> BTreeMap<u64, Bytes> {
    let mut seen = BTreeMap::new();
    let mut steps = Vec::new();

    for (index, (process, line)) in occupied.processes().enumerate() {
        let Some(used) = process.used_bytes.filter(|used| !used.overflowed()) else {
            continue;
        };
        if !is_duplicate(occupied.device, index, process) {
            let entry = OccupyingProcess {
                process,
                line,
                index,
                used,
            };
            steps.extend(steps_for(leases, occupied, &entry));
        }
    }

    steps.sort_by_key(AttributionStep::order);
    let mut parts_by_process: HashMap<usize, AttributedParts> = HashMap::new();

    for step in steps {
        let so_far = seen.entry(step.lease.serial).or_insert(Bytes::ZERO);
        let wanted = step.max.less(*so_far).unwrap_or(Bytes::ZERO);
        let parts = parts_by_process.entry(step.process).or_default();
        let bytes = wanted.min(parts.remaining(step.used, step.from, step.lease.baseline_at));
        let end_of_time = Boottime::from_millis(u64::MAX);

        let ended = step.lease.ending.map_or(Boottime::BOOT, |ending| {
            ending.seen_at.unwrap_or(end_of_time)
        });
        parts.0.push(LeasePart {
            baseline: step.baseline,
            bytes,
            ended,
        });

        *so_far += bytes;
    }

    seen
}

/// A process that holds memory on a device.
struct OccupyingProcess<'p> {
    process: &'p Process,
    line: &'p [ProcessIdentity],
    index: usize,
    used: Bytes,
}

/// Returns the leases that can get memory of one process, and up to how much.
fn steps_for<'a>(
    leases: &[&'a Lease],
    occupied: &Occupied<'_>,
    entry: &OccupyingProcess<'_>,
) -> Vec<AttributionStep<'a>> {
    let uuid = &occupied.device.facts.uuid;
    let mut claims = Vec::new();

    for lease in leases {
        if lease.seen_by(occupied.reading.taken_at)
            && let Some(distance) = distance_to_holder(lease, entry.process, entry.line)
            && let Some(baseline) = baseline_of(lease, uuid, entry.process)
        {
            // Among the leases that have seen the process before, the one whose holder is deepest
            // in the others' trees is nearest.
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

    // A reading does not show for which of its leases a process took or freed memory. While all of
    // them are live only their sum counts. For an ended lease the maximum is assumed, so that its
    // memory does not count for another lease.
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

    let mut steps = Vec::new();
    for Claim {
        lease,
        distance,
        baseline,
    } in claims
    {
        let Some(share) = lease.devices.get(uuid) else {
            continue;
        };

        let is_ended = !lease.is_live();
        let first_step = AttributionStep {
            is_new: false,
            distance,
            process: entry.index,
            used: entry.used,
            from: if is_ended { lowest } else { baseline },
            baseline,
            max: share.visible_bytes,
            lease,
        };

        match lease.ending {
            // After the first reading past its end a lease gets no more than was seen then.
            Some(ending) if ending.seen_at.is_some() => steps.push(first_step),
            Some(_) => steps.push(AttributionStep {
                max: share.granted_bytes,
                ..first_step
            }),
            None => {
                let new_step = AttributionStep {
                    is_new: true,
                    max: share.granted_bytes,
                    ..first_step
                };

                // Memory that was seen as this lease's does not count for a farther lease because
                // that one ends.
                if farthest_ended.is_some_and(|ended| distance < ended) {
                    steps.push(first_step);
                }
                steps.push(new_step);
            }
        }
    }

    steps
}

/// Counts the other leases in whose holders' trees a lease's holder is.
fn depth(lease: &Lease, leases: &[&Lease]) -> usize {
    let Some(holder) = lease.holder.process else {
        return 0;
    };

    leases
        .iter()
        .filter(|other| other.holder.process != Some(holder) && other.members.contains(&holder))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_above_baseline_counts_once() {
        let at = Boottime::from_millis(7);
        let part = |baseline, bytes| LeasePart {
            baseline: Bytes::new(baseline),
            bytes: Bytes::new(bytes),
            ended: Boottime::BOOT,
        };

        // A (baseline 0) got 10 of a process that holds 14; B's baseline is 4.
        let parts = AttributedParts(vec![part(0, 10)]);
        assert_eq!(
            parts.remaining(Bytes::new(14), Bytes::new(4), at),
            Bytes::new(4)
        );

        // A got only memory below B's baseline: all above is B's.
        let parts = AttributedParts(vec![part(0, 4)]);
        assert_eq!(
            parts.remaining(Bytes::new(14), Bytes::new(4), at),
            Bytes::new(10)
        );

        // The part of a lease with a higher baseline is above the lower one too.
        let parts = AttributedParts(vec![part(4, 10)]);
        assert_eq!(
            parts.remaining(Bytes::new(14), Bytes::ZERO, at),
            Bytes::new(4)
        );

        // Never below zero.
        assert_eq!(
            parts.remaining(Bytes::new(2), Bytes::new(4), at),
            Bytes::ZERO
        );

        // The memory of a lease that ended before B's reading is in B's baseline. A lease that
        // ended later may have grown since.
        let ended_at = |moment| {
            AttributedParts(vec![LeasePart {
                ended: Boottime::from_millis(moment),
                ..part(0, 4)
            }])
        };

        assert_eq!(
            ended_at(6).remaining(Bytes::new(14), Bytes::new(4), at),
            Bytes::new(10)
        );
        assert_eq!(
            ended_at(8).remaining(Bytes::new(14), Bytes::new(4), at),
            Bytes::new(6)
        );
    }
}
