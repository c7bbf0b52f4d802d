//! An engine with a LoRA adapter loaded along with its model.
//!
//! vLLM allocates adapter slots beforehand, whatever the adapter, and its own arithmetic counts
//! them once they are on. Engines that load the adapter's tensors hold them in addition to the
//! model.
//!
//! Source: PEFT `tuners/tuners_utils.py` (`cast_adapter_dtype`).

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    Basis, CacheCapacity, Component, ComponentName, DeviceSupport, EngineError, EngineRequest,
    IllegalSplit, Interval, Launch, LaunchPlan, PreparedEngine, Share, Split, Workload,
};
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::model::{Adapter, Dtype, TensorClass};

/// Refuses an adapter for an engine that loads adapters in GGUF only.
pub(super) fn gguf_only(engine: &'static str) -> EngineError {
    EngineError::Unsupported {
        engine,
        why: format!(
            "{engine} loads adapters in GGUF only; convert it with convert_lora_to_gguf.py"
        ),
    }
}

/// Refuses an adapter for an engine whose adapter memory has no formula.
pub fn not_counted(engine: &'static str) -> EngineError {
    EngineError::Unsupported {
        engine,
        why: "adapters are not counted for this engine; merge it into its base model".to_owned(),
    }
}

/// The location of an adapter's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AdapterMemory {
    /// In the engine's own slots.
    InSlots,
    /// As stored, or cast to F32: PEFT's default for 16-bit adapters.
    Cast,
    /// As stored.
    AsStored,
}

/// An engine prepared for a base model with an adapter.
pub(super) struct WithAdapter<'a> {
    inner: Box<dyn PreparedEngine + 'a>,
    /// The base model's repository.
    base: &'a str,
    adapter: &'a Adapter,
    memory: AdapterMemory,
}

impl<'a> WithAdapter<'a> {
    /// Adds `adapter`, whose tensors take `memory`, to an engine that is prepared for `request`.
    pub(super) fn new(
        inner: Box<dyn PreparedEngine + 'a>,
        request: &EngineRequest<'a>,
        adapter: &'a Adapter,
        memory: AdapterMemory,
    ) -> Self {
        Self {
            inner,
            base: request.model.identity.repo.as_str(),
            adapter,
            memory,
        }
    }

    /// The adapter's tensors on the stage of `rank`.
    ///
    /// Tensors without a layer are on the last stage, with the heads.
    fn weights(&self, split: &Split, rank: usize) -> Option<Component> {
        let (_, layers) = split.stage_of(rank);
        let count_on_stage = |class: &TensorClass| {
            if class.layers.is_empty() && !split.is_last_stage(rank) {
                0
            } else {
                class.count_in(&layers)
            }
        };

        let sum_of = |each: fn(&TensorClass) -> Bytes| {
            self.adapter
                .inventory
                .classes
                .iter()
                .map(|class| each(class) * count_on_stage(class))
                .sum::<Bytes>()
        };

        let stored = sum_of(|class| class.bytes_each);
        let bytes = match self.memory {
            AdapterMemory::InSlots => return None,
            AdapterMemory::AsStored => Interval::exact(stored),
            AdapterMemory::Cast => {
                let cast = sum_of(|class| match class.dtype() {
                    Some(Dtype::F16 | Dtype::BF16) => Bytes::product([4, class.elements_each()]),
                    _ => class.bytes_each,
                });
                Interval::new(stored, cast, cast)
            }
        };

        let basis = if bytes.low == bytes.high {
            Basis::Exact
        } else {
            Basis::Formula
        };

        let detail = if self.memory == AdapterMemory::Cast {
            "the adapter, in F32 as PEFT casts it"
        } else {
            "the adapter"
        };

        Some(Component {
            name: ComponentName::Weights,
            bytes,
            basis,
            detail: detail.into(),
        })
    }
}

impl PreparedEngine for WithAdapter<'_> {
    fn profile(&self) -> &str {
        self.inner.profile()
    }

    fn parameters(&self) -> BTreeMap<String, Value> {
        self.inner.parameters()
    }

    fn workload(&self) -> Workload {
        self.inner.workload()
    }

    fn kv_cache_dtype(&self) -> String {
        self.inner.kv_cache_dtype()
    }

    fn kv_bytes_per_token(&self) -> Bytes {
        self.inner.kv_bytes_per_token()
    }

    fn state_bytes_per_sequence(&self) -> Bytes {
        self.inner.state_bytes_per_sequence()
    }

    fn assumptions(&self) -> Vec<String> {
        let adapter = self.adapter;
        let rank = adapter
            .rank
            .map_or_else(String::new, |rank| format!(" of rank {rank}"));
        let mut all = self.inner.assumptions();
        all.push(format!(
            "the base model {} with the adapter{rank} ({}) in addition to it",
            self.base,
            adapter.inventory.bytes()
        ));

        all
    }

    fn warnings(&self) -> Vec<String> {
        self.inner.warnings()
    }

    fn splits(&self, devices: u32) -> Result<Vec<Split>, IllegalSplit> {
        self.inner.splits(devices)
    }

    fn check(&self, split: &Split) -> Result<(), IllegalSplit> {
        self.inner.check(split)
    }

    fn uneven(&self) -> bool {
        self.inner.uneven()
    }

    fn moves_to_host(&self) -> bool {
        self.inner.moves_to_host()
    }

    fn ranks_are_processes(&self) -> bool {
        self.inner.ranks_are_processes()
    }

    fn least_default_context(&self) -> Option<u64> {
        self.inner.least_default_context()
    }

    fn device_fitness(&self, device: &DeviceFacts) -> DeviceSupport {
        self.inner.device_fitness(device)
    }

    fn fixed(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
    ) -> Result<Vec<Component>, EngineError> {
        let mut components = self.inner.fixed(split, rank, device)?;
        components.extend(self.weights(split, rank));
        Ok(components)
    }

    fn variable(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
        workload: Workload,
    ) -> Result<Vec<Component>, EngineError> {
        self.inner.variable(split, rank, device, workload)
    }

    fn fixed_sum(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
    ) -> Result<Interval, EngineError> {
        let own = self
            .weights(split, rank)
            .map_or_else(Interval::default, |part| part.bytes);
        Ok(self.inner.fixed_sum(split, rank, device)?.plus(own))
    }

    fn variable_sum(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
        workload: Workload,
    ) -> Result<Interval, EngineError> {
        self.inner.variable_sum(split, rank, device, workload)
    }

    fn host(&self, split: &Split, workload: Workload) -> Result<Vec<Component>, EngineError> {
        self.inner.host(split, workload)
    }

    fn must_be_available(&self, split: &Split, device: &DeviceFacts, sum: Interval) -> Interval {
        self.inner.must_be_available(split, device, sum)
    }

    fn share(&self, split: &Split, rank: usize, device: &DeviceFacts) -> Option<Share> {
        self.inner.share(split, rank, device)
    }

    fn capacity(&self, plan: &LaunchPlan<'_>) -> Result<Option<CacheCapacity>, EngineError> {
        self.inner.capacity(plan)
    }

    fn launch(&self, plan: &LaunchPlan<'_>) -> Launch {
        let mut launch = self.inner.launch(plan);
        if self.memory == AdapterMemory::InSlots {
            let repo = &self.adapter.identity.repo;
            let name = repo
                .rsplit('/')
                .find(|part| !part.is_empty())
                .unwrap_or("adapter");

            if !launch
                .args
                .iter()
                .any(|argument| argument == "--enable-lora")
            {
                launch.args.push("--enable-lora".to_owned());
            }

            launch
                .args
                .extend(["--lora-modules".to_owned(), format!("{name}={repo}")]);
        } else {
            // A line that loads only the base model would launch another model.
            launch.args.clear();
        }

        launch
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::companions::prepare;
    use super::super::{AskedContext, LaunchDevice, Offload, Split, by_name, sample};
    use super::*;
    use crate::model::{Identity, Model};

    const GIB: u64 = 1 << 30;

    fn adapter() -> Adapter {
        let tensor = (
            "",
            "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
            Dtype::F16,
            &[8, 4096][..],
        );

        Adapter {
            identity: Identity {
                repo: "owner/lora".to_owned(),
                ..Default::default()
            },
            base_gated: false,
            method: "LORA".to_owned(),
            rank: Some(8),
            dora: false,
            inventory: sample::inventory(&[tensor]),
            saves: Vec::new(),
        }
    }

    fn llama(adapter: Option<Adapter>) -> Model {
        let config = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096,
            "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
            "num_key_value_heads": 8, "vocab_size": 128_256, "max_position_embeddings": 8192,
            "torch_dtype": "bfloat16"
        });

        let tensors = [
            (
                "",
                "model.embed_tokens.weight",
                Dtype::BF16,
                &[128_256, 4096][..],
            ),
            (
                "",
                "model.layers.0.self_attn.q_proj.weight",
                Dtype::BF16,
                &[4096, 4096][..],
            ),
            (
                "",
                "model.layers.31.mlp.down_proj.weight",
                Dtype::BF16,
                &[4096, 14_336][..],
            ),
        ];

        Model {
            adapter,
            ..sample::model(&config, sample::inventory(&tensors))
        }
    }

    /// The results of all methods of `prepared`, in the order of the trait.
    fn answers(prepared: &dyn PreparedEngine) -> Vec<(&'static str, String)> {
        let device = sample::device();
        let workload = Workload {
            context: 2048,
            sequences: 3,
        };

        let mut split = Split::tensor(2, 32);
        split.stages = vec![0..16, 16..32];
        let sum = Interval::exact(Bytes::new(20 * GIB));

        let facts = LaunchDevice {
            facts: &device,
            available: device.total_bytes,
            required: Bytes::new(30 * GIB),
            free: Some(device.total_bytes),
        };

        let devices = [facts; 4];
        let plan = LaunchPlan {
            split: &split,
            workload,
            devices: &devices,
        };

        vec![
            ("profile", prepared.profile().to_owned()),
            ("parameters", format!("{:?}", prepared.parameters())),
            ("workload", format!("{:?}", prepared.workload())),
            ("kv_cache_dtype", prepared.kv_cache_dtype()),
            (
                "kv_bytes_per_token",
                prepared.kv_bytes_per_token().to_string(),
            ),
            (
                "state_bytes_per_sequence",
                prepared.state_bytes_per_sequence().to_string(),
            ),
            ("assumptions", format!("{:?}", prepared.assumptions())),
            ("warnings", format!("{:?}", prepared.warnings())),
            ("splits", format!("{:?}", prepared.splits(8))),
            (
                "check",
                format!(
                    "{:?} {:?}",
                    prepared.check(&split),
                    prepared.check(&Split::tensor(3, 32))
                ),
            ),
            ("uneven", prepared.uneven().to_string()),
            ("moves_to_host", prepared.moves_to_host().to_string()),
            (
                "ranks_are_processes",
                prepared.ranks_are_processes().to_string(),
            ),
            (
                "device_fitness",
                format!("{:?}", prepared.device_fitness(&device)),
            ),
            ("fixed", format!("{:?}", prepared.fixed(&split, 1, &device))),
            (
                "variable",
                format!("{:?}", prepared.variable(&split, 1, &device, workload)),
            ),
            (
                "fixed_sum",
                format!("{:?}", prepared.fixed_sum(&split, 1, &device)),
            ),
            (
                "variable_sum",
                format!("{:?}", prepared.variable_sum(&split, 1, &device, workload)),
            ),
            ("host", format!("{:?}", prepared.host(&split, workload))),
            (
                "must_be_available",
                format!("{:?}", prepared.must_be_available(&split, &device, sum)),
            ),
            ("share", format!("{:?}", prepared.share(&split, 1, &device))),
            ("capacity", format!("{:?}", prepared.capacity(&plan))),
            ("launch", format!("{:?}", prepared.launch(&plan))),
        ]
    }

    /// The methods whose results differ between `engine` with an adapter and without.
    fn differences(engine: &str, parameters: &BTreeMap<String, Value>) -> Vec<&'static str> {
        let engine = by_name(engine).unwrap();
        let (base, with_adapter) = (llama(None), llama(Some(adapter())));
        let devices = [sample::device()];
        let asked = sample::tokens(2048);

        let request_for = |model| EngineRequest {
            model,
            version: None,
            parameters,
            asked: asked.clone(),
            devices: &devices,
        };

        let (base, adapted) = (
            prepare(engine, &request_for(&base)).unwrap(),
            prepare(engine, &request_for(&with_adapter)).unwrap(),
        );
        let pairs = answers(&*base).into_iter().zip(answers(&*adapted));

        pairs
            .filter(|(base, adapted)| base != adapted)
            .map(|((method, _), _)| method)
            .collect()
    }

    #[test]
    fn adapter_answers_like_base() {
        // Each of these makes a method return a value other than a default: weights on the host, a
        // share of the device.
        let parameters = BTreeMap::from([
            ("enable_lora".to_owned(), json!(true)),
            ("cpu_offload_gb".to_owned(), json!(1)),
            ("gpu_memory_utilization".to_owned(), json!(0.5)),
        ]);
        assert_eq!(differences("vllm", &parameters), ["assumptions", "launch"]);
        let own_tensors = ["assumptions", "fixed", "fixed_sum", "launch"];
        assert_eq!(differences("transformers", &BTreeMap::new()), own_tensors);
    }

    #[test]
    fn adapter_keeps_share() {
        let model = llama(Some(adapter()));
        let parameters = BTreeMap::from([("gpu_memory_utilization".to_owned(), json!(0.5))]);
        let older = "9.9".parse().unwrap();

        for version in [None, Some(&older)] {
            let request = EngineRequest {
                model: &model,
                version,
                parameters: &parameters,
                asked: sample::tokens(2048),
                devices: &[sample::device()],
            };

            let prepared = super::super::prepare(by_name("vllm").unwrap(), &request).unwrap();
            let share = prepared.share(&Split::single(32), 0, &sample::device());
            assert!(share.is_some(), "{version:?}");
        }
    }

    #[test]
    fn adapter_keeps_offload_and_processes() {
        let model = llama(Some(adapter()));
        let parameters = BTreeMap::from([("cpu_offload_gb".to_owned(), json!(1))]);
        let devices = [sample::device()];

        let asked = super::super::AskedWorkload {
            context: Some(AskedContext::Tokens(2048)),
            ..Default::default()
        };

        let request = EngineRequest {
            model: &model,
            version: None,
            parameters: &parameters,
            asked,
            devices: &devices,
        };

        let adapted = prepare(by_name("vllm").unwrap(), &request).unwrap();
        let split = Split {
            offload: Offload::None,
            ..Split::single(32)
        };

        assert!(adapted.moves_to_host() && adapted.ranks_are_processes());
        assert!(!adapted.host(&split, adapted.workload()).unwrap().is_empty());
    }
}
