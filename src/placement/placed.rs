//! A placement in full: every rank's parts, host memory, how far it goes, the launch line.

use std::ops::Range;

use super::candidate::{Candidate, short_by};
use super::needs::Needs;
use super::order::Grade;
use super::pool::Pool;
use super::reach::Reach;
use super::strategy::Strategy;
use crate::api::answer::Verdict;
use crate::bytes::Bytes;
use crate::devices::{DeviceFacts, DeviceKind};
use crate::engines::component::device_sum;
use crate::engines::{Component, EngineError, Interval, Launch, LaunchDevice, LaunchPlan, Prepared, Split, Workload};

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
    /// Largest context at one sequence that fits this way; 0 where none does, `None` where nothing grows with it.
    pub max_context: Option<u64>,
    /// Most sequences at the context in force; 0 where none fits, `None` where nothing grows with their number.
    pub max_sequences: Option<u64>,
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
    /// Bytes that must be available: the parts' sum as the engine rounds it up.
    pub required: Interval,
    /// Parts that do not change with the workload.
    pub fixed: Vec<Component>,
    /// Parts that the workload asks for.
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
    pub(super) fn of(needs: &Needs<'_>, pool: &Pool<'_>, best: &Candidate) -> Result<Self, EngineError> {
        let prepared = needs.prepared(best.first)?;
        let (split, workload) = (&best.split, prepared.workload());
        let unified = best.places.iter().filter_map(|place| pool.devices.get(*place));
        let unified = unified.clone().any(|it| it.source.facts.kind == DeviceKind::UnifiedMemory);
        let host = HostShare::of(needs, prepared, split, unified)?;
        let mut ranks = Vec::with_capacity(best.places.len());
        for (number, place) in best.places.iter().enumerate() {
            let Some(device) = pool.devices.get(*place) else { continue };
            let facts = &device.source.facts;
            let fixed = prepared.fixed(split, number, facts)?;
            let variable = prepared.variable(split, number, facts, workload)?;
            let mut required = prepared.must_be_available(split, facts, device_sum(&fixed).plus(device_sum(&variable)));
            if let (true, 0, Some(host)) = (unified, number, &host) {
                required = required.plus(host.required);
            }
            ranks.push(RankShare {
                device: facts.clone(),
                free: device.source.free,
                leased: device.source.leased,
                available: device.available,
                required,
                fixed,
                variable,
                layers: split.stage_of(number).1,
                verdict: Grade::of(required, device.available).verdict(),
                short_by: short_by(required, device.available),
                takes: None,
            });
        }
        let devices = ranks.iter().map(|rank| (&rank.device, rank.available));
        let reach = Reach::new((needs.ask, prepared), split, devices, needs.host)?;
        let (max_context, max_sequences) = (reach.max_context()?, reach.max_sequences(workload.context)?);
        let devices: Vec<LaunchDevice<'_>> = ranks
            .iter()
            .map(|rank| LaunchDevice {
                facts: &rank.device,
                available: rank.available,
                required: rank.required.high,
                free: rank.free,
            })
            .collect();
        let launch = prepared.launch(&LaunchPlan { split, workload, devices: &devices });
        for (rank, takes) in ranks.iter_mut().zip(&launch.takes) {
            rank.takes = *takes;
        }
        Ok(Self {
            strategy: Strategy::of(split, prepared),
            split: split.clone(),
            ranks,
            host,
            verdict: best.standing.grade.verdict(),
            workload,
            max_context,
            max_sequences,
            launch,
        })
    }
}

impl HostShare {
    fn of(
        needs: &Needs<'_>,
        prepared: &dyn Prepared,
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
        Ok(Some(Self { available, required, components, verdict, short_by, unified }))
    }
}
