//! diffusers: the peak of the running step, with all components resident, one component at a time,
//! one leaf module at a time, or groups of blocks.
//!
//! Sources: diffusers 0.42.1 `pipelines/pipeline_utils.py` (`enable_model_cpu_offload`,
//! `enable_sequential_cpu_offload`, `enable_group_offload`), `hooks/group_offloading.py`, and the
//! pipelines named in `family`. Activations are those that live on the meta device.

mod activations;
mod family;
mod group_settings;
mod groups;
mod launch;
mod part;
mod phases;
mod pipeline;
mod settings;

use std::collections::BTreeMap;

use serde_json::Value;

use self::phases::PipelinePhase;
use self::pipeline::Pipeline;
use self::settings::DiffusersSettings;
use super::component::device_sum;
use super::compute_dtype::dtype_name;
use super::shared::torch::{cublas, cuda_context};
use super::{
    Basis, CacheCapacity, Component, ComponentName, DeviceSupport, Engine, EngineError,
    EngineRequest, IllegalSplit, Interval, Launch, LaunchPlan, Offload, PreparedEngine, Share,
    Split, Workload, companions, lora,
};
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::model::{Adapter, Dtype, Format, Model};

const NAME: &str = "diffusers";

/// diffusers' pipelines.
#[derive(Clone, Copy, Debug, Default)]
pub struct Diffusers;

impl Engine for Diffusers {
    fn name(&self) -> &'static str {
        NAME
    }

    fn context_by_host(
        &self,
        _model: &Model,
        _parameters: &BTreeMap<String, Value>,
        _devices: &[&DeviceFacts],
    ) -> Option<u64> {
        None
    }

    fn is_runnable(&self) -> bool {
        true
    }

    fn with_constants(
        &self,
        _constants: &toml::Table,
    ) -> Result<Option<Box<dyn Engine>>, EngineError> {
        Ok(None)
    }

    fn prepare<'a>(
        &self,
        request: &EngineRequest<'a>,
    ) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
        if request.model.format != Format::Diffusers {
            let why = "the repository has no model_index.json: it is no pipeline".to_owned();
            return Err(EngineError::Unsupported { engine: NAME, why });
        }

        let settings = DiffusersSettings::new(request)?;
        let pipeline = Pipeline::new(request.model, &settings)?;

        Ok(Box::new(DiffusersPrepared {
            model: request.model,
            pipeline,
            settings,
        }))
    }

    fn prepare_with_adapter<'a>(
        &self,
        _request: &EngineRequest<'a>,
        _adapter: &'a Adapter,
    ) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
        Err(lora::not_counted(NAME))
    }

    fn prepare_with_draft<'a>(
        &self,
        request: &EngineRequest<'a>,
        _draft: &'a Model,
    ) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
        // A refusal of the model itself comes first.
        Engine::prepare(self, request)?;
        Err(companions::no_draft(
            NAME,
            "a pipeline takes no draft: ask for it without one",
        ))
    }
}

struct DiffusersPrepared<'a> {
    model: &'a Model,
    pipeline: Pipeline,
    settings: DiffusersSettings,
}

impl DiffusersPrepared<'_> {
    /// The phases of a call.
    fn phases(&self, offload: Offload, images: u64) -> Vec<PipelinePhase<'_>> {
        phases::phases(&self.pipeline, &self.settings, offload, images)
    }

    /// The phase with the highest need.
    fn worst(&self, offload: Offload) -> Option<PipelinePhase<'_>> {
        phases::worst(self.phases(offload, self.settings.images))
    }

    /// Names the weights on the device, in a few words.
    fn weights_detail(&self, offload: Offload, part: &str) -> String {
        let dtype = dtype_name(self.settings.dtype);
        if self.settings.groups.is_some() {
            return format!("groups of {part}, as {dtype}");
        }

        match offload {
            Offload::Components => format!("{part} alone, as {dtype}"),
            Offload::Leaves => format!("the largest leaf of {part}, as {dtype}"),
            _ => format!("{} components as {dtype}", self.pipeline.parts.len()),
        }
    }
}

impl PreparedEngine for DiffusersPrepared<'_> {
    fn profile(&self) -> &'static str {
        "0.42"
    }

    fn parameters(&self) -> BTreeMap<String, Value> {
        self.settings.parameters(&self.pipeline)
    }

    /// A pipeline has no context; its sequences are the images of one call.
    fn workload(&self) -> Workload {
        Workload {
            context: 0,
            sequences: self.settings.images,
        }
    }

    fn kv_cache_dtype(&self) -> String {
        dtype_name(self.settings.dtype).to_owned()
    }

    fn kv_bytes_per_token(&self) -> Bytes {
        Bytes::ZERO
    }

    fn state_bytes_per_sequence(&self) -> Bytes {
        Bytes::ZERO
    }

    fn assumptions(&self) -> Vec<String> {
        let mut assumptions = self.settings.assumptions.clone();
        assumptions.push(format!(
            "{} x {} pixels, {} frame(s), {} image(s) a call",
            self.pipeline.width, self.pipeline.height, self.pipeline.frames, self.settings.images
        ));
        assumptions.extend(self.pipeline.assumptions.iter().cloned());
        assumptions
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    fn splits(&self, devices: u32) -> Result<Vec<Split>, IllegalSplit> {
        if devices == 1 {
            return Ok(vec![Split::single(0)]);
        }
        Err(IllegalSplit("a pipeline runs on one device".to_owned()))
    }

    fn check(&self, split: &Split) -> Result<(), IllegalSplit> {
        if split.ranks() != 1 || split.expert_parallel {
            return Err(IllegalSplit("a pipeline runs on one device".to_owned()));
        }

        match split.offload {
            Offload::None => Ok(()),
            _ if self.settings.groups.is_some() => Err(IllegalSplit(
                "diffusers has one kind of offload at a time, and enable_group_offload is on"
                    .to_owned(),
            )),
            Offload::Components | Offload::Leaves => Ok(()),
            _ => Err(IllegalSplit(
                "diffusers offloads whole components or leaf modules".to_owned(),
            )),
        }
    }

    fn uneven(&self) -> bool {
        false
    }

    fn moves_to_host(&self) -> bool {
        self.settings.groups.is_some()
    }

    fn ranks_are_processes(&self) -> bool {
        false
    }

    fn least_default_context(&self) -> Option<u64> {
        None
    }

    fn device_fitness(&self, device: &DeviceFacts) -> DeviceSupport {
        match device.capability() {
            Some(capability) if capability < 80 && self.settings.dtype == Dtype::BF16 => {
                DeviceSupport::Degraded(
                    "bfloat16 is emulated below compute capability 8.0; float16 is faster"
                        .to_owned(),
                )
            }
            _ => DeviceSupport::Able,
        }
    }

    fn fixed(
        &self,
        split: &Split,
        _rank: usize,
        device: &DeviceFacts,
    ) -> Result<Vec<Component>, EngineError> {
        let Some(PipelinePhase { weights, part, .. }) = self.worst(split.offload) else {
            return Ok(Vec::new());
        };

        if weights.high.overflowed() {
            return Err(EngineError::Overflow { what: "weights" });
        }

        let stored = split.offload == Offload::None
            && weights == Interval::exact(self.model.inventory.bytes());
        let basis = if stored { Basis::Exact } else { Basis::Formula };

        Ok(vec![
            Component::between(
                ComponentName::Weights,
                weights,
                basis,
                self.weights_detail(split.offload, &part.name),
            ),
            Component::between(
                ComponentName::Runtime,
                cublas(device),
                Basis::Formula,
                "cuBLAS workspaces",
            ),
            cuda_context(device),
        ])
    }

    fn variable(
        &self,
        split: &Split,
        _rank: usize,
        _device: &DeviceFacts,
        workload: Workload,
    ) -> Result<Vec<Component>, EngineError> {
        let phases = self.phases(split.offload, workload.sequences);
        let Some(PipelinePhase { weights: base, .. }) = self.worst(split.offload) else {
            return Ok(Vec::new());
        };

        // The fixed part already holds the weights of the worst phase. This counts what each phase
        // needs beyond them.
        let peak = phases
            .iter()
            .map(|phase| phase.beyond(base))
            .fold(Interval::default(), Interval::max);
        if peak.high.overflowed() {
            return Err(EngineError::Overflow {
                what: "activations",
            });
        }

        let worst = phases.iter().max_by_key(|phase| phase.beyond(base).high);
        let (name, basis) = worst.map_or(("", Basis::Assumed), |phase| {
            (&*phase.part.name, phase.peak.basis)
        });
        let slack = Interval::new(
            Bytes::ZERO,
            peak.likely.scale(2, 100),
            peak.high.scale(10, 100),
        );

        Ok(vec![
            Component::between(
                ComponentName::Activations,
                peak,
                basis,
                format!(
                    "{} x {} pixels, peak in {name}",
                    self.pipeline.width, self.pipeline.height
                ),
            ),
            Component::between(
                ComponentName::Runtime,
                slack,
                Basis::Assumed,
                "the allocator's fragmentation",
            ),
        ])
    }

    fn fixed_sum(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
    ) -> Result<Interval, EngineError> {
        Ok(device_sum(&self.fixed(split, rank, device)?))
    }

    fn variable_sum(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
        workload: Workload,
    ) -> Result<Interval, EngineError> {
        Ok(device_sum(&self.variable(split, rank, device, workload)?))
    }

    fn host(&self, split: &Split, _workload: Workload) -> Result<Vec<Component>, EngineError> {
        let waiting = phases::host(&self.pipeline, &self.settings, split.offload);
        let detail = if self.settings.groups.is_some() {
            "groups wait in host memory"
        } else {
            "components wait in host memory"
        };

        Ok(waiting
            .map(|bytes| Component::between(ComponentName::Host, bytes, Basis::Formula, detail))
            .into_iter()
            .collect())
    }

    fn must_be_available(&self, _split: &Split, _device: &DeviceFacts, sum: Interval) -> Interval {
        sum
    }

    fn share(&self, _split: &Split, _rank: usize, _device: &DeviceFacts) -> Option<Share> {
        None
    }

    fn capacity(&self, _plan: &LaunchPlan<'_>) -> Result<Option<CacheCapacity>, EngineError> {
        Ok(None)
    }

    fn launch(&self, plan: &LaunchPlan<'_>) -> Launch {
        launch::launch(self.model, &self.pipeline, &self.settings, plan)
    }
}

#[cfg(test)]
mod group_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod video_tests;
