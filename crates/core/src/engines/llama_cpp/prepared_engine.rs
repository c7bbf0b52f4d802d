//! [`PreparedEngine`] for llama.cpp.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::cache::{self, Layout};
use super::family_phases;
use super::flash_kernels::{AttentionMode, unsupported_shape};
use super::launch;
use super::prepared::LlamaCppPrepared;
use super::split;
use super::weights::OnHost;
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::engines::component::device_sum;
use crate::engines::{
    CacheCapacity, Component, DeviceSupport, EngineError, IllegalSplit, Interval, Launch,
    LaunchPlan, PreparedEngine, Share, Split, Workload,
};
use crate::model::Dtype;
use crate::model::architecture::Mixer;

fn reject_overflow(
    components: Vec<Component>,
    what: &'static str,
) -> Result<Vec<Component>, EngineError> {
    if components.iter().any(|part| part.bytes.high.overflowed()) {
        return Err(EngineError::Overflow { what });
    }
    Ok(components)
}

impl LlamaCppPrepared<'_> {
    /// The host memory that saved prompts may take in addition to what is counted.
    fn saved_prompts(&self) -> Option<String> {
        let given = self.parameters.cache_ram;
        let limit = match given.or(self.profile.prompt_cache_mib)? {
            0 => return None,
            mib => Bytes::mib(mib),
        };
        Some(format!(
            "llama-server may save prompts in up to {limit} of host memory, which is not counted; \
             set cache_ram=0 to prevent it"
        ))
    }

    /// States what `flash_attn = auto` becomes, and why.
    fn flash_assumption(&self) -> String {
        if self.effective.attention == AttentionMode::Flash {
            return "flash attention is on, as llama.cpp's 'auto' chooses on CUDA".to_owned();
        }

        let why = match unsupported_shape(self.architecture) {
            Some(shape) => format!(
                "CUDA has no kernel for heads of {} and {} elements",
                shape.key, shape.value
            ),
            None => format!("{} does not support it", self.architecture.class),
        };
        match self.effective.attention {
            AttentionMode::FlashOnHost => format!(
                "{why}: attention runs on the host, because a quantised V cache needs flash \
                 attention"
            ),
            _ => format!("{why}, so llama.cpp's 'auto' turns flash attention off"),
        }
    }
}

impl LlamaCppPrepared<'_> {
    /// Checks that a model whose layers read tensors or caches of distant layers is on one device.
    ///
    /// llama.cpp copies them between devices at each layer, and reserves buffers for the copies.
    fn check_one_device(&self, devices: u32, host: OnHost) -> Result<(), IllegalSplit> {
        let shares_latents = self
            .architecture
            .mixers(0..self.layers)
            .any(|mixer| matches!(mixer, Mixer::Latent(latent) if latent.kv_lora_rank == 0));
        let why = if family_phases::noted(self.architecture, "runs_layers_again").is_some() {
            "runs its layers several times"
        } else if shares_latents {
            "shares latents between layers"
        } else {
            return Ok(());
        };

        if devices == 1 && host == OnHost::default() {
            return Ok(());
        }

        Err(IllegalSplit(format!(
            "{} {why}, and its buffers are only known for one device that holds it whole; set \
             n_gpu_layers to all layers on one device",
            self.architecture.class
        )))
    }
}

impl PreparedEngine for LlamaCppPrepared<'_> {
    fn profile(&self) -> &str {
        &self.profile.name
    }

    fn parameters(&self) -> BTreeMap<String, Value> {
        let effective = &self.effective;
        let host = self.always_on_host();

        let mut all = BTreeMap::from([
            ("n_ctx", json!(effective.total_context(effective.workload))),
            ("n_batch", json!(effective.n_batch)),
            ("n_ubatch", json!(effective.n_ubatch)),
            ("n_parallel", json!(effective.slots(effective.workload))),
            ("kv_unified", json!(effective.unified)),
            ("flash_attn", json!(effective.attention.is_flash())),
            ("type_k", json!(effective.keys.name().to_ascii_lowercase())),
            (
                "type_v",
                json!(effective.values.name().to_ascii_lowercase()),
            ),
            ("swa_full", json!(effective.swa_full)),
            ("no_kv_offload", json!(!self.cache_on_device())),
            ("use_mmap", json!(!self.parameters.no_mmap)),
            (
                "fit_target",
                json!(
                    self.parameters
                        .fit_target
                        .unwrap_or(self.profile.fit_target_mib)
                ),
            ),
        ]);
        if let Some(on_gpu) = self.parameters.n_gpu_layers {
            all.insert("n_gpu_layers", json!(on_gpu));
        }

        if let Some(mib) = self.parameters.cache_ram {
            all.insert("cache_ram", json!(mib));
        }

        if self.parameters.single {
            all.insert("split_mode", json!("none"));
        }

        if host.experts > 0 {
            all.insert("n_cpu_moe", json!(host.experts.min(self.layers)));
        }

        if let Some(projector) = self.projector() {
            all.insert("mmproj", json!(projector));
        }

        all.extend(self.parameters.draft.report());
        all.into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    fn workload(&self) -> Workload {
        self.effective.workload
    }

    fn kv_cache_dtype(&self) -> String {
        let (keys, values) = (self.effective.keys.name(), self.effective.values.name());
        let both = if keys == values {
            keys.to_owned()
        } else {
            format!("{keys}/{values}")
        };

        both.to_ascii_lowercase()
    }

    fn kv_bytes_per_token(&self) -> Bytes {
        // Cells come in blocks, so one token costs its part of one more block.
        let effective = self.effective.layout(self.effective.workload);
        let layout = Layout {
            streams: 1,
            ..effective
        };

        let longer = Layout {
            context: layout.context.saturating_add(cache::CELL_PADDING),
            ..layout
        };

        let (small, _) = self.cache_and_states(&self.kinds.all(), layout);
        let (large, _) = self.cache_and_states(&self.kinds.all(), longer);

        let own = large
            .less(small)
            .map_or(Bytes::OVERFLOW, |bytes| bytes.div_ceil(cache::CELL_PADDING));
        own + self.draft_bytes_per_token()
    }

    fn state_bytes_per_sequence(&self) -> Bytes {
        let layout = Layout {
            slots: 1,
            ..self.effective.layout(self.effective.workload)
        };
        self.cache_and_states(&self.kinds.all(), layout).1
    }

    fn assumptions(&self) -> Vec<String> {
        let mut all = Vec::new();
        if self.parameters.flash_attn.is_none() {
            all.push(self.flash_assumption());
        }

        if self.effective.unified && self.parameters.kv_unified.is_none() {
            let slots = self.effective.slots(self.effective.workload);
            all.push(format!(
                "llama-server's {slots} slots share one cache of the whole context"
            ));
        }

        all.extend(self.saved_prompts());
        all.extend(self.draft_assumptions());
        if self.next_token_layers() > 0 && !self.parameters.draft.next_token {
            all.push("multi-token prediction is off: its layers have no cache".to_owned());
        }

        if self.projector_bytes().is_some() && self.parameters.mmproj.is_none() {
            all.push(
                "the projector next to the model is loaded with it, as -hf does; set no_mmproj=on \
                 to leave it out"
                    .to_owned(),
            );
        }

        all
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    fn splits(&self, devices: u32) -> Result<Vec<Split>, IllegalSplit> {
        if self.parameters.single && devices > 1 {
            return Err(IllegalSplit(
                "split_mode none keeps the model on one device".to_owned(),
            ));
        }

        self.check_one_device(devices, self.always_on_host())?;
        split::splits(
            self.layers,
            self.uncounted_layers(),
            self.always_on_host().layers,
            devices,
            self.parameters.tensor_split.as_deref(),
        )
    }

    fn check(&self, split: &Split) -> Result<(), IllegalSplit> {
        let devices = u32::try_from(split.stages.len()).unwrap_or(u32::MAX);
        self.check_one_device(devices, self.host_of(split))?;
        split::check(split, self.layers, self.weights.has_experts())?;
        self.check_draft_split(split)
    }

    fn uneven(&self) -> bool {
        self.parameters.tensor_split.is_none()
    }

    fn moves_to_host(&self) -> bool {
        // Mapped weights are in the page cache, which the kernel can drop. Without mmap they are
        // allocated.
        self.parameters.no_mmap && self.always_on_host() != OnHost::default()
    }

    fn ranks_are_processes(&self) -> bool {
        false
    }

    fn least_default_context(&self) -> Option<u64> {
        let keeps_default = self.parameters.no_fit
            || self.parameters.full_context
            || self.parameters.n_ctx.is_some();
        self.profile
            .fit_min_context
            .filter(|_| !keeps_default)
            .map(|least| least.min(self.effective.workload.context))
    }

    fn device_fitness(&self, device: &DeviceFacts) -> DeviceSupport {
        // The released binaries use CUDA 12, which supports compute capability 5.0 and later.
        match device.capability() {
            Some(capability) if capability < 50 => DeviceSupport::Unable(format!(
                "compute capability {}.{} is below 5.0",
                capability / 10,
                capability % 10
            )),
            Some(capability) if capability < 80 && self.weights.has(Dtype::BF16) => {
                DeviceSupport::Degraded(
                    "BF16 weights are multiplied in F32 below compute capability 8.0".to_owned(),
                )
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
        reject_overflow(self.fixed_components(split, rank, device), "weights")
    }

    fn variable(
        &self,
        split: &Split,
        rank: usize,
        _device: &DeviceFacts,
        workload: Workload,
    ) -> Result<Vec<Component>, EngineError> {
        reject_overflow(self.variable_components(split, rank, workload), "cache")
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

    fn host(&self, split: &Split, workload: Workload) -> Result<Vec<Component>, EngineError> {
        reject_overflow(self.host_components(split, workload), "host memory")
    }

    fn must_be_available(&self, _split: &Split, device: &DeviceFacts, sum: Interval) -> Interval {
        if self.parameters.no_fit {
            return sum;
        }
        // The libraries later use the memory that --fit leaves free.
        let margin = Bytes::mib(
            self.parameters
                .fit_target
                .unwrap_or(self.profile.fit_target_mib),
        );

        let libraries = self.profile.libraries(device.capability());
        let add_margin =
            |end: Bytes, counted: Bytes| end + margin.less(counted).unwrap_or(Bytes::ZERO);

        Interval::new(
            add_margin(sum.low, libraries.low),
            add_margin(sum.likely, libraries.likely),
            add_margin(sum.high, libraries.high),
        )
    }

    fn share(&self, _split: &Split, _rank: usize, _device: &DeviceFacts) -> Option<Share> {
        None
    }

    fn capacity(&self, _plan: &LaunchPlan<'_>) -> Result<Option<CacheCapacity>, EngineError> {
        Ok(None)
    }

    fn launch(&self, plan: &LaunchPlan<'_>) -> Launch {
        launch::launch(self, plan)
    }
}
