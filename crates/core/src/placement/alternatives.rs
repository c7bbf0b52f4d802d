//! The ways that are not recommended: the next best of each kind, and what is not legal, each with
//! its reason.

use std::collections::BTreeSet;
use std::ops::Range;

use super::candidate::Candidate;
use super::needs::Needs;
use super::pool::Pool;
use super::search::Found;
use super::strategy::Strategy;
use crate::bytes::Bytes;
use crate::engines::{DeviceSupport, EngineError, Offload, Split};
use crate::report::answer::Verdict;

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

/// The best of each kind of way but the recommended, best first.
pub(super) fn alternatives(
    needs: &Needs<'_>,
    pool: &Pool<'_>,
    found: &Found,
    best: &Candidate,
) -> Result<Vec<AlternativeWay>, EngineError> {
    let mut others: Vec<_> = found
        .best
        .iter()
        .filter(|(_, other)| other.standing != best.standing)
        .collect();
    others.sort_by(|a, b| a.1.standing.cmp(&b.1.standing));
    let mut ways = Vec::with_capacity(others.len());

    for ((strategy, tensor, pipeline), other) in others {
        let devices = other
            .places
            .iter()
            .filter_map(|place| pool.devices.get(*place));
        let mut reason = other.standing.why_after(&best.standing);

        for device in devices.clone() {
            if let DeviceSupport::Degraded(cost) = needs
                .prepared(other.first)?
                .device_fitness(&device.source.facts)
            {
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
pub(super) fn illegal(found: &Found) -> Vec<AlternativeWay> {
    let mut said = BTreeSet::new();
    let mut ways = Vec::new();
    for (devices, why) in &found.illegal {
        if said.insert(why.0.as_str()) {
            ways.push(AlternativeWay {
                strategy: if *devices == 1 {
                    Strategy::Single
                } else {
                    Strategy::TensorParallel
                },
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
pub(super) fn why_no_split(needs: &Needs<'_>, pool: &Pool<'_>, found: &Found) -> String {
    let asked = &needs.ask.constraints;
    if asked.tensor.is_none() && asked.pipeline.is_none() {
        let said = found
            .illegal
            .first()
            .map(|(devices, why)| format!("over {devices} devices: {why}"));
        return said.unwrap_or_else(|| "the engine knows no split for these devices".into());
    }

    let (tensor, stages) = (asked.tensor.unwrap_or(1), asked.pipeline.unwrap_or(1));
    let wanted = u64::from(tensor) * u64::from(stages);
    let there = (0..pool.devices.len())
        .filter(|place| pool.joins(*place))
        .count();
    if wanted > 1 && wanted > there as u64 {
        return format!(
            "tensor {tensor} x pipeline {stages} takes {wanted} devices; {there} can be used together"
        );
    }

    let layers = needs
        .ask
        .model
        .architecture
        .as_ref()
        .map_or(0, crate::model::Architecture::layer_count);
    let split = Split {
        tensor,
        stages: even(layers, stages),
        expert_parallel: false,
        offload: Offload::None,
    };

    match pool.devices.first().map(|it| {
        needs
            .prepared(it.kind)
            .map(|prepared| prepared.check(&split))
    }) {
        Some(Ok(Err(why))) => why.0,
        _ => format!("the engine knows no split of tensor {tensor} x pipeline {stages}"),
    }
}

/// `layers` in `stages` nearly equal stages.
fn even(layers: u32, stages: u32) -> Vec<Range<u32>> {
    let end = |stage: u32| u64::from(layers) * u64::from(stage) / u64::from(stages.max(1));
    let end = |stage: u32| u32::try_from(end(stage)).unwrap_or(u32::MAX);
    // A model has at most some hundred layers, so more stages than layers are not worth spelling
    // out.
    (0..stages.min(layers.max(1)))
        .map(|stage| end(stage)..end(stage + 1))
        .collect()
}
