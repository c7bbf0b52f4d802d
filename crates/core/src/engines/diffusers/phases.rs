//! The phases of a call: the weights on the device and the peak while each part runs.

use super::super::{Interval, Offload};
use super::activations::{self, StagePeak};
use super::pipeline::{ComponentRole, Pipeline, PipelinePart};
use super::settings::{DiffusersSettings, GroupOffload};
use crate::bytes::Bytes;

/// Parts that a pipeline's `model_cpu_offload_seq` or `_exclude_from_cpu_offload` leaves on the
/// device while others run.
const STAYING: [&str; 6] = [
    "adapter",
    "controlnet",
    "safety_checker",
    "prior_prior",
    "qformer",
    "watermarker",
];

/// A part of a pipeline while it runs.
pub(super) struct PipelinePhase<'a> {
    /// Weights on the device.
    pub(super) weights: Interval,
    /// The part's activations at their peak.
    pub(super) peak: StagePeak,
    pub(super) part: &'a PipelinePart,
}

impl PipelinePhase<'_> {
    /// Weights and activations.
    pub(super) fn whole(&self) -> Interval {
        self.weights.plus(self.peak.bytes)
    }

    /// Bytes in addition to `base`, end by end.
    pub(super) fn beyond(&self, base: Interval) -> Interval {
        let whole = self.whole();
        let excess = |bytes: Bytes, base: Bytes| bytes.less(base).unwrap_or(Bytes::OVERFLOW);
        let (low, likely) = (
            excess(whole.low, base.low),
            excess(whole.likely, base.likely),
        );

        Interval {
            low: low.min(likely),
            likely,
            high: excess(whole.high, base.high).max(likely),
        }
    }
}

/// The phases of a call for `images` images.
pub(super) fn phases<'a>(
    pipeline: &'a Pipeline,
    settings: &DiffusersSettings,
    offload: Offload,
    images: u64,
) -> Vec<PipelinePhase<'a>> {
    pipeline
        .parts
        .iter()
        .map(|part| PipelinePhase {
            weights: weights(part, pipeline, settings, offload),
            peak: activations::peak(part, pipeline, settings, images),
            part,
        })
        .collect()
}

/// The phase with the highest need.
pub(super) fn worst(phases: Vec<PipelinePhase<'_>>) -> Option<PipelinePhase<'_>> {
    phases.into_iter().max_by_key(|phase| phase.whole().high)
}

/// Weights on the device while `part` runs.
fn weights(
    part: &PipelinePart,
    pipeline: &Pipeline,
    settings: &DiffusersSettings,
    offload: Offload,
) -> Interval {
    if let Some(groups) = &settings.groups {
        return weights_of_groups(part, pipeline, groups);
    }

    match offload {
        Offload::Components => {
            let staying: Bytes = others(part, pipeline)
                .filter(|other| STAYING.contains(&other.name.as_str()))
                .map(PipelinePart::bytes)
                .sum();
            Interval::exact(part.bytes() + staying)
        }
        // The peak of activations may come while no large module is there.
        Offload::Leaves => {
            let buffers = part.buffers;
            let leaf = part.divided.largest_leaf();
            Interval::new(buffers, buffers + leaf, buffers + leaf)
        }
        _ => Interval::exact(pipeline.parts.iter().map(PipelinePart::bytes).sum()),
    }
}

/// Weights on the device while `part` runs in groups, or whole.
fn weights_of_groups(part: &PipelinePart, pipeline: &Pipeline, groups: &GroupOffload) -> Interval {
    let excluded: Bytes = others(part, pipeline)
        .filter(|other| groups.excludes(&other.name))
        .map(PipelinePart::bytes)
        .sum();
    let own = if groups.excludes(&part.name) {
        Interval::exact(part.bytes())
    } else {
        part.divided.on_device(groups)
    };

    own.plus(Interval::exact(excluded))
}

/// The pipeline's other parts.
fn others<'a>(
    part: &'a PipelinePart,
    pipeline: &'a Pipeline,
) -> impl Iterator<Item = &'a PipelinePart> {
    pipeline
        .parts
        .iter()
        .filter(|other| other.name != part.name)
}

/// Host memory that the weights take.
pub(super) fn host(
    pipeline: &Pipeline,
    settings: &DiffusersSettings,
    offload: Offload,
) -> Option<Interval> {
    if let Some(groups) = &settings.groups {
        let offloaded = pipeline
            .parts
            .iter()
            .filter(|part| !groups.excludes(&part.name));
        return Some(offloaded.map(|part| part.divided.on_host(groups)).sum());
    }

    match offload {
        Offload::None => None,
        _ => Some(Interval::exact(
            pipeline.parts.iter().map(PipelinePart::bytes).sum(),
        )),
    }
}

/// Whether a part denoises.
pub(super) fn denoises(part: &PipelinePart) -> bool {
    matches!(part.role, ComponentRole::Transformer | ComponentRole::UNet)
}
