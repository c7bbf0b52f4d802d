//! A small fake engine and hosts for it. Every byte can be computed by hand.
#![allow(dead_code, reason = "each test and bench uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::collections::BTreeMap;
use std::ops::Range;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{DeviceFacts, DeviceKind, HostMemory, Link, LinkKind};
use hf_mem_core::engines::component::device_sum;
use hf_mem_core::engines::{
    AskedContext, Basis, CacheCapacity, Component, ComponentName, DeviceSupport, Engine,
    EngineError, EngineRequest, IllegalSplit, Interval, Launch, LaunchPlan, Offload,
    PreparedEngine, Share, Split, Workload,
};
use hf_mem_core::model::architecture::{Architecture, FeedForward, Layer, Mixer, Task};
use hf_mem_core::model::{Format, Inventory, Model};
use hf_mem_core::placement::{Ask, Availability, Available, Constraints, Policy};

/// A model and its costs. Layers may differ.
///
/// `uneven` splits by layers as llama.cpp does, with the output layer as layer L. Otherwise tensor
/// degrees divide `heads`, and stages are equal.
#[derive(Clone, Debug)]
pub(crate) struct Fake {
    pub(crate) name: &'static str,
    pub(crate) layers: Vec<u64>,
    pub(crate) experts: Vec<u64>,
    pub(crate) embedding: u64,
    pub(crate) head: u64,
    pub(crate) cache_per_token: u64,
    pub(crate) block: u64,
    pub(crate) heads: u32,
    pub(crate) uneven: bool,
    /// Every rank is a process, as in vLLM.
    pub(crate) processes: bool,
    pub(crate) buffer: u64,
    /// Likely and high size of a rank's buffer, in percent.
    pub(crate) doubt: (u64, u64),
    pub(crate) least_capability: u32,
    pub(crate) offload: bool,
    pub(crate) longest: Option<u64>,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            name: "fake",
            layers: vec![400 << 20; 32],
            experts: vec![0; 32],
            embedding: 1 << 30,
            head: 1 << 30,
            cache_per_token: 4096,
            block: 16,
            heads: 32,
            uneven: false,
            processes: false,
            buffer: 512 << 20,
            doubt: (100, 120),
            least_capability: 0,
            offload: false,
            longest: Some(131_072),
        }
    }
}

impl Fake {
    fn units(&self) -> u32 {
        u32::try_from(self.layers.len()).unwrap() + u32::from(self.uneven)
    }

    pub(crate) fn model(&self) -> Model {
        let layer = Layer {
            mixer: Mixer::None,
            second_mixer: None,
            feed_forward: FeedForward::None,
            passes: 1,
        };

        let architecture = Architecture {
            class: "Fake".into(),
            model_type: "fake".into(),
            root_model_type: "fake".into(),
            task: Task::Generate,
            hidden_size: 1,
            intermediate_size: 1,
            vocab_size: 1,
            heads: u64::from(self.heads),
            max_context: self.longest,
            layers: vec![layer; self.layers.len()],
            encoder: None,
            experts: None,
            rope: Vec::new(),
            tied_embeddings: None,
            dtype: None,
            state_dtype: None,
            vision: None,
            audio: false,
            streaming_encoder: None,
            mtp_layers: 0,
            quantization: None,
            notes: Vec::new(),
        };

        Model::bare(
            "",
            Format::Safetensors,
            Ok(architecture),
            Inventory::default(),
        )
    }

    fn even(units: u32, stages: u32) -> Vec<Range<u32>> {
        (0..stages)
            .map(|stage| units * stage / stages..units * (stage + 1) / stages)
            .collect()
    }
}

pub(crate) struct Ready<'a> {
    fake: Fake,
    workload: Workload,
    dtype_bytes: u64,
    parameters: BTreeMap<String, serde_json::Value>,
    _case: std::marker::PhantomData<&'a ()>,
}

impl Engine for Fake {
    fn name(&self) -> &'static str {
        self.name
    }

    fn context_by_host(
        &self,
        _model: &Model,
        _parameters: &BTreeMap<String, serde_json::Value>,
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
        let context = match case.asked.context {
            Some(AskedContext::Tokens(tokens)) => tokens,
            Some(AskedContext::Max) | None => self.longest.unwrap_or(4096),
        };

        let dtype_bytes = match case.asked.kv_cache_dtype.as_deref() {
            None | Some("auto") => 2,
            Some("fp8") => 1,
            Some(other) => {
                return Err(EngineError::BadParameter {
                    engine: "fake",
                    name: "kv_cache_dtype".into(),
                    value: other.into(),
                    why: "unknown".into(),
                });
            }
        };

        let mut parameters = BTreeMap::from([("max_num_batched_tokens".to_owned(), 8192.into())]);
        parameters.extend(
            case.parameters
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );

        let mut fake = self.clone();
        let tokens = parameters
            .get("max_num_batched_tokens")
            .and_then(serde_json::Value::as_u64)
            .unwrap_or(8192);
        fake.buffer = fake.buffer * tokens / 8192;

        let workload = Workload {
            context,
            sequences: case.asked.sequences.unwrap_or(1),
        };

        Ok(Box::new(Ready {
            fake,
            workload,
            dtype_bytes,
            parameters,
            _case: std::marker::PhantomData,
        }))
    }

    fn prepare_with_adapter<'a>(
        &self,
        _request: &EngineRequest<'a>,
        _adapter: &'a hf_mem_core::model::Adapter,
    ) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
        Err(hf_mem_core::engines::lora::not_counted(self.name))
    }

    fn prepare_with_draft<'a>(
        &self,
        request: &EngineRequest<'a>,
        _draft: &'a Model,
    ) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
        // A refusal of the model itself comes first.
        Engine::prepare(self, request)?;
        Err(hf_mem_core::engines::companions::no_draft(
            self.name,
            "not counted",
        ))
    }
}

impl Ready<'_> {
    /// Returns the layers of a rank.
    fn range(split: &Split, rank: usize) -> Range<usize> {
        let range = split.stage_of(rank).1;
        range.start as usize..range.end as usize
    }

    /// Returns whether the dense weights and cache of a layer, and its expert weights, are on the
    /// device.
    fn on_device(split: &Split, layer: usize) -> (bool, bool) {
        match split.offload {
            Offload::Experts { layers } => (true, layer >= layers as usize),
            Offload::Layers { layers } => (layer >= layers as usize, layer >= layers as usize),
            _ => (true, true),
        }
    }
}

impl PreparedEngine for Ready<'_> {
    fn profile(&self) -> &'static str {
        "1"
    }

    fn parameters(&self) -> BTreeMap<String, serde_json::Value> {
        self.parameters.clone()
    }

    fn workload(&self) -> Workload {
        self.workload
    }

    fn kv_cache_dtype(&self) -> String {
        if self.dtype_bytes == 1 {
            "fp8".into()
        } else {
            "bfloat16".into()
        }
    }

    fn kv_bytes_per_token(&self) -> Bytes {
        Bytes::new(self.fake.cache_per_token * self.fake.layers.len() as u64 * self.dtype_bytes / 2)
    }

    fn state_bytes_per_sequence(&self) -> Bytes {
        Bytes::ZERO
    }

    fn assumptions(&self) -> Vec<String> {
        Vec::new()
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    fn splits(&self, devices: u32) -> Result<Vec<Split>, IllegalSplit> {
        let units = self.fake.units();
        let mut splits = Vec::new();

        for tensor in (1..=devices)
            .rev()
            .filter(|tensor| devices.is_multiple_of(*tensor))
        {
            let stages = devices / tensor;
            let split = Split {
                tensor,
                stages: Fake::even(units, stages),
                expert_parallel: false,
                offload: Offload::None,
            };

            if self.check(&split).is_ok() {
                splits.push(split);
            }
        }

        if splits.is_empty() {
            Err(IllegalSplit(format!("no split over {devices} devices")))
        } else {
            Ok(splits)
        }
    }

    fn check(&self, split: &Split) -> Result<(), IllegalSplit> {
        if split.offload != Offload::None && !self.fake.offload {
            return Err(IllegalSplit("nothing can stay on the host".into()));
        }

        if matches!(split.offload, Offload::Components | Offload::Leaves) {
            return Err(IllegalSplit("there are no components".into()));
        }

        if matches!(split.offload, Offload::Experts { .. })
            && self.fake.experts.iter().all(|bytes| *bytes == 0)
        {
            return Err(IllegalSplit("there are no experts".into()));
        }

        if self.fake.uneven && split.tensor > 1 {
            return Err(IllegalSplit("layers are split whole".into()));
        }

        if !self.fake.heads.is_multiple_of(split.tensor) {
            return Err(IllegalSplit(format!(
                "{} heads do not divide by {}",
                self.fake.heads, split.tensor
            )));
        }

        let mut next = 0;
        for stage in &split.stages {
            if stage.start != next || stage.end <= stage.start {
                return Err(IllegalSplit("every stage needs a layer".into()));
            }
            next = stage.end;
        }

        if next == self.fake.units() {
            Ok(())
        } else {
            Err(IllegalSplit("layers are missing".into()))
        }
    }

    fn uneven(&self) -> bool {
        self.fake.uneven
    }

    fn moves_to_host(&self) -> bool {
        false
    }

    fn ranks_are_processes(&self) -> bool {
        self.fake.processes
    }

    fn least_default_context(&self) -> Option<u64> {
        None
    }

    fn device_fitness(&self, device: &DeviceFacts) -> DeviceSupport {
        match device.capability() {
            Some(capability) if capability < self.fake.least_capability => {
                DeviceSupport::Unable(format!("{} is too old", device.name))
            }
            _ => DeviceSupport::Able,
        }
    }

    fn fixed(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
    ) -> Result<Vec<Component>, EngineError> {
        let mut weights = 0;
        for layer in Self::range(split, rank) {
            let (dense, experts) = Self::on_device(split, layer);
            if layer >= self.fake.layers.len() {
                continue;
            }
            weights += if dense { self.fake.layers[layer] } else { 0 };
            weights += if experts { self.fake.experts[layer] } else { 0 };
        }

        if rank / split.tensor as usize == 0 {
            weights += self.fake.embedding;
        }

        if split.is_last_stage(rank) {
            weights += self.fake.head;
        }

        let buffer = Bytes::new(self.fake.buffer);
        let doubt = Interval::new(
            buffer,
            buffer.scale(self.fake.doubt.0, 100),
            buffer.scale(self.fake.doubt.1, 100),
        );

        let context = Bytes::mib(300) + device.total_bytes.div_ceil(100);
        Ok(vec![
            Component::exact(
                ComponentName::Weights,
                Bytes::new(weights).div_ceil(u64::from(split.tensor)),
                Basis::Exact,
                "",
            ),
            Component::between(ComponentName::Activations, doubt, Basis::Calibrated, ""),
            Component::exact(ComponentName::Context, context, Basis::Assumed, ""),
        ])
    }

    fn variable(
        &self,
        split: &Split,
        rank: usize,
        _device: &DeviceFacts,
        workload: Workload,
    ) -> Result<Vec<Component>, EngineError> {
        let layers = Self::range(split, rank);
        let layers = layers
            .filter(|layer| *layer < self.fake.layers.len() && Self::on_device(split, *layer).0)
            .count();

        let tokens = workload
            .context
            .div_ceil(self.fake.block)
            .saturating_mul(self.fake.block);
        let cache = Bytes::new(self.fake.cache_per_token * self.dtype_bytes / 2)
            * tokens
            * workload.sequences
            * (layers as u64);
        let cache = cache.div_ceil(u64::from(split.tensor));

        Ok(vec![Component::exact(
            ComponentName::KvCache,
            cache,
            Basis::Formula,
            "",
        )])
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
        let mut bytes = 0;
        for layer in 0..self.fake.layers.len() {
            let (dense, experts) = Self::on_device(split, layer);
            bytes += if dense { 0 } else { self.fake.layers[layer] };
            bytes += if experts { 0 } else { self.fake.experts[layer] };
        }

        if bytes == 0 {
            return Ok(Vec::new());
        }

        Ok(vec![Component::exact(
            ComponentName::Host,
            Bytes::new(bytes),
            Basis::Exact,
            "",
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
        let devices: Vec<&str> = plan
            .devices
            .iter()
            .map(|device| device.facts.uuid.as_str())
            .collect();

        Launch {
            env: BTreeMap::from([("CUDA_VISIBLE_DEVICES".to_owned(), devices.join(","))]),
            args: vec!["fake".into()],
            takes: vec![None; devices.len()],
        }
    }
}

/// Returns a GPU of `total` with `free` available.
pub(crate) fn gpu(uuid: &str, name: &str, total: Bytes, free: Bytes) -> Available {
    let facts = DeviceFacts {
        uuid: uuid.into(),
        index: 0,
        name: name.into(),
        kind: DeviceKind::Gpu,
        total_bytes: total,
        reserved_bytes: Some(Bytes::ZERO),
        compute_capability: Some((9, 0)),
        multiprocessors: Some(132),
        parent_uuid: None,
        pci_bus_id: None,
        numa_node: None,
    };

    Available {
        facts,
        free: Some(free),
        leased: Bytes::ZERO,
        margin: Bytes::ZERO,
        available: Some(free),
        unusable: None,
    }
}

/// Returns a host of entirely free GPUs of these GiB.
pub(crate) fn host(gib: &[u64]) -> Availability {
    let devices = gib.iter().enumerate().map(|(index, gib)| {
        gpu(
            &format!("GPU-{index:02}"),
            &format!("card {gib}"),
            Bytes::gib(*gib),
            Bytes::gib(*gib),
        )
    });

    Availability {
        devices: devices.collect(),
        links: Vec::new(),
        host: None,
    }
}

pub(crate) fn with_host_memory(mut here: Availability, gib: u64) -> Availability {
    here.host = Some(HostMemory {
        total_bytes: Bytes::gib(gib),
        available_bytes: Bytes::gib(gib),
    });
    here
}

pub(crate) fn link(a: &str, b: &str, kind: LinkKind) -> Link {
    Link {
        a: a.into(),
        b: b.into(),
        kind,
        lanes: None,
        peer_access: None,
    }
}

/// Returns a question with engine defaults.
pub(crate) fn ask<'a>(
    fake: &'a Fake,
    model: &'a Model,
    parameters: &'a BTreeMap<String, serde_json::Value>,
    context: u64,
) -> Ask<'a> {
    Ask {
        engine: fake,
        model,
        version: None,
        parameters,
        asked: hf_mem_core::engines::AskedWorkload {
            context: Some(AskedContext::Tokens(context)),
            ..Default::default()
        },
        constraints: Constraints::default(),
        policy: Policy::default(),
    }
}
