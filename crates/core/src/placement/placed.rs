//! A placement in full: every rank's parts, host memory, how far it goes, the launch line.

use std::ops::Range;

use super::candidate::{Candidate, short_by};
use super::claim::Claim;
use super::needs::Needs;
use super::order::Grade;
use super::pool::Pool;
use super::reach::Reach;
use super::strategy::Strategy;
use crate::bytes::Bytes;
use crate::device::{DeviceFacts, DeviceKind};
use crate::engines::component::device_sum;
use crate::engines::{
    Basis, CacheCapacity, Component, ComponentName, EngineError, Interval, Launch, LaunchDevice,
    LaunchPlan, PreparedEngine, Share, Split, Workload,
};
use crate::report::answer::Verdict;

/// One way of placing the model, in full.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// The kind of way.
    pub strategy: Strategy,
    /// The split.
    pub split: Split,
    /// The devices, one for each rank.
    pub ranks: Vec<RankShare>,
    /// Host memory that it takes, where it takes any.
    pub host: Option<HostShare>,
    /// The worst of the ranks' verdicts and the host's.
    pub verdict: Verdict,
    /// The workload in force.
    pub workload: Workload,
    /// Largest context at one sequence that fits this way; 0 where none does, `None` where nothing
    /// grows with it.
    pub max_context: Option<u64>,
    /// Most sequences at the context in force; 0 where none fits, `None` where nothing grows with
    /// their number.
    pub max_sequences: Option<u64>,
    /// The cache of the engine once it is started by `launch` in a share that the asker gave it;
    /// `None` without such a share and where it does not fit.
    pub capacity: Option<CacheCapacity>,
    /// The launch line.
    pub launch: Launch,
}

/// One rank's share of a placement.
#[derive(Clone, Debug, PartialEq)]
pub struct RankShare {
    /// Its device.
    pub device: DeviceFacts,
    /// Bytes that nobody has allocated.
    pub free: Option<Bytes>,
    /// Bytes that leases still claim.
    pub leased: Bytes,
    /// Bytes that can be given.
    pub available: Bytes,
    /// Bytes that the model needs: the sum of the parts, without what fills a share.
    pub need: Interval,
    /// Bytes that the engine holds: the sum of the parts, which make up for each other in a share.
    pub held: Interval,
    /// Bytes that must be available: `held`, and the margin that the engine wants free.
    pub required: Interval,
    /// The share of the device that the asker gave the engine.
    pub share: Option<Share>,
    /// Parts that do not change with the workload.
    pub fixed: Vec<Component>,
    /// Parts that the workload asks for, and what the engine takes beyond them.
    pub variable: Vec<Component>,
    /// Its layers.
    pub layers: Range<u32>,
    /// Whether it fits here.
    pub verdict: Verdict,
    /// Bytes that the high end is short of; zero where it fits.
    pub short_by: Bytes,
    /// Bytes that the engine will really take, where that differs from the need.
    pub takes: Option<Bytes>,
}

/// Host memory of a placement.
#[derive(Clone, Debug, PartialEq)]
pub struct HostShare {
    /// Bytes that can be had, where read.
    pub available: Option<Bytes>,
    /// Bytes needed.
    pub required: Interval,
    /// Parts of the need.
    pub components: Vec<Component>,
    /// Whether it fits there; unknown where host memory was not read.
    pub verdict: Verdict,
    /// Bytes that the high end is short of.
    pub short_by: Bytes,
    /// Whether the host shares one pool with the device, in whose need this is then counted.
    pub unified: bool,
}

impl Placement {
    /// Bytes that are short, summed over devices and host.
    pub fn short_by(&self) -> Bytes {
        let host = self.host.as_ref().map_or(Bytes::ZERO, |host| host.short_by);
        self.ranks.iter().map(|rank| rank.short_by).sum::<Bytes>() + host
    }

    /// `best` in full.
    pub(super) fn of(
        needs: &Needs<'_>,
        pool: &Pool<'_>,
        best: &Candidate,
    ) -> Result<Self, EngineError> {
        let prepared = needs.prepared(best.first)?;
        let (split, workload) = (&best.split, prepared.workload());

        let unified = best
            .places
            .iter()
            .filter_map(|place| pool.devices.get(*place));
        let unified = unified
            .clone()
            .any(|it| it.source.facts.kind == DeviceKind::UnifiedMemory);
        let host = HostShare::of(needs, prepared, split, unified)?;
        let mut ranks = Vec::with_capacity(best.places.len());

        for (number, place) in best.places.iter().enumerate() {
            let Some(device) = pool.devices.get(*place) else {
                continue;
            };

            let facts = &device.source.facts;
            let fixed = prepared.fixed(split, number, facts)?;
            let mut variable = prepared.variable(split, number, facts, workload)?;
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
            if let (true, 0, Some(host)) = (unified, number, &host) {
                claim = claim.plus(host.required);
            }

            ranks.push(RankShare {
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
            });
        }

        let devices = ranks.iter().map(|rank| (&rank.device, rank.available));
        let reach = Reach::new((needs.ask, prepared), split, devices, needs.host)?;
        let (max_context, max_sequences) =
            (reach.max_context()?, reach.max_sequences(workload.context)?);

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
        let verdict = best.standing.grade.verdict();
        let capacity = if verdict <= Verdict::Tight {
            prepared.capacity(&plan)?
        } else {
            None
        };

        for (rank, takes) in ranks.iter_mut().zip(&launch.takes) {
            rank.takes = *takes;
        }

        Ok(Self {
            strategy: Strategy::of(split, prepared),
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
    /// The rank's share, where it is too small for the likely need.
    pub fn outgrown_share(&self) -> Option<Share> {
        self.share
            .filter(|share| self.required.likely > share.taken.likely)
    }
}

/// What an engine with a share of the device takes beyond the `sum` of its parts, to `held` in all:
/// it makes cache of it.
fn filling(sum: Interval, held: Interval, share: &Share) -> Option<Component> {
    let end = |sum: Bytes, held: Bytes| held.less(sum).unwrap_or(Bytes::ZERO);
    let likely = end(sum.likely, held.likely);
    // The larger the other parts turn out, the less is left.
    let ends = [end(sum.low, held.low), end(sum.high, held.high)];
    let bytes = Interval::new(ends[0].min(ends[1]), likely, ends[0].max(ends[1]));
    let detail = format!("fills {share}");

    (bytes.high > Bytes::ZERO)
        .then(|| Component::between(ComponentName::KvCache, bytes, Basis::Formula, detail))
}

impl HostShare {
    fn of(
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
