//! [`PreparedEngine`] for transformers.

use std::collections::BTreeMap;

use serde_json::Value;

use super::cache::LayerCaches;
use super::device_support::device_support;
use super::settings::TransformersSettings;
use super::states::{scaled, states};
use super::variable_parts::VariableParts;
use super::weights::TransformersWeights;
use super::{activations, launch};
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::engines::compute_dtype::dtype_name;
use crate::engines::profile::Profile;
use crate::engines::shared::layer_kinds::LayerKinds;
use crate::engines::shared::split_rules::illegal;
use crate::engines::shared::torch::{cublas, cuda_context, cuda_context_bytes};
use crate::engines::{
    Basis, CacheCapacity, Component, ComponentName, DeviceSupport, EngineError, EngineRequest,
    IllegalSplit, Interval, Launch, LaunchPlan, Offload, PreparedEngine, Share, Split, Workload,
    layer_weights,
};
use crate::model::Model;
use crate::model::architecture::{Architecture, Task};

/// transformers ready to answer for one model.
pub(super) struct TransformersPrepared<'a> {
    model: &'a Model,
    architecture: &'a Architecture,
    kinds: LayerKinds<'a>,
    weights: TransformersWeights,
    settings: TransformersSettings,
}

/// The weights of one stage.
#[derive(Clone, Copy, Debug)]
struct StageWeights {
    device: Bytes,
    host: Bytes,
}

impl<'a> TransformersPrepared<'a> {
    pub(super) fn new(
        request: &EngineRequest<'a>,
        architecture: &'a Architecture,
        profile: &Profile,
    ) -> Result<Self, EngineError> {
        let model = request.model;
        let settings = TransformersSettings::new(request, architecture, profile)?;

        Ok(Self {
            model,
            architecture,
            kinds: LayerKinds::new(&architecture.layers),
            weights: TransformersWeights::new(model, architecture, &settings),
            settings,
        })
    }

    /// The caches by layer.
    const fn caches(&self) -> LayerCaches<'_> {
        LayerCaches::new(self.architecture, &self.settings)
    }

    /// The weights of a stage on its device and on the host.
    fn stage_weights(&self, split: &Split, stage: usize) -> StageWeights {
        let resident = &self.weights.resident;
        let all = resident.stage(&split.stages, stage);
        let Offload::Layers { layers } = split.offload else {
            return StageWeights {
                device: all,
                host: Bytes::ZERO,
            };
        };

        // accelerate fills the device in order: the last layers stay on the host, and pass through
        // a buffer for the largest layer.
        let count = self.architecture.layer_count();
        let host = resident.layers(&(count.saturating_sub(layers)..count));
        let device = all.less(host).unwrap_or(Bytes::OVERFLOW) + resident.largest_layer();

        StageWeights { device, host }
    }

    /// The weights on the device of `rank`; the high end has them unpacked.
    fn device_weights(&self, split: &Split, rank: usize) -> Result<Interval, EngineError> {
        let (stage, _) = split.stage_of(rank);
        let weights = self.stage_weights(split, stage).device;
        if weights.overflowed() {
            return Err(EngineError::Overflow { what: "weights" });
        }

        Ok(match split.offload {
            Offload::None => {
                let unpacked = self.weights.unpacked.stage(&split.stages, stage);
                Interval::new(weights, weights, unpacked)
            }
            _ => Interval::exact(weights),
        })
    }

    /// The memory on `rank` that depends on `workload`.
    fn variable_bytes(
        &self,
        split: &Split,
        rank: usize,
        workload: Workload,
    ) -> Result<VariableParts, EngineError> {
        let (stage, layers) = split.stage_of(rank);
        let held = self.kinds.held(&layers);
        let caches = self.caches();
        let cache = caches.of_stage(stage, &held, workload);
        let growth = caches.growth(&held, workload);
        let states = scaled(states(&held, &self.settings), workload.sequences);
        let ends = (stage == 0, stage + 1 == split.stages.len());
        let step = activations::step(self.architecture, &self.settings, workload, &held, ends);

        // A growing cache and steps of changing size fragment the memory by 2 to 5 % (PyTorch's
        // caching allocator).
        let moving = cache.plus(growth).plus(states).plus(step);
        let slack = Interval::new(
            Bytes::ZERO,
            moving.likely.scale(2, 100),
            moving.high.scale(5, 100),
        );

        let parts = VariableParts {
            cache,
            growth,
            states,
            step,
            slack,
        };
        if parts.all().iter().any(|part| part.high.overflowed()) {
            return Err(EngineError::Overflow {
                what: "cache and activations",
            });
        }

        Ok(parts)
    }
}

impl PreparedEngine for TransformersPrepared<'_> {
    fn profile(&self) -> &str {
        &self.settings.profile
    }

    fn parameters(&self) -> BTreeMap<String, Value> {
        self.settings.parameters()
    }

    fn workload(&self) -> Workload {
        self.settings.workload
    }

    fn kv_cache_dtype(&self) -> String {
        dtype_name(self.settings.dtype).to_owned()
    }

    fn kv_bytes_per_token(&self) -> Bytes {
        self.caches().per_token()
    }

    fn state_bytes_per_sequence(&self) -> Bytes {
        let layers = self.kinds.held(&(0..self.architecture.layer_count()));
        states(&layers, &self.settings).likely
    }

    fn assumptions(&self) -> Vec<String> {
        let mut assumptions = self.settings.assumptions.clone();
        if self.caches().retains_prompt() {
            assumptions.push(
                "until the next token, window layers keep the whole prompt's keys and values"
                    .to_owned(),
            );
        }

        assumptions
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    fn splits(&self, devices: u32) -> Result<Vec<Split>, IllegalSplit> {
        let layers = self.architecture.layer_count();
        if devices == 1 {
            return Ok(vec![Split::single(layers)]);
        }

        // Looped layers are not in the order of the files' layers.
        if self.architecture.is_looped() {
            return illegal(
                "splitting a model that runs its layers several times is not supported",
            );
        }

        if self.architecture.task == Task::EncodeDecode {
            return illegal(
                "splitting an encoder and its decoder with accelerate is not supported",
            );
        }

        Ok(vec![Split::by_layers(devices, layers)?])
    }

    fn check(&self, split: &Split) -> Result<(), IllegalSplit> {
        if split.tensor != 1 || split.expert_parallel {
            return illegal("accelerate's device map splits by layers only");
        }

        match split.offload {
            Offload::None => {}
            Offload::Layers { layers }
                if split.stages.len() == 1 && layers <= self.architecture.layer_count() => {}
            _ => return illegal("accelerate offloads whole layers, from one device"),
        }

        layer_weights::covers(&split.stages, self.architecture.layer_count())
    }

    fn uneven(&self) -> bool {
        true
    }

    fn moves_to_host(&self) -> bool {
        false
    }

    fn ranks_are_processes(&self) -> bool {
        false
    }

    fn least_default_context(&self) -> Option<u64> {
        None
    }

    fn device_fitness(&self, device: &DeviceFacts) -> DeviceSupport {
        device_support(self.architecture, self.settings.dtype, device)
    }

    fn fixed(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
    ) -> Result<Vec<Component>, EngineError> {
        let weights = self.device_weights(split, rank)?;
        let detail = format!(
            "{} tensors, floats as {}",
            self.model.inventory.tensors(),
            dtype_name(self.settings.dtype)
        );

        // If nothing is cast and all is resident, the figure is the headers' own.
        let exact = split.ranks() == 1 && weights.likely == self.model.inventory.bytes();
        let basis = if exact { Basis::Exact } else { Basis::Formula };

        Ok(vec![
            Component::between(ComponentName::Weights, weights, basis, detail),
            Component::between(
                ComponentName::Runtime,
                cublas(device),
                Basis::Formula,
                "cuBLAS workspaces",
            ),
            cuda_context(device),
        ])
    }

    fn fixed_sum(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
    ) -> Result<Interval, EngineError> {
        Ok(self
            .device_weights(split, rank)?
            .plus(cublas(device))
            .plus(cuda_context_bytes(device)))
    }

    fn variable(
        &self,
        split: &Split,
        rank: usize,
        _device: &DeviceFacts,
        workload: Workload,
    ) -> Result<Vec<Component>, EngineError> {
        let parts = self.variable_bytes(split, rank, workload)?;
        let mut components = Vec::new();

        if parts.cache.high > Bytes::ZERO {
            let kind = if self.settings.static_cache {
                "StaticCache"
            } else {
                "DynamicCache"
            };

            let detail = format!(
                "{} x {} tokens, {kind}",
                workload.sequences, workload.context
            );
            components.push(Component::between(
                ComponentName::KvCache,
                parts.cache,
                Basis::Formula,
                detail,
            ));
        }

        if parts.growth.high > Bytes::ZERO {
            components.push(Component::between(
                ComponentName::Runtime,
                parts.growth,
                Basis::Formula,
                "the cache while it grows",
            ));
        }

        if parts.states.high > Bytes::ZERO {
            let detail = format!("{} sequences", workload.sequences);
            components.push(Component::between(
                ComponentName::State,
                parts.states,
                Basis::Formula,
                detail,
            ));
        }

        let detail = activations::step_detail(&self.settings, workload);
        components.push(Component::between(
            ComponentName::Activations,
            parts.step,
            Basis::Assumed,
            detail,
        ));

        components.push(Component::between(
            ComponentName::Runtime,
            parts.slack,
            Basis::Assumed,
            "the allocator's fragmentation",
        ));

        Ok(components)
    }

    fn variable_sum(
        &self,
        split: &Split,
        rank: usize,
        _device: &DeviceFacts,
        workload: Workload,
    ) -> Result<Interval, EngineError> {
        Ok(self.variable_bytes(split, rank, workload)?.sum())
    }

    fn host(&self, split: &Split, _workload: Workload) -> Result<Vec<Component>, EngineError> {
        let host = self.stage_weights(split, 0).host;
        if host == Bytes::ZERO {
            return Ok(Vec::new());
        }

        Ok(vec![Component::exact(
            ComponentName::Host,
            host,
            Basis::Formula,
            "layers that accelerate keeps on the host",
        )])
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
        let largest_layer = self.weights.resident.largest_layer();
        launch::launch(
            self.model,
            self.architecture,
            &self.settings,
            plan,
            |stage| self.stage_weights(plan.split, stage).device,
            largest_layer,
        )
    }
}
