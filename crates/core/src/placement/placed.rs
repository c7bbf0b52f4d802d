//! A placement in full: the parts of every rank, host memory, limits, and the launch line.

use std::ops::Range;

use super::candidate::{Candidate, short_by};
use super::claim::Claim;
use super::needs::Needs;
use super::order::Grade;
use super::pool::{Pool, UsableDevice};
use super::strategy::Strategy;
use super::workload_limits::WorkloadLimits;
use crate::bytes::Bytes;
use crate::device::{DeviceFacts, DeviceKind};
use crate::engines::component::device_sum;
use crate::engines::{
    Basis, CacheCapacity, Component, ComponentName, EngineError, Interval, Launch, LaunchDevice,
    LaunchPlan, PreparedEngine, Share, Split, Workload,
};
use crate::report::answer::Verdict;

/// A placement of the model, in full.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// The kind of placement.
    pub strategy: Strategy,
    /// The split.
    pub split: Split,
    /// The devices, one for each rank.
    pub ranks: Vec<RankShare>,
    /// Host memory that it needs, if any.
    pub host: Option<HostShare>,
    /// The worst verdict of the ranks and the host.
    pub verdict: Verdict,
    /// The workload in force.
    pub workload: Workload,
    /// The largest context at one sequence that fits; 0 if none fits, `None` if no need grows with
    /// the context.
    pub max_context: Option<u64>,
    /// The most sequences at the context in force; 0 if none fits, `None` if no need grows with
    /// their number.
    pub max_sequences: Option<u64>,
    /// The engine's cache after a start by `launch`, if the question sets a share of the device;
    /// `None` without a share and if it does not fit.
    pub capacity: Option<CacheCapacity>,
    /// The launch line.
    pub launch: Launch,
}

/// One rank's share of a placement.
#[derive(Clone, Debug, PartialEq)]
pub struct RankShare {
    /// The device.
    pub device: DeviceFacts,
    /// Unallocated bytes.
    pub free: Option<Bytes>,
    /// Bytes that leases still claim.
    pub leased: Bytes,
    /// Available bytes.
    pub available: Bytes,
    /// Bytes that the model needs: the sum of the parts, without the rest of a share.
    pub need: Interval,
    /// Bytes that the engine holds: the sum of the parts, which offset each other in a share.
    pub held: Interval,
    /// Bytes that must be available: `held`, and the margin that the engine keeps free.
    pub required: Interval,
    /// The share of the device that the question sets.
    pub share: Option<Share>,
    /// Parts that do not change with the workload.
    pub fixed: Vec<Component>,
    /// Parts that grow with the workload, and what the engine takes beyond them.
    pub variable: Vec<Component>,
    /// The layers of the rank.
    pub layers: Range<u32>,
    /// Whether the rank fits on the device.
    pub verdict: Verdict,
    /// Bytes that the high end is short of; zero if it fits.
    pub short_by: Bytes,
    /// Bytes that the engine takes after the start, if they differ from the need.
    pub takes: Option<Bytes>,
}

/// Host memory of a placement.
#[derive(Clone, Debug, PartialEq)]
pub struct HostShare {
    /// Available bytes, if read.
    pub available: Option<Bytes>,
    /// Bytes needed.
    pub required: Interval,
    /// Parts of the need.
    pub components: Vec<Component>,
    /// Whether it fits; unknown if host memory was not read.
    pub verdict: Verdict,
    /// Bytes that the high end is short of.
    pub short_by: Bytes,
    /// Whether host and device share one memory pool. The device's need then includes these bytes.
    pub unified: bool,
}

impl Placement {
    /// Returns the bytes that are short, summed over devices and host.
    pub fn short_by(&self) -> Bytes {
        let host = self.host.as_ref().map_or(Bytes::ZERO, |host| host.short_by);
        self.ranks.iter().map(|rank| rank.short_by).sum::<Bytes>() + host
    }

    /// Computes a candidate in full.
    pub(super) fn new(
        needs: &Needs<'_>,
        pool: &Pool<'_>,
        candidate: &Candidate,
    ) -> Result<Self, EngineError> {
        let prepared = needs.prepared(candidate.first)?;
        let (split, workload) = (&candidate.split, prepared.workload());

        let unified = candidate
            .places
            .iter()
            .filter_map(|place| pool.devices.get(*place))
            .any(|it| it.source.facts.kind == DeviceKind::UnifiedMemory);
        let host = HostShare::new(needs, prepared, split, unified)?;
        let mut ranks = Vec::with_capacity(candidate.places.len());

        for (number, place) in candidate.places.iter().enumerate() {
            let Some(device) = pool.devices.get(*place) else {
                continue;
            };

            let on_host = host
                .as_ref()
                .filter(|_| unified && number == 0)
                .map(|host| host.required);
            ranks.push(RankShare::new(prepared, split, number, device, on_host)?);
        }

        let devices = ranks.iter().map(|rank| (&rank.device, rank.available));
        let limits = WorkloadLimits::new((needs.ask, prepared), split, devices, needs.host)?;
        let (max_context, max_sequences) = (
            limits.max_context()?,
            limits.max_sequences(workload.context)?,
        );

        let devices: Vec<LaunchDevice<'_>> = ranks
            .iter()
            .map(|rank| LaunchDevice {
                facts: &rank.device,
                available: rank.available,
                required: rank.required.high,
                free: rank.free,
            })
            .collect();

        let plan = LaunchPlan {
            split,
            workload,
            devices: &devices,
        };

        let launch = prepared.launch(&plan);
        let verdict = candidate.rank.grade.verdict();
        let capacity = if verdict <= Verdict::Tight {
            prepared.capacity(&plan)?
        } else {
            None
        };

        for (rank, takes) in ranks.iter_mut().zip(&launch.takes) {
            rank.takes = *takes;
        }

        Ok(Self {
            strategy: Strategy::new(split, prepared),
            split: split.clone(),
            ranks,
            host,
            verdict,
            workload,
            max_context,
            max_sequences,
            capacity,
            launch,
        })
    }
}

impl RankShare {
    /// Computes the share of rank `number` on `device`. `on_host` is the host memory that is taken
    /// from the same pool.
    fn new(
        prepared: &dyn PreparedEngine,
        split: &Split,
        number: usize,
        device: &UsableDevice<'_>,
        on_host: Option<Interval>,
    ) -> Result<Self, EngineError> {
        let facts = &device.source.facts;
        let fixed = prepared.fixed(split, number, facts)?;
        let mut variable = prepared.variable(split, number, facts, prepared.workload())?;
        let share = prepared.share(split, number, facts);
        let sum = device_sum(&fixed).plus(device_sum(&variable));
        let mut claim = Claim::in_share(
            prepared.must_be_available(split, facts, sum),
            share.as_ref(),
        );
        let held = if share.is_some() {
            claim.required()
        } else {
            sum
        };

        variable.extend(share.as_ref().and_then(|share| filling(sum, held, share)));
        if let Some(on_host) = on_host {
            claim = claim.plus(on_host);
        }

        Ok(Self {
            device: facts.clone(),
            free: device.source.free,
            leased: device.source.leased,
            available: device.available,
            need: sum,
            held,
            required: claim.required(),
            share,
            fixed,
            variable,
            layers: split.stage_of(number).1,
            verdict: claim.grade(device.available).verdict(),
            short_by: claim.short_by(device.available),
            takes: None,
        })
    }

    /// Returns the rank's share if it is too small for the likely need.
    pub fn outgrown_share(&self) -> Option<Share> {
        self.share
            .filter(|share| self.required.likely > share.taken.likely)
    }
}

/// Returns what an engine with a share of the device takes beyond the `sum` of its parts, up to
/// `held` in all. The engine uses it for cache.
fn filling(sum: Interval, held: Interval, share: &Share) -> Option<Component> {
    let likely = rest(sum.likely, held.likely);
    // The larger the other parts are, the less is left.
    let ends = [rest(sum.low, held.low), rest(sum.high, held.high)];
    let bytes = Interval::new(ends[0].min(ends[1]), likely, ends[0].max(ends[1]));
    let detail = format!("fills {share}");

    (bytes.high > Bytes::ZERO)
        .then(|| Component::between(ComponentName::KvCache, bytes, Basis::Formula, detail))
}

/// Returns what `held` leaves after `sum`; zero if `sum` is larger or unknown.
fn rest(sum: Bytes, held: Bytes) -> Bytes {
    held.less(sum).unwrap_or(Bytes::ZERO)
}

impl HostShare {
    fn new(
        needs: &Needs<'_>,
        prepared: &dyn PreparedEngine,
        split: &Split,
        unified: bool,
    ) -> Result<Option<Self>, EngineError> {
        let components = prepared.host(split, prepared.workload())?;
        let required: Interval = components.iter().map(|part| part.bytes).sum();

        if components.is_empty() {
            return Ok(None);
        }

        let available = needs.host.map(|memory| memory.available_bytes);
        let verdict = match available {
            _ if unified => Verdict::Fits,
            Some(available) => Grade::of(required, available).verdict(),
            None => Verdict::Unknown,
        };

        let short_by = match available {
            Some(available) if !unified => short_by(required, available),
            _ => Bytes::ZERO,
        };

        Ok(Some(Self {
            available,
            required,
            components,
            verdict,
            short_by,
            unified,
        }))
    }
}
