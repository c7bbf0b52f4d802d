//! Ollama prepared for one model: llama.cpp's figures under Ollama's settings.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::launch;
use super::options::{context_by_memory, options};
use super::parameters::{self, ENGINE};
use super::profile::{self, OllamaProfile};
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::engines::llama_cpp::LlamaCppPrepared;
use crate::engines::{
    AskedContext, AskedWorkload, CacheCapacity, Component, DeviceSupport, EngineError,
    EngineRequest, IllegalSplit, Interval, Launch, LaunchPlan, Offload, PreparedEngine, Share,
    Split, Workload,
};
use crate::model::architecture::Task;
use crate::model::{Format, Model};

/// The newest build of llama.cpp with the rules that Ollama's logs confirm.
///
/// Later builds leave next-token layers out, which no log of Ollama shows.
const LLAMA_BUILD: &str = "b11999";

/// A model under Ollama's settings.
pub(crate) struct OllamaPrepared<'a> {
    model: &'a Model,
    profile: OllamaProfile,
    /// Options as in a Modelfile or request.
    options: BTreeMap<String, Value>,
    batch: u64,
    llama: LlamaCppPrepared<'a>,
}

fn unsupported(why: String) -> EngineError {
    EngineError::Unsupported {
        engine: ENGINE,
        why,
    }
}

/// An error of llama.cpp with Ollama's names.
fn rename_error(error: EngineError) -> EngineError {
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

impl<'a> OllamaPrepared<'a> {
    /// Resolves the options and workload of `request`.
    pub(crate) fn new(request: &EngineRequest<'a>) -> Result<Self, EngineError> {
        if request.model.format != Format::Gguf {
            return Err(unsupported(
                "Ollama runs GGUF files; look for a GGUF repository of this model".to_owned(),
            ));
        }

        let architecture = request
            .model
            .architecture
            .as_ref()
            .map_err(|why| unsupported(why.to_string()))?;

        let profile = profile::profile().map_err(unsupported)?;
        let options = options(request.model, request.version, request.parameters)?;
        let embeds = matches!(architecture.task, Task::Encode | Task::Pool);
        let default_batch = if embeds {
            profile.num_batch_embedding
        } else {
            profile.num_batch
        };

        let batch = parameters::whole(&options, "num_batch")?.unwrap_or(default_batch);
        let given_slots = parameters::whole(&options, "num_parallel")?;
        let slots = given_slots
            .or(request.asked.sequences)
            .unwrap_or(profile.num_parallel)
            .max(1);
        parameters::whole(&options, "gpu_overhead")?;
        let default_context =
            context_by_memory(&profile, &options, architecture, request.devices.iter())?;

        let context = match (
            parameters::whole(&options, "num_ctx")?,
            request.asked.context,
        ) {
            (Some(option), Some(AskedContext::Tokens(tokens))) if option < tokens => {
                return Err(parameters::bad(
                    "num_ctx",
                    &json!(option),
                    format!("less than the requested {tokens} tokens"),
                ));
            }
            (_, Some(asked)) => asked,
            (Some(option), None) => AskedContext::Tokens(option),
            (None, None) => AskedContext::Tokens(default_context),
        };

        let asked = AskedWorkload {
            context: Some(context),
            sequences: Some(slots),
            ..request.asked.clone()
        };

        let given = parameters::for_llama(&options, batch, slots);
        let build = LLAMA_BUILD.parse().ok();
        let llama = LlamaCppPrepared::new(request.model, build.as_ref(), &given, &asked)
            .map_err(rename_error)?;

        Ok(Self {
            model: request.model,
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

impl PreparedEngine for OllamaPrepared<'_> {
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

    fn least_default_context(&self) -> Option<u64> {
        None
    }

    fn device_fitness(&self, device: &DeviceFacts) -> DeviceSupport {
        let minimum = Bytes::mib(self.profile.minimum_mib);
        if device.total_bytes < minimum {
            return DeviceSupport::Unable(format!(
                "Ollama does not use devices of less than {minimum}"
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
        self.llama.fixed(split, rank, device).map_err(rename_error)
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
            .map_err(rename_error)
    }

    fn fixed_sum(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
    ) -> Result<Interval, EngineError> {
        self.llama
            .fixed_sum(split, rank, device)
            .map_err(rename_error)
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
            .map_err(rename_error)
    }

    fn host(&self, split: &Split, workload: Workload) -> Result<Vec<Component>, EngineError> {
        self.llama.host(split, workload).map_err(rename_error)
    }

    fn must_be_available(&self, split: &Split, device: &DeviceFacts, sum: Interval) -> Interval {
        let overhead = Interval::exact(self.overhead());
        let needed = self
            .llama
            .must_be_available(split, device, sum)
            .plus(overhead);
        // Ollama does not use a device with less free memory than the minimum.
        needed.max(Interval::exact(Bytes::mib(self.profile.minimum_mib)))
    }

    fn share(&self, _split: &Split, _rank: usize, _device: &DeviceFacts) -> Option<Share> {
        None
    }

    fn capacity(&self, _plan: &LaunchPlan<'_>) -> Result<Option<CacheCapacity>, EngineError> {
        Ok(None)
    }

    fn launch(&self, plan: &LaunchPlan<'_>) -> Launch {
        launch::launch(&self.llama, self.model, plan)
    }
}
