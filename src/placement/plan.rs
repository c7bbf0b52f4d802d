//! The plan: what is recommended, what else there is, and why it is a no when it is one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde_json::Value;

use super::ask::{Ask, PlacementError};
use super::availability::Availability;
use super::candidate::{Candidate, short_by};
use super::needs::Needs;
use super::order::Grade;
use super::pool::Pool;
use super::reach::Reach;
use super::search::{Found, Search};
use super::strategy::Strategy;
use crate::api::answer::Verdict;
use crate::api::problem::Reason;
use crate::bytes::Bytes;
use crate::devices::{DeviceFacts, DeviceKind};
use crate::engines::component::device_sum;
use crate::engines::{
    Component, EngineError, Fitness, Interval, Launch, LaunchDevice, LaunchPlan, Offload, Prepared, Split, Workload,
};

/// Whether and how a model fits.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Why the answer is what it is: fits (tight included), insufficient memory, no legal split, compute capability,
    /// leased, no devices.
    pub reason: Reason,
    /// The reason in a sentence that names what was in the way; empty where it fits.
    pub why: String,
    /// The way to go; for a "no" the one that came nearest, where there is any at all.
    pub recommended: Option<Placement>,
    /// Other ways, next best first, then those that are not possible.
    pub alternatives: Vec<AlternativeWay>,
    /// Bytes that the recommended way is short of, summed over devices and host; zero where it fits.
    pub short_by: Bytes,
    /// What the engine settled; `None` where no device could be asked about.
    pub settled: Option<Settled>,
    /// Devices that may not be used, and why.
    pub passed_over: Vec<PassedOver>,
    /// What the figures rest on that was not asked for.
    pub assumptions: Vec<String>,
    /// Costs and dangers.
    pub warnings: Vec<String>,
}

/// What the engine settled for the recommended way.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// The profile in force.
    pub profile: String,
    /// Every parameter that entered the figures.
    pub parameters: BTreeMap<String, Value>,
    /// The workload with the engine's defaults filled in.
    pub workload: Workload,
    /// dtype of the cache after `auto`.
    pub kv_cache_dtype: String,
    /// Logical cache bytes of one more token.
    pub kv_bytes_per_token: Bytes,
    /// Logical state bytes of one sequence.
    pub state_bytes_per_sequence: Bytes,
}

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

/// Another way, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlternativeWay {
    /// The kind of way.
    pub strategy: Strategy,
    /// Tensor-parallel degree.
    pub tensor: u32,
    /// Stages.
    pub pipeline: u32,
    /// UUIDs of its devices, one for each rank; empty for a way that is not legal.
    pub devices: Vec<String>,
    /// Whether it fits.
    pub verdict: Verdict,
    /// Why it is not the recommended one, or not possible.
    pub reason: String,
    /// Bytes that are short, where it could be judged.
    pub short_by: Option<Bytes>,
}

/// A device that may not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    /// Its UUID.
    pub uuid: String,
    /// Its product name.
    pub name: String,
    /// Why not.
    pub why: String,
}

/// Whether and how what is asked fits on what is available here.
pub fn plan(ask: &Ask<'_>, here: &Availability) -> Result<Plan, PlacementError> {
    let mut pool = Pool::new(here, &ask.constraints, &ask.policy)?;
    let mut plan = Plan::empty();
    if pool.devices.is_empty() {
        plan.passed_over = passed_over(&pool);
        "no usable device".clone_into(&mut plan.why);
        return Ok(plan);
    }
    let (mut needs, vetoed) = Needs::new(ask, &pool.kinds, here.host)?;
    let usable: Vec<usize> = pool.devices.iter().map(|it| it.kind).collect();
    pool.veto(&vetoed, here);
    plan.passed_over = passed_over(&pool);
    plan.warnings.clone_from(&needs.warnings);
    if pool.devices.is_empty() {
        plan.reason = Reason::ComputeCapability;
        plan.why = usable.first().and_then(|kind| vetoed.get(*kind)?.clone()).unwrap_or_default();
        return Ok(plan);
    }
    let found = Search::run(&pool, &mut needs)?;
    let first_kind = found.first().map_or_else(|| pool.devices.first().map_or(0, |it| it.kind), |best| best.first);
    let prepared = needs.prepared(first_kind)?;
    plan.settled = Some(Settled::of(prepared));
    plan.assumptions = prepared.assumptions();
    let Some(best) = found.first() else {
        plan.reason = Reason::NoLegalSplit;
        plan.why = why_no_split(&needs, &pool, &found);
        plan.alternatives = illegal(&found);
        return Ok(plan);
    };
    let placement = Placement::of(&needs, &pool, best)?;
    plan.assume_totals(&placement);
    plan.short_by = placement.short_by();
    plan.alternatives = alternatives(&needs, &pool, &found, best)?;
    if best.standing.grade == Grade::No {
        plan.why = format!("{} needs {} more than is available", placement.strategy, plan.short_by);
        plan.alternatives.extend(illegal(&found));
        let unleased = here.has_leases().then(|| here.clone().without_leases());
        plan.reason = match unleased {
            Some(unleased) if grade(ask, &unleased)?.is_some_and(|(grade, _)| grade < Grade::No) => Reason::Leased,
            _ => Reason::InsufficientMemory,
        };
    } else {
        plan.reason = Reason::Fits;
    }
    plan.recommended = Some(placement);
    Ok(plan)
}

/// The best grade, and the bytes that the best way needs on its devices; `None` where there is no way.
pub(super) fn grade(ask: &Ask<'_>, here: &Availability) -> Result<Option<(Grade, Bytes)>, PlacementError> {
    Ok(ways(ask, here)?.first().map(|best| (best.standing.grade, best.required)))
}

fn ways(ask: &Ask<'_>, here: &Availability) -> Result<Found, PlacementError> {
    let mut pool = Pool::new(here, &ask.constraints, &ask.policy)?;
    if pool.devices.is_empty() {
        return Ok(Found::default());
    }
    let (mut needs, vetoed) = Needs::new(ask, &pool.kinds, here.host)?;
    pool.veto(&vetoed, here);
    Ok(Search::run(&pool, &mut needs)?)
}

impl Plan {
    fn empty() -> Self {
        Self {
            reason: Reason::NoDevices,
            why: String::new(),
            recommended: None,
            alternatives: Vec::new(),
            short_by: Bytes::ZERO,
            settled: None,
            passed_over: Vec::new(),
            assumptions: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The verdict: that of the recommended placement.
    pub fn verdict(&self) -> Verdict {
        self.recommended.as_ref().map_or(Verdict::DoesNotFit, |placement| placement.verdict)
    }

    /// Says of which devices the whole total was taken because the driver's reserve is not known.
    fn assume_totals(&mut self, placement: &Placement) {
        let unknown: BTreeSet<&str> = placement
            .ranks
            .iter()
            .filter(|rank| rank.device.reserved_bytes.is_none() && rank.device.kind == DeviceKind::Gpu)
            .map(|rank| rank.device.name.as_str())
            .collect();
        for name in unknown {
            self.assumptions
                .push(format!("the driver's own reserve on {name} is not known; its whole total is counted"));
        }
    }
}

impl Settled {
    fn of(prepared: &dyn Prepared) -> Self {
        Self {
            profile: prepared.profile().to_owned(),
            parameters: prepared.parameters(),
            workload: prepared.workload(),
            kv_cache_dtype: prepared.kv_cache_dtype(),
            kv_bytes_per_token: prepared.kv_bytes_per_token(),
            state_bytes_per_sequence: prepared.state_bytes_per_sequence(),
        }
    }
}

impl Placement {
    /// Bytes that are short, summed over devices and host.
    pub fn short_by(&self) -> Bytes {
        let host = self.host.as_ref().map_or(Bytes::ZERO, |host| host.short_by);
        self.ranks.iter().map(|rank| rank.short_by).sum::<Bytes>() + host
    }

    fn of(needs: &Needs<'_>, pool: &Pool<'_>, best: &Candidate) -> Result<Self, EngineError> {
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
            let mut required = prepared.must_be_available(facts, device_sum(&fixed).plus(device_sum(&variable)));
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
        let reach = Reach::new(
            prepared,
            split,
            ranks.iter().map(|rank| (&rank.device, rank.available)),
            needs.host,
            needs.ask.longest(),
        )?;
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
            strategy: Strategy::of(split, prepared.uneven()),
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

/// The best of each kind of way but the recommended, best first.
fn alternatives(
    needs: &Needs<'_>,
    pool: &Pool<'_>,
    found: &Found,
    best: &Candidate,
) -> Result<Vec<AlternativeWay>, EngineError> {
    let mut others: Vec<_> = found.best.iter().filter(|(_, other)| other.standing != best.standing).collect();
    others.sort_by(|a, b| a.1.standing.cmp(&b.1.standing));
    let mut ways = Vec::with_capacity(others.len());
    for ((strategy, tensor, pipeline), other) in others {
        let devices = other.places.iter().filter_map(|place| pool.devices.get(*place));
        let mut reason = other.standing.why_after(&best.standing);
        for device in devices.clone() {
            if let Fitness::Degraded(cost) = needs.prepared(other.first)?.device_fitness(&device.source.facts) {
                reason = format!("{reason}; {}: {cost}", device.source.facts.name);
                break;
            }
        }
        ways.push(AlternativeWay {
            strategy: *strategy,
            tensor: *tensor,
            pipeline: u32::try_from(*pipeline).unwrap_or(u32::MAX),
            devices: devices.map(|it| it.source.facts.uuid.clone()).collect(),
            verdict: other.standing.grade.verdict(),
            reason,
            short_by: Some(other.standing.missing),
        });
    }
    Ok(ways)
}

/// The device counts over which nothing is legal, each reason once.
fn illegal(found: &Found) -> Vec<AlternativeWay> {
    let mut said = BTreeSet::new();
    let mut ways = Vec::new();
    for (devices, why) in &found.illegal {
        if said.insert(why.0.as_str()) {
            ways.push(AlternativeWay {
                strategy: if *devices == 1 { Strategy::Single } else { Strategy::TensorParallel },
                tensor: *devices,
                pipeline: 1,
                devices: Vec::new(),
                verdict: Verdict::DoesNotFit,
                reason: why.0.clone(),
                short_by: None,
            });
        }
    }
    ways
}

/// What is in the way of any split at all.
fn why_no_split(needs: &Needs<'_>, pool: &Pool<'_>, found: &Found) -> String {
    let asked = &needs.ask.constraints;
    if asked.tensor.is_none() && asked.pipeline.is_none() {
        let said = found.illegal.first().map(|(devices, why)| format!("over {devices} devices: {why}"));
        return said.unwrap_or_else(|| "the engine knows no split for these devices".into());
    }
    let (tensor, stages) = (asked.tensor.unwrap_or(1), asked.pipeline.unwrap_or(1));
    let wanted = u64::from(tensor) * u64::from(stages);
    let there = (0..pool.devices.len()).filter(|place| pool.joins(*place)).count();
    if wanted > 1 && wanted > there as u64 {
        return format!("tensor {tensor} x pipeline {stages} takes {wanted} devices; {there} can be used together");
    }
    let layers = needs.ask.model.architecture.as_ref().map_or(0, crate::model::Architecture::layer_count);
    let split = Split { tensor, stages: even(layers, stages), expert_parallel: false, offload: Offload::None };
    match pool.devices.first().map(|it| needs.prepared(it.kind).map(|prepared| prepared.check(&split))) {
        Some(Ok(Err(why))) => why.0,
        _ => format!("the engine knows no split of tensor {tensor} x pipeline {stages}"),
    }
}

/// `layers` in `stages` nearly equal stages.
fn even(layers: u32, stages: u32) -> Vec<Range<u32>> {
    let end = |stage: u32| u64::from(layers) * u64::from(stage) / u64::from(stages.max(1));
    let end = |stage: u32| u32::try_from(end(stage)).unwrap_or(u32::MAX);
    // A model has at most some hundred layers, so more stages than layers are not worth spelling out.
    (0..stages.min(layers.max(1))).map(|stage| end(stage)..end(stage + 1)).collect()
}

fn passed_over(pool: &Pool<'_>) -> Vec<PassedOver> {
    let told = |(facts, why): &(&DeviceFacts, String)| PassedOver {
        uuid: facts.uuid.clone(),
        name: facts.name.clone(),
        why: why.clone(),
    };
    pool.passed_over.iter().map(told).collect()
}
