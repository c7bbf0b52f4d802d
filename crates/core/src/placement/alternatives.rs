//! Alternatives to the recommended placement: the next best of each kind, and illegal splits, each
//! with its reason.

use std::collections::BTreeSet;
use std::ops::Range;

use super::candidate::Candidate;
use super::found::Found;
use super::needs::Needs;
use super::pool::Pool;
use super::strategy::Strategy;
use crate::bytes::Bytes;
use crate::engines::{DeviceSupport, EngineError, Offload, Split};
use crate::report::answer::Verdict;

/// An alternative placement, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlternativePlacement {
    /// The kind of placement.
    pub strategy: Strategy,
    /// Tensor-parallel degree.
    pub tensor: u32,
    /// Number of pipeline stages.
    pub pipeline: u32,
    /// UUIDs of its devices, one for each rank; empty for an illegal split.
    pub devices: Vec<String>,
    /// Whether it fits.
    pub verdict: Verdict,
    /// Why it is not recommended, or why it is illegal, as a phrase.
    pub why: String,
    /// Bytes that are short; `None` for an illegal split.
    pub short_by: Option<Bytes>,
}

/// Returns the best placement of each kind except the recommended one, best first.
pub(super) fn alternatives(
    needs: &Needs<'_>,
    pool: &Pool<'_>,
    found: &Found,
    best: &Candidate,
) -> Result<Vec<AlternativePlacement>, EngineError> {
    let mut others: Vec<_> = found
        .best
        .iter()
        .filter(|(_, other)| other.rank != best.rank)
        .collect();
    others.sort_by(|a, b| a.1.rank.cmp(&b.1.rank));
    let mut ways = Vec::with_capacity(others.len());

    for ((strategy, tensor, pipeline), other) in others {
        let devices = other
            .places
            .iter()
            .filter_map(|place| pool.devices.get(*place));
        let mut why = other.rank.why_after(&best.rank);

        for device in devices.clone() {
            if let DeviceSupport::Degraded(cost) = needs
                .prepared(other.first)?
                .device_fitness(&device.source.facts)
            {
                why = format!("{why}; {}: {cost}", device.source.facts.name);
                break;
            }
        }

        ways.push(AlternativePlacement {
            strategy: *strategy,
            tensor: *tensor,
            pipeline: u32::try_from(*pipeline).unwrap_or(u32::MAX),
            devices: devices.map(|it| it.source.facts.uuid.clone()).collect(),
            verdict: other.rank.grade.verdict(),
            why,
            short_by: Some(other.rank.missing),
        });
    }

    Ok(ways)
}

/// Returns the numbers of devices over which no split is legal, each reason once.
pub(super) fn illegal(found: &Found) -> Vec<AlternativePlacement> {
    let mut reasons = BTreeSet::new();
    let mut ways = Vec::new();
    for (devices, why) in &found.illegal {
        if reasons.insert(why.0.as_str()) {
            ways.push(AlternativePlacement {
                strategy: if *devices == 1 {
                    Strategy::Single
                } else {
                    Strategy::TensorParallel
                },
                tensor: *devices,
                pipeline: 1,
                devices: Vec::new(),
                verdict: Verdict::DoesNotFit,
                why: why.0.clone(),
                short_by: None,
            });
        }
    }

    ways
}

/// Returns why no split is legal.
pub(super) fn why_no_split(needs: &Needs<'_>, pool: &Pool<'_>, found: &Found) -> String {
    let asked = &needs.ask.constraints;
    if asked.tensor.is_none() && asked.pipeline.is_none() {
        let first = found
            .illegal
            .first()
            .map(|(devices, why)| format!("over {devices} devices: {why}"));
        return first.unwrap_or_else(|| "the engine knows no split for these devices".into());
    }

    let (tensor, stages) = (asked.tensor.unwrap_or(1), asked.pipeline.unwrap_or(1));
    let wanted = u64::from(tensor) * u64::from(stages);
    let usable = (0..pool.devices.len())
        .filter(|place| pool.joins(*place))
        .count();
    if wanted > 1 && wanted > usable as u64 {
        return format!(
            "tensor {tensor} x pipeline {stages} needs {wanted} devices; \
             {usable} can be used together"
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
        stages: even_stages(layers, stages),
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

/// Divides `layers` into `stages` nearly equal stages.
fn even_stages(layers: u32, stages: u32) -> Vec<Range<u32>> {
    let stage_end = |stage: u32| {
        let end = u64::from(layers) * u64::from(stage) / u64::from(stages.max(1));
        u32::try_from(end).unwrap_or(u32::MAX)
    };

    // A model has at most a few hundred layers. More stages than layers need no listing.
    (0..stages.min(layers.max(1)))
        .map(|stage| stage_end(stage)..stage_end(stage + 1))
        .collect()
}
