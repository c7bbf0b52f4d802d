//! llama.cpp ready to answer for one model.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::{Value, json};

use super::cache::{self, Layout};
use super::compute::Graph;
use super::launch;
use super::parameters::{self, ENGINE, Parameters};
use super::profile::{self, Profile};
use super::split;
use super::weights::{OnHost, Weights};
use super::workload::Settled;
use crate::bytes::Bytes;
use crate::devices::DeviceFacts;
use crate::engines::{
    AskedWorkload, Basis, Component, ComponentName, EngineError, Fitness, IllegalSplit, Interval, Launch, LaunchPlan,
    Prepared, Split, Workload,
};
use crate::model::architecture::{Architecture, Layer, Mixer, Task};
use crate::model::{Dtype, Format, Identity, Model};

/// The name that a projector's component has in [`Model::components`].
const PROJECTOR: &str = "mmproj";

/// One model, its parameters settled.
#[derive(Debug)]
pub(crate) struct Ready<'a> {
    model: &'a Model,
    architecture: &'a Architecture,
    profile: Profile,
    parameters: Parameters,
    settled: Settled,
    weights: Weights,
    layers: u32,
}

fn unsupported(why: impl Into<String>) -> EngineError {
    EngineError::Unsupported { engine: ENGINE, why: why.into() }
}

impl<'a> Ready<'a> {
    /// Settles parameters and workload for `model`.
    pub(crate) fn new(
        model: &'a Model,
        version: Option<&str>,
        given: &BTreeMap<String, Value>,
        asked: &AskedWorkload,
    ) -> Result<Self, EngineError> {
        if model.format != Format::Gguf {
            return Err(unsupported(
                "llama.cpp runs GGUF files; look for a GGUF repository of this model or convert it with convert_hf_to_gguf.py",
            ));
        }
        let architecture = model.architecture.as_ref().map_err(|why| unsupported(why.to_string()))?;
        let profile = profile::profile(version).map_err(|why| unsupported(why.to_string()))?;
        let parameters = parameters::read(given)?;
        if let Some(dtype) = &asked.dtype {
            let (name, value) = ("dtype".to_owned(), dtype.clone());
            let why = "llama.cpp keeps weights as the file stores them; choose another file".to_owned();
            return Err(EngineError::BadParameter { engine: ENGINE, name, value, why });
        }
        let settled = Settled::new(&parameters, asked, &profile, architecture.max_context)?;
        let layers = architecture.layer_count();
        let weights = Weights::new(model, &architecture.class, layers);
        if let Some(class) = weights.unknown_type() {
            let why = format!("cannot size tensor type {:?} of {}", class.storage, class.pattern);
            return Err(unsupported(why));
        }
        if model.inventory.bytes().overflowed() {
            return Err(EngineError::Overflow { what: "tensor sizes" });
        }
        check_rows(architecture, &settled)?;
        Ok(Self { model, architecture, profile, parameters, settled, weights, layers })
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.model.identity
    }

    pub(crate) fn settled(&self) -> &Settled {
        &self.settled
    }

    pub(crate) fn layers(&self) -> u32 {
        self.layers
    }

    pub(crate) fn next_token_layers(&self) -> u32 {
        self.architecture.mtp_layers
    }

    pub(crate) fn cache_on_device(&self) -> bool {
        !self.parameters.no_kv_offload
    }

    /// The projector's file, by the parameter or by what was read beside the model.
    pub(crate) fn projector(&self) -> Option<String> {
        let beside = || self.model.components.iter().find(|part| part.name == PROJECTOR).map(|part| part.class.clone());
        self.parameters.mmproj.clone().or_else(beside)
    }

    fn projector_bytes(&self) -> Option<Bytes> {
        self.model.components.iter().find(|part| part.name == PROJECTOR).map(|part| part.bytes)
    }

    /// What `n_gpu_layers` and `n_cpu_moe` leave on the host whatever the split.
    pub(crate) fn always_on_host(&self) -> OnHost {
        let all = self.layers.saturating_add(self.next_token_layers()).saturating_add(1);
        OnHost {
            layers: self.parameters.n_gpu_layers.map_or(0, |on_gpu| all.saturating_sub(on_gpu)),
            experts: self.parameters.n_cpu_moe.unwrap_or(0),
        }
    }

    fn host_of(&self, split: &Split) -> OnHost {
        split::on_host(split, self.always_on_host())
    }

    /// Whether the output layer is on the last device.
    fn output_on_device(&self, host: OnHost) -> bool {
        host.layers <= self.layers
    }

    /// The stage of `rank`, less what stays on the host; whether it has the output layer.
    fn stage(&self, split: &Split, rank: usize) -> (Range<u32>, bool, OnHost) {
        let host = self.host_of(split);
        let (_, stage) = split.stage_of(rank);
        let start = stage.start.max(host.layers);
        let output = split.is_last_stage(rank) && self.output_on_device(host);
        (start..stage.end.min(self.layers).max(start), output, host)
    }

    fn layers_in(&self, range: &Range<u32>) -> &[Layer] {
        self.architecture.layers.get(range.start as usize..range.end as usize).unwrap_or(&[])
    }

    fn has_cache(&self) -> bool {
        self.architecture.task != Task::Encode
    }

    fn widest_value(&self) -> u64 {
        let width = |layer: &Layer| match &layer.mixer {
            Mixer::Attention(attention) => cache::value_row(attention),
            _ => 0,
        };
        self.architecture.layers.iter().map(width).max().unwrap_or(0)
    }

    /// Cache and states of `layers`.
    fn remembered(&self, layers: &[Layer], layout: Layout) -> (Bytes, Bytes) {
        if !self.has_cache() {
            return (Bytes::ZERO, Bytes::ZERO);
        }
        let widest = self.widest_value();
        let mixers = || layers.iter().flat_map(|layer| std::iter::once(&layer.mixer).chain(layer.beside.as_ref()));
        (mixers().map(|mixer| layout.layer(mixer, widest)).sum(), mixers().map(|mixer| layout.states(mixer)).sum())
    }

    fn graph(&self, layout: Layout, split: &Split, output: bool, host: OnHost) -> Graph<'_> {
        let rows = if self.profile.outputs_for_slots_only { layout.slots } else { layout.ubatch };
        let everything = host == OnHost::default() && self.cache_on_device();
        Graph {
            architecture: self.architecture,
            layout,
            outputs: self.parameters.n_outputs_max.unwrap_or(rows).min(layout.ubatch),
            // An output layer on the host is multiplied on a device all the same, with a copy of its weights.
            output: output || !self.output_on_device(host),
            cache_on_device: self.cache_on_device(),
            mask_bytes: self.profile.mask_bytes,
            low_percent: {
                let [dense, mixture] = self.profile.low_percent;
                if self.architecture.experts.is_some() { mixture } else { dense }
            },
            half_copies: self.profile.half_copies_in_buffer,
            pipeline: split.stages.len() > 1 && everything,
            copied: self.weights.largest_on_host(host, self.output_on_device(host)),
            on_host: self.layers_in(&(0..host.layers.min(self.layers))),
        }
    }
}

/// Quantised cache rows must fill whole blocks, head by head.
fn check_rows(architecture: &Architecture, settled: &Settled) -> Result<(), EngineError> {
    let check = |name: &'static str, dtype: Dtype, dim: u64| {
        let (block, _) = dtype.block();
        if dim.is_multiple_of(block) {
            return Ok(());
        }
        let (name, value) = (name.to_owned(), dtype.to_string());
        let why = format!("heads of {dim} elements do not fill its blocks of {block}");
        Err(EngineError::BadParameter { engine: ENGINE, name, value, why })
    };
    for mixer in architecture.mixers(0..u32::MAX) {
        match mixer {
            Mixer::Attention(attention) => {
                check("type_k", settled.keys, attention.key_dim)?;
                check("type_v", settled.values, attention.value_dim)?;
            }
            Mixer::Latent(latent) => {
                check("type_k", settled.keys, latent.kv_lora_rank.saturating_add(latent.rope_dim))?;
            }
            Mixer::Recurrent(_) | Mixer::None => {}
        }
    }
    Ok(())
}

fn finite(components: Vec<Component>, what: &'static str) -> Result<Vec<Component>, EngineError> {
    if components.iter().any(|part| part.bytes.high.overflowed()) {
        return Err(EngineError::Overflow { what });
    }
    Ok(components)
}

impl Prepared for Ready<'_> {
    fn profile(&self) -> &str {
        &self.profile.name
    }

    fn parameters(&self) -> BTreeMap<String, Value> {
        let settled = &self.settled;
        let host = self.always_on_host();
        let mut all = BTreeMap::from([
            ("n_ctx", json!(settled.total_context(settled.workload))),
            ("n_batch", json!(settled.n_batch)),
            ("n_ubatch", json!(settled.n_ubatch)),
            ("n_parallel", json!(settled.slots(settled.workload))),
            ("kv_unified", json!(settled.unified)),
            ("flash_attn", json!(settled.flash_attention)),
            ("type_k", json!(settled.keys.name().to_ascii_lowercase())),
            ("type_v", json!(settled.values.name().to_ascii_lowercase())),
            ("swa_full", json!(settled.swa_full)),
            ("no_kv_offload", json!(!self.cache_on_device())),
            ("use_mmap", json!(!self.parameters.no_mmap)),
            ("fit_target", json!(self.parameters.fit_target.unwrap_or(self.profile.fit_target_mib))),
        ]);
        if let Some(on_gpu) = self.parameters.n_gpu_layers {
            all.insert("n_gpu_layers", json!(on_gpu));
        }
        if host.experts > 0 {
            all.insert("n_cpu_moe", json!(host.experts.min(self.layers)));
        }
        if let Some(projector) = self.projector() {
            all.insert("mmproj", json!(projector));
        }
        all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn workload(&self) -> Workload {
        self.settled.workload
    }

    fn kv_cache_dtype(&self) -> String {
        let (keys, values) = (self.settled.keys.name(), self.settled.values.name());
        let both = if keys == values { keys.to_owned() } else { format!("{keys}/{values}") };
        both.to_ascii_lowercase()
    }

    fn kv_bytes_per_token(&self) -> Bytes {
        // Cells come in blocks, so what one token more costs is what a block more costs, shared out.
        let settled = self.settled.layout(self.settled.workload);
        let layout = Layout { streams: 1, ..settled };
        let longer = Layout { context: layout.context.saturating_add(cache::CELL_PADDING), ..layout };
        let (small, _) = self.remembered(&self.architecture.layers, layout);
        let (large, _) = self.remembered(&self.architecture.layers, longer);
        large.less(small).map_or(Bytes::OVERFLOW, |bytes| bytes.div_ceil(cache::CELL_PADDING))
    }

    fn state_bytes_per_sequence(&self) -> Bytes {
        let layout = Layout { slots: 1, ..self.settled.layout(self.settled.workload) };
        self.remembered(&self.architecture.layers, layout).1
    }

    fn assumptions(&self) -> Vec<String> {
        let mut all = Vec::new();
        if self.parameters.flash_attn.is_none() {
            all.push("flash attention is on, as llama.cpp's 'auto' chooses on CUDA".to_owned());
        }
        if self.settled.unified && self.parameters.kv_unified.is_none() {
            let slots = self.settled.slots(self.settled.workload);
            all.push(format!("llama-server's {slots} slots share one cache of the whole context"));
        }
        if self.next_token_layers() > 0 {
            all.push("multi-token prediction is off: its layers have no cache".to_owned());
        }
        if self.projector().is_some() && self.projector_bytes().is_none() {
            all.push("the projector's weights are not counted: its file was not read".to_owned());
        }
        all
    }

    fn splits(&self, devices: u32) -> Result<Vec<Split>, IllegalSplit> {
        split::splits(self.layers, devices, self.parameters.tensor_split.as_deref())
    }

    fn check(&self, split: &Split) -> Result<(), IllegalSplit> {
        split::check(split, self.layers, self.weights.has_experts())
    }

    fn uneven(&self) -> bool {
        self.parameters.tensor_split.is_none()
    }

    fn device_fitness(&self, device: &DeviceFacts) -> Fitness {
        // CUDA 12, which the released binaries are built with, knows devices from 5.0 on.
        match device.capability() {
            Some(capability) if capability < 50 => {
                Fitness::Unable(format!("compute capability {}.{} is below 5.0", capability / 10, capability % 10))
            }
            Some(capability) if capability < 80 && self.weights.has(Dtype::BF16) => {
                Fitness::Degraded("BF16 weights are multiplied in F32 below compute capability 8.0".to_owned())
            }
            _ => Fitness::Able,
        }
    }

    fn fixed(&self, split: &Split, rank: usize, device: &DeviceFacts) -> Result<Vec<Component>, EngineError> {
        let (stage, output, host) = self.stage(split, rank);
        let weights = self.weights.on_stage(&stage, output, host);
        let behind = if output { " and the output layer" } else { "" };
        let detail = format!("layers {}..{}{behind}, as stored", stage.start, stage.end);
        let mut components = vec![Component::exact(ComponentName::Weights, weights, Basis::Exact, detail)];
        if rank == 0
            && let Some(bytes) = self.projector_bytes()
        {
            components.push(Component::exact(ComponentName::Weights, bytes, Basis::Exact, "the projector"));
            let images = self.profile.projector_compute();
            let detail = "compute buffer of the projector's largest image";
            components.push(Component::between(ComponentName::Activations, images, Basis::Assumed, detail));
        }
        let context = self.profile.context(device.multiprocessors);
        components.push(Component::between(ComponentName::Context, context, Basis::Calibrated, "CUDA context"));
        let libraries = self.profile.libraries(device.capability());
        let detail = "cuBLAS workspace and conversion pool";
        components.push(Component::between(ComponentName::Runtime, libraries, Basis::Calibrated, detail));
        finite(components, "weights")
    }

    fn variable(
        &self,
        split: &Split,
        rank: usize,
        _device: &DeviceFacts,
        workload: Workload,
    ) -> Result<Vec<Component>, EngineError> {
        let (stage, output, host) = self.stage(split, rank);
        let layout = self.settled.layout(workload);
        let layers = self.layers_in(&stage);
        let mut components = Vec::new();
        if self.cache_on_device() {
            let (cache, states) = self.remembered(layers, layout);
            if self.has_cache() {
                let detail =
                    format!("{} cells of {}", layout.context.saturating_mul(layout.streams), self.kv_cache_dtype());
                components.push(Component::exact(ComponentName::KvCache, cache, Basis::Formula, detail));
            }
            if states > Bytes::ZERO {
                let detail = format!("{} states of F32", layout.slots);
                components.push(Component::exact(ComponentName::State, states, Basis::Formula, detail));
            }
        }
        let graph = self.graph(layout, split, output, host);
        let detail = format!("compute buffer of {} tokens", layout.ubatch);
        components.push(Component::between(ComponentName::Activations, graph.buffer(layers), Basis::Formula, detail));
        finite(components, "cache")
    }

    fn host(&self, split: &Split, workload: Workload) -> Result<Vec<Component>, EngineError> {
        let host = self.host_of(split);
        let layout = self.settled.layout(workload);
        let weights = self.weights.on_host(host, self.output_on_device(host));
        let kept = if self.parameters.no_mmap { "allocated" } else { "mapped from the file" };
        let mut components =
            vec![Component::exact(ComponentName::Host, weights, Basis::Exact, format!("weights on the host, {kept}"))];
        let here = if self.cache_on_device() { 0..host.layers.min(self.layers) } else { 0..self.layers };
        let (cache, states) = self.remembered(self.layers_in(&here), layout);
        if cache + states > Bytes::ZERO {
            components.push(Component::exact(ComponentName::Host, cache + states, Basis::Formula, "cache on the host"));
        }
        let graph = self.graph(layout, split, false, host);
        let own = graph.host(&self.architecture.layers);
        let on_host = self.layers_in(&(0..host.layers.min(self.layers)));
        let high = own + graph.buffer(on_host).high;
        let buffers = if on_host.is_empty() { Interval::exact(own) } else { Interval::new(own, own, high) };
        let detail = "input embedding, masks and logits";
        components.push(Component::between(ComponentName::Host, buffers, Basis::Formula, detail));
        finite(components, "host memory")
    }

    fn must_be_available(&self, device: &DeviceFacts, sum: Interval) -> Interval {
        if self.parameters.no_fit {
            return sum;
        }
        // What --fit leaves free is also what the libraries take later.
        let margin = Bytes::mib(self.parameters.fit_target.unwrap_or(self.profile.fit_target_mib));
        let libraries = self.profile.libraries(device.capability());
        let more = |end: Bytes, counted: Bytes| end + margin.less(counted).unwrap_or(Bytes::ZERO);
        Interval::new(more(sum.low, libraries.low), more(sum.likely, libraries.likely), more(sum.high, libraries.high))
    }

    fn launch(&self, plan: &LaunchPlan<'_>) -> Launch {
        launch::launch(self, plan)
    }
}
