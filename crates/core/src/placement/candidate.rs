//! One split on certain devices, judged: what each rank needs, how it goes in, and where that
//! stands in the order.

use std::cmp::Reverse;

use super::needs::Needs;
use super::order::{DeviceRank, Form, Grade, by_packing, harm};
use super::pool::Pool;
use crate::bytes::Bytes;
use crate::device::{DeviceKind, LinkKind};
use crate::engines::{EngineError, Interval, Offload, Split};

/// One judged way.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// The kind of its first device, for which the engine is prepared.
    pub(super) first: usize,
    /// The split.
    pub(super) split: Split,
    /// Places in the pool, one for each rank.
    pub(super) places: Vec<usize>,
    /// How it goes into the devices alone, host memory left out.
    pub(super) on_devices: Grade,
    /// The high ends of what its ranks need, summed.
    pub(super) required: Bytes,
    /// Where it stands.
    pub(super) standing: DeviceRank,
}

/// The links that a split on certain devices talks over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Wires {
    /// The worst between any two ranks that talk.
    pub(super) all: LinkKind,
    /// The worst inside a tensor group.
    pub(super) tensor: LinkKind,
    /// Tensor groups that are not of a piece: of more than one kind of device, or partly inside an
    /// NVLink island.
    pub(super) broken: usize,
}

impl Wires {
    /// The links that `split` on `places` talks over.
    pub(super) fn of(pool: &Pool<'_>, split: &Split, places: &[usize]) -> Self {
        let groups: Vec<&[usize]> = places.chunks(split.tensor.max(1) as usize).collect();
        let kind = |place: &usize| pool.devices.get(*place).map(|it| it.kind);

        let mut wires = Self {
            all: LinkKind::Fabric,
            tensor: LinkKind::Fabric,
            broken: 0,
        };

        for group in &groups {
            let (mut best, mut worst) = (LinkKind::None, LinkKind::Fabric);
            for (at, &a) in group.iter().enumerate() {
                for &b in group.iter().skip(at + 1) {
                    let link = pool.link(a, b);
                    (best, worst) = (best.min(link), worst.max(link));
                }
            }

            let first = group.first().map(kind);
            let mixed = group.iter().any(|place| Some(kind(place)) != first);
            wires.broken += usize::from(mixed || (best == LinkKind::Fabric && worst > best));
            wires.tensor = wires.tensor.max(worst);
        }

        wires.all = wires.tensor;
        for (one, next) in groups.iter().zip(groups.iter().skip(1)) {
            for (&a, &b) in one.iter().zip(next.iter()) {
                wires.all = wires.all.max(pool.link(a, b));
            }
        }

        wires
    }
}

impl<'a> Needs<'a> {
    /// Judges `split` on `places`. `named` is the split's number, if it has one; `engine_order` its
    /// place among the engine's own.
    pub(super) fn judge(
        &mut self,
        pool: &Pool<'a>,
        (named, engine_order): (Option<usize>, usize),
        split: &Split,
        places: &[usize],
        wires: Wires,
    ) -> Result<Candidate, EngineError> {
        let at = |place: &usize| pool.devices.get(*place);
        let first = places.first().and_then(at).map_or(usize::MAX, |it| it.kind);
        let mut host = self.of_host((first, named), split)?;
        let mut on_devices = Grade::Fits;
        let (mut missing, mut required) = (Bytes::ZERO, Bytes::ZERO);
        let (mut leftover, mut headroom) = (0_i128, i128::MAX);
        let (mut degraded, mut preference) = (0, 0);

        for (rank, &place) in places.iter().enumerate() {
            let mut claim = self.of(first, split, rank, pool, place)?;
            let Some(device) = pool.devices.get(place) else {
                continue;
            };

            if device.source.facts.kind == DeviceKind::UnifiedMemory {
                // One pool: what stays on the host is taken from the same bytes.
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
        let standing = DeviceRank {
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
            broken: wires.broken,
            link: wires.all,
            engine_order,
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
            standing,
        })
    }

    /// How `need` goes into host memory. Where that is not known, nothing may be moved there; what
    /// the engine keeps there anyway is not held against it.
    pub(super) fn host_grade(&self, need: Interval, moved: bool) -> Grade {
        match self.host {
            _ if need.high == Bytes::ZERO => Grade::Fits,
            Some(memory) => Grade::of(need, memory.available_bytes),
            None if moved => Grade::No,
            None => Grade::Fits,
        }
    }
}

/// Bytes that the high end of `need` is short of `available`.
pub(super) fn short_by(need: Interval, available: Bytes) -> Bytes {
    if need.high.overflowed() {
        Bytes::OVERFLOW
    } else {
        need.high.less(available).unwrap_or(Bytes::OVERFLOW)
    }
}
