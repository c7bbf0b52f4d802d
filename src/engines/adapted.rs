//! An engine with a LoRA adapter loaded beside its model.
//!
//! vLLM's memory does not follow the adapter but the slots that it allocates beforehand, which its own arithmetic counts
//! once they are turned on. The engines that load the adapter's own tensors hold these in addition.
//!
//! Sources: vLLM `lora/peft_helper.py` (`validate_legal`), `config/lora.py`; PEFT `tuners/tuners_utils.py`
//! (`cast_adapter_dtype`).

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    Basis, CacheCapacity, Case, Component, ComponentName, Engine, EngineError, Fitness, IllegalSplit, Interval, Launch,
    LaunchPlan, Prepared, Share, Split, Workload,
};
use crate::bytes::Bytes;
use crate::devices::DeviceFacts;
use crate::model::{Adapter, Dtype};

/// Prepares `engine` for `case`, with its model's adapter where it has one.
pub fn prepare<'a>(engine: &dyn Engine, case: &Case<'a>) -> Result<Box<dyn Prepared + 'a>, EngineError> {
    let Some(adapter) = &case.model.adapter else { return engine.prepare(case) };
    let base = case.model.identity.repo.as_str();
    let with = |inner, counted| -> Box<dyn Prepared + 'a> { Box::new(Adapted { inner, base, adapter, counted }) };
    match engine.name() {
        "vllm" => {
            let prepared = engine.prepare(case)?;
            loads_in_vllm(adapter, &prepared.parameters())?;
            Ok(with(prepared, Counted::InSlots))
        }
        "transformers" => Ok(with(engine.prepare(case)?, Counted::Cast)),
        "reference" => Ok(with(engine.prepare(case)?, Counted::AsStored)),
        name @ ("llama.cpp" | "ollama") => {
            // Their own refusal of models that are no GGUF files is the better answer where it applies.
            engine.prepare(case)?;
            Err(unsupported(
                engine,
                format!("{name} loads adapters in GGUF only; convert it with convert_lora_to_gguf.py"),
            ))
        }
        _ => Err(unsupported(
            engine,
            "adapters are not counted for this engine; merge it into its base model".to_owned(),
        )),
    }
}

fn unsupported(engine: &dyn Engine, why: String) -> EngineError {
    EngineError::Unsupported { engine: engine.name(), why }
}

/// Refuses what vLLM with these parameters refuses of an adapter.
fn loads_in_vllm(adapter: &Adapter, parameters: &BTreeMap<String, Value>) -> Result<(), EngineError> {
    let refused = |why: String| Err(EngineError::Unsupported { engine: "vllm", why });
    if adapter.method != "LORA" {
        return refused(format!("vLLM loads LoRA adapters; this one is {}", adapter.method));
    }
    if adapter.dora {
        return refused(
            "vLLM does not run DoRA (use_dora in adapter_config.json); merge it into its base model".to_owned(),
        );
    }
    if !adapter.saves.is_empty() {
        return refused(format!(
            "vLLM runs no adapter that holds whole modules (modules_to_save: {}); merge it into its base model",
            adapter.saves.join(", ")
        ));
    }
    let Some(rank) = adapter.rank else {
        return refused(
            "adapter_config.json: r is missing, so it is not known whether a slot holds the adapter".to_owned(),
        );
    };
    let bad = |name: &str, value: String, why: String| {
        Err(EngineError::BadParameter { engine: "vllm", name: name.to_owned(), value, why })
    };
    match parameters.get("max_lora_rank").and_then(Value::as_u64) {
        Some(most) if rank > most => {
            let enough = rank.next_power_of_two().max(8);
            let why = format!("the adapter has rank {rank}; allocate larger slots with --set max_lora_rank={enough}");
            bad("max_lora_rank", most.to_string(), why)
        }
        Some(_) => Ok(()),
        None => bad("enable_lora", "false".to_owned(), "the adapter could not be loaded without it".to_owned()),
    }
}

/// How the adapter's tensors are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    /// By the engine, in slots of its own.
    InSlots,
    /// As stored, or cast to F32 as PEFT does by default with what it trains in 16 bits.
    Cast,
    /// As stored.
    AsStored,
}

struct Adapted<'a> {
    inner: Box<dyn Prepared + 'a>,
    /// The base model's repository.
    base: &'a str,
    adapter: &'a Adapter,
    counted: Counted,
}

impl Adapted<'_> {
    /// The adapter's tensors on the stage of `rank`; those without a layer on the last stage, where heads are.
    fn weights(&self, split: &Split, rank: usize) -> Option<Component> {
        let (_, layers) = split.stage_of(rank);
        let here = |class: &crate::model::TensorClass| {
            if class.layers.is_empty() && !split.is_last_stage(rank) { 0 } else { class.count_in(&layers) }
        };
        let sum = |each: fn(&crate::model::TensorClass) -> Bytes| {
            self.adapter.inventory.classes.iter().map(|class| each(class) * here(class)).sum::<Bytes>()
        };
        let stored = sum(|class| class.bytes_each);
        let bytes = match self.counted {
            Counted::InSlots => return None,
            Counted::AsStored => Interval::exact(stored),
            Counted::Cast => {
                let cast = sum(|class| match class.dtype() {
                    Some(Dtype::F16 | Dtype::BF16) => Bytes::product([4, class.elements_each()]),
                    _ => class.bytes_each,
                });
                Interval::new(stored, cast, cast)
            }
        };
        let basis = if bytes.low == bytes.high { Basis::Exact } else { Basis::Formula };
        let detail = if self.counted == Counted::Cast { "the adapter, in F32 as PEFT casts it" } else { "the adapter" };
        Some(Component { name: ComponentName::Weights, bytes, basis, detail: detail.into() })
    }
}

impl Prepared for Adapted<'_> {
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
        let rank = adapter.rank.map_or_else(String::new, |rank| format!(" of rank {rank}"));
        let mut all = self.inner.assumptions();
        all.push(format!(
            "the base model {} with the adapter{rank} ({}) beside it",
            self.base,
            adapter.inventory.bytes()
        ));
        all
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

    fn device_fitness(&self, device: &DeviceFacts) -> Fitness {
        self.inner.device_fitness(device)
    }

    fn fixed(&self, split: &Split, rank: usize, device: &DeviceFacts) -> Result<Vec<Component>, EngineError> {
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

    fn fixed_sum(&self, split: &Split, rank: usize, device: &DeviceFacts) -> Result<Interval, EngineError> {
        let own = self.weights(split, rank).map_or_else(Interval::default, |part| part.bytes);
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
        if self.counted == Counted::InSlots {
            let repo = &self.adapter.identity.repo;
            let name = repo.rsplit('/').find(|part| !part.is_empty()).unwrap_or("adapter");
            if !launch.args.iter().any(|argument| argument == "--enable-lora") {
                launch.args.push("--enable-lora".to_owned());
            }
            launch.args.extend(["--lora-modules".to_owned(), format!("{name}={repo}")]);
        } else {
            // A line that loads the base alone would be another model's.
            launch.args.clear();
        }
        launch
    }
}
