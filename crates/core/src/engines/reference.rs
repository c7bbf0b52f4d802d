//! The logical minimum: weights as stored, the cache of N tokens, recurrent states; no engine's
//! overheads.
//!
//! It answers "what would a perfect engine need", which is what estimators that know no engine
//! print. Nothing runs it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::layer_weights::{LayerBytes, LayerWeights};
use super::logical::{self, CacheElement};
use super::lora::{AdapterMemory, WithAdapter};
use super::{
    AskedContext, AskedWorkload, Basis, CacheCapacity, Component, ComponentName, DeviceSupport,
    Engine, EngineError, EngineRequest, IllegalSplit, Interval, Launch, LaunchPlan, Offload,
    PreparedEngine, Share, Split, Workload, nearest_name,
};
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::model::architecture::Architecture;
use crate::model::{Adapter, Dtype, Format, Inventory, Model};

const NAME: &str = "reference";

/// What vLLM assumes where no key gives a length (`config/model.py`, `_get_and_verify_max_len`).
const CONTEXT_WITHOUT_KEYS: u64 = 2048;

/// The engine that has no overheads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

impl Engine for Reference {
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
        false
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
        if let Some(name) = case.parameters.keys().next() {
            let nearest = nearest_name(name, []);
            return Err(EngineError::UnknownParameter {
                engine: NAME,
                name: name.clone(),
                nearest,
            });
        }

        Ok(Box::new(PrepareReference::new(case.model, &case.asked)?))
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
            AdapterMemory::AsStored,
        )))
    }
}

struct PrepareReference<'a> {
    model: &'a Model,
    /// `None` for a diffusers pipeline: weights only.
    architecture: Option<&'a Architecture>,
    weights: LayerBytes,
    workload: Workload,
    element: CacheElement,
    element_name: String,
    dtype: Dtype,
    assumptions: Vec<String>,
}

impl<'a> PrepareReference<'a> {
    fn new(model: &'a Model, asked: &AskedWorkload) -> Result<Self, EngineError> {
        let architecture = match &model.architecture {
            Ok(architecture) => Some(architecture),
            Err(_) if model.format == Format::Diffusers => None,
            Err(why) => {
                return Err(EngineError::Unsupported {
                    engine: NAME,
                    why: why.to_string(),
                });
            }
        };

        let mut assumptions = Vec::new();
        let dtype = match asked.dtype.as_deref().filter(|name| *name != "auto") {
            Some(name) => compute_dtype(name)?,
            None => model_dtype(model.format, &model.inventory, architecture),
        };

        let (element_name, element) = match asked
            .kv_cache_dtype
            .as_deref()
            .filter(|name| *name != "auto")
        {
            Some(name) => (
                name.to_owned(),
                CacheElement::named(name).ok_or_else(|| bad_cache_dtype(name))?,
            ),
            None => (dtype_name(dtype).to_owned(), CacheElement::of(dtype)),
        };

        let wanted = architecture.and_then(|architecture| {
            architecture
                .quantization
                .as_ref()?
                .kv_cache_dtype
                .as_deref()
        });
        if let (Some(wanted), None) = (wanted, &asked.kv_cache_dtype) {
            assumptions.push(format!(
                "the cache is counted in {element_name}; the checkpoint itself asks for {wanted} (kv_cache_dtype={wanted})"
            ));
        }

        let longest = architecture.and_then(|architecture| architecture.max_context);
        let context = match (asked.context, architecture, longest) {
            (Some(AskedContext::Tokens(tokens)), _, _) => tokens,
            (_, None, _) => 0,
            (_, Some(_), Some(longest)) => longest,
            (_, Some(_), None) => {
                assumptions
                    .push(format!("the configuration gives no length: a context of {CONTEXT_WITHOUT_KEYS} is assumed"));
                CONTEXT_WITHOUT_KEYS
            }
        };

        if let Some(longest) = longest.filter(|longest| context > *longest) {
            assumptions.push(format!(
                "{context} tokens are more than the {longest} that the model is configured for"
            ));
        }

        assumptions.push(
            "no engine: weights as stored and the logical cache, without any overhead".to_owned(),
        );

        Ok(Self {
            model,
            architecture,
            weights: LayerWeights::new(
                &model.inventory,
                architecture.map_or(0, Architecture::layer_count),
            )
            .table(|class| class.bytes_each),
            workload: Workload {
                context,
                sequences: asked.sequences.unwrap_or(1),
            },
            element,
            element_name,
            dtype,
            assumptions,
        })
    }

    fn layers(&self) -> u32 {
        self.architecture.map_or(0, Architecture::layer_count)
    }

    /// Cache and states of `rank`.
    fn remembered(
        &self,
        split: &Split,
        rank: usize,
        workload: Workload,
    ) -> Result<(Bytes, Bytes), EngineError> {
        let Some(architecture) = self.architecture else {
            return Ok((Bytes::ZERO, Bytes::ZERO));
        };

        let (_, layers) = split.stage_of(rank);
        let cache = logical::cache(architecture, layers.clone(), workload.context, self.element)
            * workload.sequences;
        let states = logical::states(architecture, layers, self.dtype) * workload.sequences;
        if cache.overflowed() || states.overflowed() {
            return Err(EngineError::Overflow { what: "cache" });
        }

        Ok((cache, states))
    }
}

impl PreparedEngine for PrepareReference<'_> {
    fn profile(&self) -> &'static str {
        "logical"
    }

    fn parameters(&self) -> BTreeMap<String, Value> {
        BTreeMap::new()
    }

    fn workload(&self) -> Workload {
        self.workload
    }

    fn kv_cache_dtype(&self) -> String {
        self.element_name.clone()
    }

    fn kv_bytes_per_token(&self) -> Bytes {
        self.architecture.map_or(Bytes::ZERO, |architecture| {
            logical::per_token(architecture, self.workload.context, self.element)
        })
    }

    fn state_bytes_per_sequence(&self) -> Bytes {
        self.architecture.map_or(Bytes::ZERO, |architecture| {
            logical::states(architecture, 0..architecture.layer_count(), self.dtype)
        })
    }

    fn assumptions(&self) -> Vec<String> {
        self.assumptions.clone()
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    fn splits(&self, devices: u32) -> Result<Vec<Split>, IllegalSplit> {
        let layers = self.layers();
        if devices == 1 {
            return Ok(vec![Split::single(layers)]);
        }
        Ok(vec![Split::by_layers(devices, layers)?])
    }

    fn check(&self, split: &Split) -> Result<(), IllegalSplit> {
        let illegal = |why: &str| Err(IllegalSplit(why.to_owned()));
        if split.tensor != 1 || split.expert_parallel {
            return illegal("the reference splits by layers only");
        }

        if split.offload != Offload::None {
            return illegal("the reference offloads nothing");
        }

        super::layer_weights::covers(&split.stages, self.layers())
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

    fn device_fitness(&self, _device: &DeviceFacts) -> DeviceSupport {
        DeviceSupport::Able
    }

    fn fixed(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
    ) -> Result<Vec<Component>, EngineError> {
        let bytes = self.fixed_sum(split, rank, device)?;
        let detail = format!(
            "{} tensors in {} files, as stored",
            self.model.inventory.tensors(),
            self.model.weight_files
        );

        Ok(vec![Component::between(
            ComponentName::Weights,
            bytes,
            Basis::Exact,
            detail,
        )])
    }

    fn fixed_sum(
        &self,
        split: &Split,
        rank: usize,
        _device: &DeviceFacts,
    ) -> Result<Interval, EngineError> {
        let bytes = self.weights.stage(&split.stages, split.stage_of(rank).0);
        if bytes.overflowed() {
            Err(EngineError::Overflow { what: "weights" })
        } else {
            Ok(Interval::exact(bytes))
        }
    }

    fn variable(
        &self,
        split: &Split,
        rank: usize,
        _device: &DeviceFacts,
        workload: Workload,
    ) -> Result<Vec<Component>, EngineError> {
        let (cache, states) = self.remembered(split, rank, workload)?;
        let held = format!(
            "{} x {} tokens in {}",
            workload.sequences, workload.context, self.element_name
        );
        let mut components = Vec::new();
        if cache > Bytes::ZERO {
            components.push(Component::exact(
                ComponentName::KvCache,
                cache,
                Basis::Formula,
                held,
            ));
        }

        if states > Bytes::ZERO {
            let detail = format!("{} sequences", workload.sequences);
            components.push(Component::exact(
                ComponentName::State,
                states,
                Basis::Formula,
                detail,
            ));
        }

        Ok(components)
    }

    fn variable_sum(
        &self,
        split: &Split,
        rank: usize,
        _device: &DeviceFacts,
        workload: Workload,
    ) -> Result<Interval, EngineError> {
        let (cache, states) = self.remembered(split, rank, workload)?;
        Ok(Interval::exact(cache + states))
    }

    fn host(&self, _split: &Split, _workload: Workload) -> Result<Vec<Component>, EngineError> {
        Ok(Vec::new())
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

    fn launch(&self, _plan: &LaunchPlan<'_>) -> Launch {
        Launch::default()
    }
}

/// The dtype that the model computes in: the configuration's, else the widest-spread float among
/// its tensors.
pub(super) fn model_dtype(
    format: Format,
    inventory: &Inventory,
    architecture: Option<&Architecture>,
) -> Dtype {
    // GGUF files name no compute dtype; llama.cpp's cache is F16.
    if format == Format::Gguf {
        return Dtype::F16;
    }

    if let Some(dtype) = architecture
        .and_then(|architecture| architecture.dtype)
        .filter(|dtype| dtype.is_float())
    {
        return dtype;
    }

    let sum = |dtype: Dtype| -> Bytes {
        inventory
            .classes
            .iter()
            .filter(|class| class.dtype() == Some(dtype))
            .map(crate::model::TensorClass::bytes)
            .sum()
    };

    let (half, brain) = (sum(Dtype::F16), sum(Dtype::BF16));

    // 32-bit scales and biases of a quantised checkpoint say nothing of its compute dtype.
    let quantized = architecture.is_some_and(|architecture| architecture.quantization.is_some());
    match (half, brain) {
        (Bytes::ZERO, Bytes::ZERO) if quantized => Dtype::BF16,
        (Bytes::ZERO, Bytes::ZERO) => Dtype::F32,
        (half, brain) if !quantized && sum(Dtype::F32) > half + brain => Dtype::F32,
        (half, brain) if half > brain => Dtype::F16,
        _ => Dtype::BF16,
    }
}

/// The name that engines give a compute dtype.
pub(super) fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F64 => "float64",
        Dtype::F32 => "float32",
        Dtype::F16 => "float16",
        Dtype::BF16 => "bfloat16",
        other => other.name(),
    }
}

fn compute_dtype(name: &str) -> Result<Dtype, EngineError> {
    match name {
        "bfloat16" | "bf16" => Ok(Dtype::BF16),
        "float16" | "half" | "fp16" => Ok(Dtype::F16),
        "float32" | "float" | "fp32" => Ok(Dtype::F32),
        other => Err(EngineError::BadParameter {
            engine: NAME,
            name: "dtype".to_owned(),
            value: other.to_owned(),
            why: "bfloat16, float16, float32 or auto is expected".to_owned(),
        }),
    }
}

fn bad_cache_dtype(name: &str) -> EngineError {
    EngineError::BadParameter {
        engine: NAME,
        name: "kv_cache_dtype".to_owned(),
        value: name.to_owned(),
        why: "not a cache dtype that any engine has; try auto, bfloat16, fp8 or q8_0".to_owned(),
    }
}

#[cfg(test)]
mod tests;
