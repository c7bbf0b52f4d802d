//! transformers with accelerate: weights cast, a cache that grows by concatenation, the whole
//! prompt in one step.
//!
//! Sources: transformers 5.23 `modeling_utils.py` (`from_pretrained`, `caching_allocator_warmup`),
//! `cache_utils.py` (`DynamicLayer`, `DynamicSlidingWindowLayer`, `StaticLayer`),
//! `generation/utils.py`; accelerate `utils/modeling.py`. Nothing here is measured by the engine at
//! start: "fits" is that the sum of the parts is free.

mod activations;
mod cache;
mod launch;
mod settings;

use std::collections::BTreeMap;

use serde_json::Value;

use self::settings::TransformersSettings;
use super::compute_dtype::dtype_name;
use super::layer_weights::{self, LayerBytes, LayerWeights};
use super::lora::{AdapterMemory, WithAdapter};
use super::shared::layer_kinds::LayerKinds;
use super::shared::torch::{cublas, cuda_context, cuda_context_bytes};
use super::{
    Basis, CacheCapacity, Component, ComponentName, DeviceSupport, Engine, EngineError,
    EngineRequest, IllegalSplit, Interval, Launch, LaunchPlan, Offload, PreparedEngine, Share,
    Split, Workload,
};
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::model::architecture::{Architecture, Mixer, Task};
use crate::model::{Adapter, Dtype, Format, Model, TensorClass};

const NAME: &str = "transformers";

/// transformers' `generate()` and plain forward passes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Transformers;

impl Engine for Transformers {
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
        case: &EngineRequest<'a>,
    ) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
        let model = case.model;
        let unsupported = |why: String| EngineError::Unsupported { engine: NAME, why };

        let architecture = model
            .architecture
            .as_ref()
            .map_err(|why| unsupported(why.to_string()))?;
        if let Some(why) = refusal(model, architecture) {
            return Err(unsupported(why));
        }

        let settings = TransformersSettings::new(case, architecture)?;
        let weights = LayerWeights::new(&model.inventory, architecture.layer_count());

        // Pickles tell no types: as stored, and twice that where they are widened to 32 bits.
        let pickled = model.format == Format::PytorchBin;
        let widened =
            pickled && settings.dtype == Dtype::F32 && architecture.dtype != Some(Dtype::F32);
        let times = if widened { 2 } else { 1 };
        let resident = weights.table(|class| resident(class, &settings) * times);
        let unpacked = weights.table(|class| unpacked(class, architecture, &settings) * times);
        let kinds = LayerKinds::new(&architecture.layers);

        Ok(Box::new(PrepareTransformers {
            model,
            architecture,
            kinds,
            resident,
            unpacked,
            settings,
        }))
    }

    fn prepare_with_adapter<'a>(
        &self,
        request: &EngineRequest<'a>,
        adapter: &'a Adapter,
    ) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
        let prepared = Engine::prepare(self, request)?;

        Ok(Box::new(WithAdapter::new(
            prepared,
            request,
            adapter,
            AdapterMemory::Cast,
        )))
    }
}

/// `quant_method`s that have a quantizer; others are an error (transformers 5.23
/// `quantizers/auto.py`, `AUTO_QUANTIZATION_CONFIG_MAPPING`).
const QUANTIZERS: &[&str] = &[
    "awq",
    "bitsandbytes",
    "bitsandbytes_4bit",
    "bitsandbytes_8bit",
    "eetq",
    "gptq",
    "aqlm",
    "quanto",
    "quark",
    "fouroversix",
    "fp_quant",
    "hqq",
    "compressed-tensors",
    "fbgemm_fp8",
    "higgs",
    "torchao",
    "bitnet",
    "vptq",
    "spqr",
    "fp8",
    "nvfp4",
    "mxfp8",
    "auto-round",
    "mxfp4",
    "metal",
    "sinq",
    "gemma",
];

/// What transformers cannot load, or would load at sizes that are not the stored ones.
fn refusal(model: &Model, architecture: &Architecture) -> Option<String> {
    let method = architecture
        .quantization
        .as_ref()
        .map(|quantization| quantization.method.as_str());

    match (model.format, method) {
        (Format::Gguf, _) => Some(
            "transformers dequantises GGUF files while it loads them; use llama.cpp".to_owned(),
        ),
        (Format::Diffusers, _) => Some("a diffusers pipeline; use the diffusers engine".to_owned()),
        (_, Some(method)) if !QUANTIZERS.contains(&method) => {
            let shown: String = method.chars().take(40).collect();
            Some(format!(
                "transformers has no quantizer for {shown} checkpoints"
            ))
        }
        _ => {
            let compressed = architecture.mixers(0..architecture.layer_count()).any(
                |mixer| matches!(mixer, Mixer::Latent(latent) if latent.compress_ratio.is_some()),
            );
            compressed.then(|| {
                "compress_ratios: its compressed cache in transformers is not understood".to_owned()
            })
        }
    }
}

struct PrepareTransformers<'a> {
    model: &'a Model,
    architecture: &'a Architecture,
    kinds: LayerKinds<'a>,
    resident: LayerBytes,
    unpacked: LayerBytes,
    settings: TransformersSettings,
}

/// One tensor as resident: floats cast to the compute dtype, quantised payloads and their scales as
/// stored.
fn resident(class: &TensorClass, settings: &TransformersSettings) -> Bytes {
    // Prediction layers are unexpected keys and are not loaded
    // (`_keys_to_ignore_on_load_unexpected`).
    if class.pattern.starts_with("mtp.") {
        return Bytes::ZERO;
    }

    match class.dtype() {
        Some(dtype) if dtype.is_float() && !is_scale(&class.pattern) => {
            Bytes::new(class.elements_each()) * settings.element_bytes()
        }
        _ => class.bytes_each,
    }
}

/// One tensor as it may end: two methods keep their weights packed only while the right kernels are
/// installed (`Mxfp4HfQuantizer`), or unpack them at the first pass (compressed-tensors'
/// `CompressedLinear`).
fn unpacked(
    class: &TensorClass,
    architecture: &Architecture,
    settings: &TransformersSettings,
) -> Bytes {
    let quantization = architecture.quantization.as_ref();
    let bits = quantization
        .and_then(|quantization| quantization.bits)
        .map_or(8, u64::from)
        .max(1);
    let name = &*class.pattern;
    let elements = Bytes::new(class.elements_each());

    let logical = match (
        quantization.map(|quantization| quantization.method.as_str()),
        class.dtype(),
    ) {
        (Some("mxfp4"), Some(Dtype::U8)) if name.ends_with("_blocks") => elements * 2,
        (Some("compressed-tensors"), Some(Dtype::I32)) if name.ends_with(".weight_packed") => {
            elements.scale(32, bits)
        }
        (Some("compressed-tensors"), Some(Dtype::U8)) if name.ends_with(".weight_packed") => {
            elements * 2
        }
        (Some("compressed-tensors"), Some(Dtype::F8E4M3 | Dtype::I8))
            if name.ends_with(".weight") =>
        {
            elements
        }
        _ => return resident(class, settings),
    };

    logical * settings.element_bytes()
}

/// What `rank` remembers and passes through.
struct Moving {
    cache: Interval,
    states: Interval,
    step: Interval,
    slack: Interval,
}

impl PrepareTransformers<'_> {
    /// Weights of a stage on its device and on the host.
    fn weights_of(&self, split: &Split, stage: usize) -> (Bytes, Bytes) {
        let all = self.resident.stage(&split.stages, stage);
        let Offload::Layers { layers } = split.offload else {
            return (all, Bytes::ZERO);
        };

        // accelerate fills the device in order: the last layers stay behind, and come through a
        // place for the largest.
        let count = self.architecture.layer_count();
        let kept = count.saturating_sub(layers);
        let stays = self.resident.layers(&(kept..count));
        let on_device = all.less(stays).unwrap_or(Bytes::OVERFLOW) + self.resident.largest_layer();

        (on_device, stays)
    }

    /// The weights on the device of `rank`, with what they may be unpacked to.
    fn weights(&self, split: &Split, rank: usize) -> Result<Interval, EngineError> {
        let (stage, _) = split.stage_of(rank);
        let (weights, _) = self.weights_of(split, stage);
        if weights.overflowed() {
            return Err(EngineError::Overflow { what: "weights" });
        }

        Ok(match split.offload {
            Offload::None => {
                Interval::new(weights, weights, self.unpacked.stage(&split.stages, stage))
            }
            _ => Interval::exact(weights),
        })
    }

    fn moving(
        &self,
        split: &Split,
        rank: usize,
        workload: Workload,
    ) -> Result<Moving, EngineError> {
        let (stage, layers) = split.stage_of(rank);
        let held = self.kinds.held(&layers);
        let cache = cache::held(&held, &self.settings, workload);
        let states = cache::scaled(
            cache::states(self.architecture, &self.settings, &held),
            workload.sequences,
        );
        let ends = (stage == 0, stage + 1 == split.stages.len());
        let step = activations::step(self.architecture, &self.settings, workload, &held, ends);

        // Fragmentation of a growing cache and of steps of changing size: 2 to 5 % (PyTorch's
        // caching allocator).
        let moving = cache.plus(states).plus(step);
        let slack = Interval::new(
            Bytes::ZERO,
            moving.likely.scale(2, 100),
            moving.high.scale(5, 100),
        );

        if [cache, states, step, slack]
            .iter()
            .any(|part| part.high.overflowed())
        {
            return Err(EngineError::Overflow {
                what: "cache and activations",
            });
        }

        Ok(Moving {
            cache,
            states,
            step,
            slack,
        })
    }
}

/// Scales of quantised weights keep their dtype.
fn is_scale(pattern: &str) -> bool {
    [
        "scale",
        "scales",
        "scale_inv",
        "absmax",
        "quant_map",
        "zero_point",
    ]
    .iter()
    .any(|word| pattern.ends_with(word))
}

impl PreparedEngine for PrepareTransformers<'_> {
    fn profile(&self) -> &str {
        self.settings.profile
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
        cache::per_token(self.architecture, &self.settings)
    }

    fn state_bytes_per_sequence(&self) -> Bytes {
        cache::states(
            self.architecture,
            &self.settings,
            &self.kinds.held(&(0..self.architecture.layer_count())),
        )
        .likely
    }

    fn assumptions(&self) -> Vec<String> {
        self.settings.assumptions.clone()
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    fn splits(&self, devices: u32) -> Result<Vec<Split>, IllegalSplit> {
        let layers = self.architecture.layer_count();
        if devices == 1 {
            return Ok(vec![Split::single(layers)]);
        }

        if self.architecture.task == Task::EncodeDecode {
            return Err(IllegalSplit(
                "how accelerate shares an encoder and its decoder is not understood here"
                    .to_owned(),
            ));
        }

        Ok(vec![Split::by_layers(devices, layers)?])
    }

    fn check(&self, split: &Split) -> Result<(), IllegalSplit> {
        let illegal = |why: &str| Err(IllegalSplit(why.to_owned()));
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

    fn device_fitness(&self, device: &DeviceFacts) -> DeviceSupport {
        settings::fitness(self.architecture, self.settings.dtype, device)
    }

    fn fixed(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
    ) -> Result<Vec<Component>, EngineError> {
        let weights = self.weights(split, rank)?;
        let detail = format!(
            "{} tensors, floats as {}",
            self.model.inventory.tensors(),
            dtype_name(self.settings.dtype)
        );

        // Where nothing is cast and all is resident, the headers' own figure stands.
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
            .weights(split, rank)?
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
        let moving = self.moving(split, rank, workload)?;
        let mut components = Vec::new();

        if moving.cache.high > Bytes::ZERO {
            let what = if self.settings.static_cache {
                "StaticCache"
            } else {
                "DynamicCache, one layer twice while it grows"
            };

            let detail = format!(
                "{} x {} tokens, {what}",
                workload.sequences, workload.context
            );
            components.push(Component::between(
                ComponentName::KvCache,
                moving.cache,
                Basis::Formula,
                detail,
            ));
        }

        if moving.states.high > Bytes::ZERO {
            let detail = format!("{} sequences, model dtype to 32-bit", workload.sequences);
            components.push(Component::between(
                ComponentName::State,
                moving.states,
                Basis::Formula,
                detail,
            ));
        }

        let detail = activations::told(&self.settings, workload);
        components.push(Component::between(
            ComponentName::Activations,
            moving.step,
            Basis::Assumed,
            detail,
        ));

        components.push(Component::between(
            ComponentName::Runtime,
            moving.slack,
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
        let moving = self.moving(split, rank, workload)?;
        Ok([moving.cache, moving.states, moving.step, moving.slack]
            .into_iter()
            .sum())
    }

    fn host(&self, split: &Split, _workload: Workload) -> Result<Vec<Component>, EngineError> {
        let (_, host) = self.weights_of(split, 0);
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
        let stage = |stage| self.weights_of(plan.split, stage).0;
        launch::launch(
            self.model,
            self.architecture,
            &self.settings,
            plan,
            stage,
            self.resident.largest_layer(),
        )
    }
}

/// The dtypes that transformers computes in.
const COMPUTE: &[(&str, Dtype)] = &[
    ("bfloat16", Dtype::BF16),
    ("float16", Dtype::F16),
    ("float32", Dtype::F32),
    ("bf16", Dtype::BF16),
    ("fp16", Dtype::F16),
    ("half", Dtype::F16),
    ("fp32", Dtype::F32),
    ("float", Dtype::F32),
];

#[cfg(test)]
mod tests;
