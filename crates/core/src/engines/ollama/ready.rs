//! Ollama ready to answer: llama.cpp's figures under Ollama's settings.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::parameters::{self, ENGINE};
use super::profile::{self, OllamaProfile};
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::engines::llama_cpp;
use crate::engines::{
    AskedContext, AskedWorkload, CacheCapacity, Component, DeviceSupport, EngineError,
    EngineRequest, EngineVersion, IllegalSplit, Interval, Launch, LaunchPlan, Offload,
    PreparedEngine, Share, Split, Workload,
};
use crate::model::architecture::{Architecture, Task};
use crate::model::{Format, Identity, Model};

/// One model under Ollama's settings.
pub(crate) struct Ready<'a> {
    model: &'a Model,
    profile: OllamaProfile,
    /// Options that a Modelfile or request would carry.
    options: BTreeMap<String, Value>,
    batch: u64,
    llama: llama_cpp::Ready<'a>,
}

/// An error of the delegate, in this engine's name.
fn renamed(error: EngineError) -> EngineError {
    match error {
        EngineError::Unsupported { why, .. } => EngineError::Unsupported {
            engine: ENGINE,
            why,
        },
        EngineError::BadParameter {
            name, value, why, ..
        } => {
            let name = match name.as_str() {
                "type_k" | "type_v" => "kv_cache_type".to_owned(),
                "n_gpu_layers" => "num_gpu".to_owned(),
                "flash_attn" => "flash_attention".to_owned(),
                _ => name,
            };

            EngineError::BadParameter {
                engine: ENGINE,
                name,
                value,
                why,
            }
        }
        other => other,
    }
}

impl<'a> Ready<'a> {
    /// Settles `case`.
    pub(crate) fn new(case: &EngineRequest<'a>) -> Result<Self, EngineError> {
        let unsupported = |why: String| EngineError::Unsupported {
            engine: ENGINE,
            why,
        };

        if case.model.format != Format::Gguf {
            return Err(unsupported(
                "Ollama runs GGUF files; look for a GGUF repository of this model".to_owned(),
            ));
        }

        let architecture = case
            .model
            .architecture
            .as_ref()
            .map_err(|why| unsupported(why.to_string()))?;

        let profile = profile::profile().map_err(unsupported)?;
        let options = options(case.model, case.version, case.parameters)?;
        let embeds = matches!(architecture.task, Task::Encode | Task::Pool);
        let usual = if embeds {
            profile.num_batch_embedding
        } else {
            profile.num_batch
        };

        let batch = parameters::whole(&options, "num_batch")?.unwrap_or(usual);
        let given_slots = parameters::whole(&options, "num_parallel")?;
        let slots = given_slots
            .or(case.asked.sequences)
            .unwrap_or(profile.num_parallel)
            .max(1);
        parameters::whole(&options, "gpu_overhead")?;
        let usual = context_by_memory(&profile, &options, architecture, case.devices.iter())?;

        let context = match (parameters::whole(&options, "num_ctx")?, case.asked.context) {
            (Some(option), Some(AskedContext::Tokens(tokens))) if option < tokens => {
                return Err(parameters::bad(
                    "num_ctx",
                    &json!(option),
                    format!("less than the {tokens} tokens asked for"),
                ));
            }
            (_, Some(asked)) => asked,
            (Some(option), None) => AskedContext::Tokens(option),
            (None, None) => AskedContext::Tokens(usual),
        };

        let asked = AskedWorkload {
            context: Some(context),
            sequences: Some(slots),
            ..case.asked.clone()
        };

        let given = parameters::for_llama(&options, batch, slots);
        let llama = llama_cpp::Ready::new(case.model, None, &given, &asked).map_err(renamed)?;

        Ok(Self {
            model: case.model,
            profile,
            options,
            batch,
            llama,
        })
    }

    fn overhead(&self) -> Bytes {
        let given = parameters::whole(&self.options, "gpu_overhead")
            .ok()
            .flatten();
        given.map_or(Bytes::mib(self.profile.gpu_overhead_mib), Bytes::new)
    }
}

/// What was given, and where nothing was what the Modelfile says.
fn options(
    model: &Model,
    version: Option<&EngineVersion>,
    given: &BTreeMap<String, Value>,
) -> Result<BTreeMap<String, Value>, EngineError> {
    let mut options = parameters::read(version, given)?;
    let modelfile = model
        .components
        .iter()
        .find(|part| part.name == "parameters" && part.class == "ollama");
    let said = modelfile.and_then(|part| part.config.as_ref()?.as_object());
    for name in ["num_ctx", "num_batch", "num_gpu", "use_mmap"] {
        if let Some(value) = said.and_then(|said| said.get(name)) {
            options
                .entry(name.to_owned())
                .or_insert_with(|| value.clone());
        }
    }

    Ok(options)
}

/// `num_ctx` where nobody gives one: by the memory of all devices together (`server/routes.go`),
/// within the model's own.
fn context_by_memory<'d>(
    profile: &OllamaProfile,
    options: &BTreeMap<String, Value>,
    architecture: &Architecture,
    devices: impl Iterator<Item = &'d DeviceFacts>,
) -> Result<u64, EngineError> {
    let overhead = parameters::whole(options, "gpu_overhead")?
        .map_or(Bytes::mib(profile.gpu_overhead_mib), Bytes::new);
    let memory: Bytes = devices
        .map(|device| device.total_bytes.less(overhead).unwrap_or(Bytes::ZERO))
        .sum();

    Ok(profile
        .default_context(memory)
        .min(architecture.max_context.unwrap_or(u64::MAX)))
}

/// The context that Ollama's server on a host of `devices` gives `model`; `None` where the
/// parameters give one. What is wrong with them is said when the engine is prepared.
pub(super) fn context_by_host(
    model: &Model,
    parameters: &BTreeMap<String, Value>,
    devices: &[&DeviceFacts],
) -> Option<u64> {
    let options = options(model, None, parameters)
        .ok()
        .filter(|options| !options.contains_key("num_ctx"))?;
    let architecture = model.architecture.as_ref().ok()?;

    context_by_memory(
        &profile::profile().ok()?,
        &options,
        architecture,
        devices.iter().copied(),
    )
    .ok()
}

/// The name that `ollama run` takes: Hub repositories by their quantisation, files by a Modelfile.
fn source(identity: &Identity) -> String {
    let local = identity.repo.starts_with(['/', '.', '~']);
    let stem = identity
        .file
        .as_deref()
        .and_then(|file| file.strip_suffix(".gguf"));

    if let Some(name) = identity.repo.strip_prefix("ollama:") {
        return name.to_owned();
    }
    // Of a file in parts, `-00001-of-00003` is no part of the name.
    let whole = stem.map(|stem| {
        stem.rsplit_once("-of-")
            .and_then(|(first, _)| first.rsplit_once('-'))
            .map_or(stem, |it| it.0)
    });

    let quantisation = whole.and_then(|stem| stem.rsplit(['-', '.']).next());
    match quantisation {
        _ if local => identity.repo.clone(),
        Some(quantisation) => format!("hf.co/{}:{quantisation}", identity.repo),
        None => format!("hf.co/{}", identity.repo),
    }
}

impl PreparedEngine for Ready<'_> {
    fn profile(&self) -> &'static str {
        "0.25"
    }

    fn parameters(&self) -> BTreeMap<String, Value> {
        let inner = self.llama.parameters();
        let workload = self.workload();
        let mut all = BTreeMap::from([
            ("num_ctx".to_owned(), json!(workload.context)),
            ("num_parallel".to_owned(), json!(workload.sequences)),
            ("num_batch".to_owned(), json!(self.batch)),
            (
                "kv_cache_type".to_owned(),
                json!(self.llama.kv_cache_dtype()),
            ),
            ("gpu_overhead".to_owned(), json!(self.overhead())),
        ]);

        for (theirs, ours) in [
            ("flash_attn", "flash_attention"),
            ("use_mmap", "use_mmap"),
            ("n_gpu_layers", "num_gpu"),
        ] {
            if let Some(value) = inner.get(theirs) {
                all.insert(ours.to_owned(), value.clone());
            }
        }

        all
    }

    fn workload(&self) -> Workload {
        self.llama.workload()
    }

    fn kv_cache_dtype(&self) -> String {
        self.llama.kv_cache_dtype()
    }

    fn kv_bytes_per_token(&self) -> Bytes {
        self.llama.kv_bytes_per_token()
    }

    fn state_bytes_per_sequence(&self) -> Bytes {
        self.llama.state_bytes_per_sequence()
    }

    fn assumptions(&self) -> Vec<String> {
        self.llama.assumptions()
    }

    fn warnings(&self) -> Vec<String> {
        self.llama.warnings()
    }

    fn splits(&self, devices: u32) -> Result<Vec<Split>, IllegalSplit> {
        self.llama.splits(devices)
    }

    fn check(&self, split: &Split) -> Result<(), IllegalSplit> {
        match split.offload {
            Offload::Experts { .. } => Err(IllegalSplit(
                "Ollama has no option that keeps experts on the host".to_owned(),
            )),
            _ => self.llama.check(split),
        }
    }

    fn uneven(&self) -> bool {
        self.llama.uneven()
    }

    fn moves_to_host(&self) -> bool {
        self.llama.moves_to_host()
    }

    fn ranks_are_processes(&self) -> bool {
        self.llama.ranks_are_processes()
    }

    fn device_fitness(&self, device: &DeviceFacts) -> DeviceSupport {
        let minimum = Bytes::mib(self.profile.minimum_mib);
        if device.total_bytes < minimum {
            return DeviceSupport::Unable(format!(
                "Ollama leaves devices of less than {minimum} alone"
            ));
        }

        self.llama.device_fitness(device)
    }

    fn fixed(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
    ) -> Result<Vec<Component>, EngineError> {
        self.llama.fixed(split, rank, device).map_err(renamed)
    }

    fn variable(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
        workload: Workload,
    ) -> Result<Vec<Component>, EngineError> {
        self.llama
            .variable(split, rank, device, workload)
            .map_err(renamed)
    }

    fn fixed_sum(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
    ) -> Result<Interval, EngineError> {
        self.llama.fixed_sum(split, rank, device).map_err(renamed)
    }

    fn variable_sum(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
        workload: Workload,
    ) -> Result<Interval, EngineError> {
        self.llama
            .variable_sum(split, rank, device, workload)
            .map_err(renamed)
    }

    fn host(&self, split: &Split, workload: Workload) -> Result<Vec<Component>, EngineError> {
        self.llama.host(split, workload).map_err(renamed)
    }

    fn must_be_available(&self, split: &Split, device: &DeviceFacts, sum: Interval) -> Interval {
        let overhead = Interval::exact(self.overhead());
        let needed = self
            .llama
            .must_be_available(split, device, sum)
            .plus(overhead);
        // A device with less free than the minimum is not used at all.
        needed.max(Interval::exact(Bytes::mib(self.profile.minimum_mib)))
    }

    fn share(&self, _split: &Split, _rank: usize, _device: &DeviceFacts) -> Option<Share> {
        None
    }

    fn capacity(&self, _plan: &LaunchPlan<'_>) -> Result<Option<CacheCapacity>, EngineError> {
        Ok(None)
    }

    fn launch(&self, plan: &LaunchPlan<'_>) -> Launch {
        let devices = plan
            .devices
            .iter()
            .map(|device| device.facts.uuid.as_str())
            .collect::<Vec<_>>()
            .join(",");
        let mut env = BTreeMap::from([
            ("CUDA_VISIBLE_DEVICES".to_owned(), devices),
            (
                "OLLAMA_CONTEXT_LENGTH".to_owned(),
                plan.workload.context.to_string(),
            ),
            (
                "OLLAMA_NUM_PARALLEL".to_owned(),
                plan.workload.sequences.to_string(),
            ),
        ]);

        let kind = self.llama.kv_cache_dtype();
        if kind != "f16" {
            env.insert("OLLAMA_KV_CACHE_TYPE".to_owned(), kind);
            env.insert("OLLAMA_FLASH_ATTENTION".to_owned(), "1".to_owned());
        }

        if plan.devices.len() > 1 {
            env.insert("OLLAMA_SCHED_SPREAD".to_owned(), "1".to_owned());
        }
        // The variables are the server's: `ollama run` reaches one that was started with them.
        let args = vec![
            "ollama".to_owned(),
            "run".to_owned(),
            source(&self.model.identity),
        ];

        Launch {
            env,
            args,
            takes: vec![None; plan.devices.len()],
        }
    }
}
