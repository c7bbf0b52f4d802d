//! A judged split on certain devices: what each rank needs, whether it fits, and its rank in the
//! order of preference.

use std::cmp::Reverse;

use super::needs::Needs;
use super::order::{DeviceRank, Form, Grade, by_packing, harm};
use super::pool::Pool;
use super::wires::Wires;
use crate::bytes::Bytes;
use crate::device::DeviceKind;
use crate::engines::{EngineError, Interval, Offload, Split};

/// The numbers of a split.
#[derive(Clone, Copy, Debug)]
pub(super) struct SplitNumber {
    /// The id under which results are cached; `None` for a split that the search made itself.
    pub(super) id: Option<usize>,
    /// The position in the engine's own order of splits.
    pub(super) engine_order: usize,
}

/// A judged split on certain devices.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// The kind of the first device. The engine is prepared for that kind.
    pub(super) first: usize,
    /// The split.
    pub(super) split: Split,
    /// Places in the pool, one for each rank.
    pub(super) places: Vec<usize>,
    /// Whether it fits on the devices, without regard to host memory.
    pub(super) on_devices: Grade,
    /// The sum of the high ends of what the ranks need.
    pub(super) required: Bytes,
    /// Its rank in the order of preference.
    pub(super) rank: DeviceRank,
}

impl<'a> Needs<'a> {
    /// Judges `split` on `places`.
    pub(super) fn judge(
        &mut self,
        pool: &Pool<'a>,
        number: SplitNumber,
        split: &Split,
        places: &[usize],
        wires: Wires,
    ) -> Result<Candidate, EngineError> {
        let first = pool.first_kind(places);
        let mut host = self.of_host((first, number.id), split)?;
        let mut on_devices = Grade::Fits;
        let (mut missing, mut required) = (Bytes::ZERO, Bytes::ZERO);
        let (mut leftover, mut headroom) = (0_i128, i128::MAX);
        let (mut degraded, mut preference) = (0, 0);

        for (number, &place) in places.iter().enumerate() {
            let mut claim = self.of(first, split, number, pool, place)?;
            let Some(device) = pool.devices.get(place) else {
                continue;
            };

            if device.source.facts.kind == DeviceKind::UnifiedMemory {
                // Host and device share one pool: what stays on the host takes the same bytes.
                claim = claim.plus(std::mem::take(&mut host));
            }

            on_devices = on_devices.max(claim.grade(device.available));
            missing += claim.short_by(device.available);
            let high = claim.required().high;
            required += high;
            leftover += (i128::from(device.available.get()) - i128::from(high.get())).max(0);
            headroom = headroom.min(claim.left(device.available));
            degraded += usize::from(self.degraded.get(device.kind) == Some(&true));
            preference += device.preference;
        }

        let moved = split.offload != Offload::None || self.prepared(first)?.moves_to_host();
        let on_host = self.host_grade(host, moved);
        if let (true, Some(memory)) = (on_host > Grade::Fits, self.host) {
            missing += short_by(host, memory.available_bytes);
        }

        let grade = on_devices.max(on_host);
        let rank = DeviceRank {
            grade,
            missing: if grade == Grade::No {
                missing
            } else {
                Bytes::ZERO
            },
            offload: harm(split.offload),
            form: Form::of(split, wires, self.prepared(first)?.ranks_are_processes()),
            devices: places.len(),
            degraded,
            uneven: wires.uneven,
            link: wires.all,
            engine_order: number.engine_order,
            tensor_link: wires.tensor,
            preference,
            leftover: by_packing(self.ask.policy.packing, leftover),
            headroom: Reverse(headroom),
            places: places.to_vec(),
        };

        Ok(Candidate {
            first,
            split: split.clone(),
            places: places.to_vec(),
            on_devices,
            required,
            rank,
        })
    }

    /// Returns whether `need` fits in host memory.
    ///
    /// If host memory is unknown, nothing may be moved there. What the engine keeps on the host in
    /// any case does not count against it.
    pub(super) fn host_grade(&self, need: Interval, moved: bool) -> Grade {
        match self.host {
            _ if need.high == Bytes::ZERO => Grade::Fits,
            Some(memory) => Grade::of(need, memory.available_bytes),
            None if moved => Grade::No,
            None => Grade::Fits,
        }
    }
}

/// Returns the bytes by which the high end of `need` exceeds `available`.
pub(super) fn short_by(need: Interval, available: Bytes) -> Bytes {
    if need.high.overflowed() {
        Bytes::OVERFLOW
    } else {
        need.high.less(available).unwrap_or(Bytes::OVERFLOW)
    }
}
