//! The answers themselves: components by rank, host memory, margins.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::cache::{self, Layout};
use super::launch;
use super::prepared::Ready;
use super::split;
use super::weights::OnHost;
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::engines::component::device_sum;
use crate::engines::{
    Basis, CacheCapacity, Component, ComponentName, DeviceSupport, EngineError, IllegalSplit,
    Interval, Launch, LaunchPlan, PreparedEngine, Share, Split, Workload,
};
use crate::model::Dtype;

fn finite(components: Vec<Component>, what: &'static str) -> Result<Vec<Component>, EngineError> {
    if components.iter().any(|part| part.bytes.high.overflowed()) {
        return Err(EngineError::Overflow { what });
    }
    Ok(components)
}

impl PreparedEngine for Ready<'_> {
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

        if self.parameters.single {
            all.insert("split_mode", json!("none"));
        }

        if host.experts > 0 {
            all.insert("n_cpu_moe", json!(host.experts.min(self.layers)));
        }

        if let Some(projector) = self.projector() {
            all.insert("mmproj", json!(projector));
        }

        all.into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    fn workload(&self) -> Workload {
        self.settled.workload
    }

    fn kv_cache_dtype(&self) -> String {
        let (keys, values) = (self.settled.keys.name(), self.settled.values.name());
        let both = if keys == values {
            keys.to_owned()
        } else {
            format!("{keys}/{values}")
        };

        both.to_ascii_lowercase()
    }

    fn kv_bytes_per_token(&self) -> Bytes {
        // Cells come in blocks, so what one token more costs is what a block more costs, shared
        // out.
        let settled = self.settled.layout(self.settled.workload);
        let layout = Layout {
            streams: 1,
            ..settled
        };

        let longer = Layout {
            context: layout.context.saturating_add(cache::CELL_PADDING),
            ..layout
        };

        let (small, _) = self.remembered(&self.kinds.all(), layout);
        let (large, _) = self.remembered(&self.kinds.all(), longer);

        large
            .less(small)
            .map_or(Bytes::OVERFLOW, |bytes| bytes.div_ceil(cache::CELL_PADDING))
    }

    fn state_bytes_per_sequence(&self) -> Bytes {
        let layout = Layout {
            slots: 1,
            ..self.settled.layout(self.settled.workload)
        };
        self.remembered(&self.kinds.all(), layout).1
    }

    fn assumptions(&self) -> Vec<String> {
        let mut all = Vec::new();
        if self.parameters.flash_attn.is_none() {
            all.push("flash attention is on, as llama.cpp's 'auto' chooses on CUDA".to_owned());
        }

        if self.settled.unified && self.parameters.kv_unified.is_none() {
            let slots = self.settled.slots(self.settled.workload);
            all.push(format!(
                "llama-server's {slots} slots share one cache of the whole context"
            ));
        }

        if self.next_token_layers() > 0 {
            all.push("multi-token prediction is off: its layers have no cache".to_owned());
        }

        if self.projector_bytes().is_some() && self.parameters.mmproj.is_none() {
            all.push(
                "the projector beside the model is loaded with it, as -hf does; without it set no_mmproj=on".to_owned(),
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

        split::splits(
            self.layers,
            self.always_on_host().layers,
            devices,
            self.parameters.tensor_split.as_deref(),
        )
    }

    fn check(&self, split: &Split) -> Result<(), IllegalSplit> {
        split::check(split, self.layers, self.weights.has_experts())
    }

    fn uneven(&self) -> bool {
        self.parameters.tensor_split.is_none()
    }

    fn moves_to_host(&self) -> bool {
        // Mapped weights stay in the page cache, which the kernel can drop; without mmap they are
        // allocated.
        self.parameters.no_mmap && self.always_on_host() != OnHost::default()
    }

    fn ranks_are_processes(&self) -> bool {
        false
    }

    fn device_fitness(&self, device: &DeviceFacts) -> DeviceSupport {
        // CUDA 12, which the released binaries are built with, knows devices from 5.0 on.
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
        let (stage, output, host) = self.stage(split, rank);
        let weights = self.weights.on_stage(&stage, output, host);
        let behind = if output { " and the output layer" } else { "" };
        let detail = format!("layers {}..{}{behind}, as stored", stage.start, stage.end);

        let mut components = vec![Component::exact(
            ComponentName::Weights,
            weights,
            Basis::Exact,
            detail,
        )];

        if rank == 0
            && !self.parameters.no_mmproj_offload
            && let Some(bytes) = self.projector_bytes()
        {
            components.push(Component::exact(
                ComponentName::Weights,
                bytes,
                Basis::Exact,
                "the projector",
            ));

            let images = self.profile.projector_compute();
            let detail = "compute buffer of the projector's largest image";

            components.push(Component::between(
                ComponentName::Activations,
                images,
                Basis::Assumed,
                detail,
            ));
        }

        let context = self.profile.context(device.multiprocessors);
        components.push(Component::between(
            ComponentName::Context,
            context,
            Basis::Calibrated,
            "CUDA context",
        ));

        let libraries = self.profile.libraries(device.capability());
        let detail = "cuBLAS workspace and conversion pool";

        components.push(Component::between(
            ComponentName::Runtime,
            libraries,
            Basis::Calibrated,
            detail,
        ));

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
        let layers = self.kinds.within(&stage);
        let mut components = Vec::new();

        if self.cache_on_device() {
            let (cache, states) = self.remembered(&layers, layout);
            if self.has_cache() {
                let detail = format!(
                    "{} cells of {}",
                    layout.context.saturating_mul(layout.streams),
                    self.kv_cache_dtype()
                );

                components.push(Component::exact(
                    ComponentName::KvCache,
                    cache,
                    Basis::Formula,
                    detail,
                ));
            }

            if states > Bytes::ZERO {
                let detail = format!("{} states of F32", layout.slots);
                components.push(Component::exact(
                    ComponentName::State,
                    states,
                    Basis::Formula,
                    detail,
                ));
            }
        }

        let on_host = self.kinds.within(&(0..host.layers.min(self.layers)));
        let graph = self.graph(layout, split, output, host, &on_host);
        let detail = format!("compute buffer of {} tokens", layout.ubatch);

        components.push(Component::between(
            ComponentName::Activations,
            graph.buffer(&layers),
            Basis::Formula,
            detail,
        ));

        finite(components, "cache")
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
        let host = self.host_of(split);
        let layout = self.settled.layout(workload);
        let weights = self.weights.on_host(host, self.output_on_device(host));

        let kept = if self.parameters.no_mmap {
            "allocated"
        } else {
            "mapped from the file"
        };

        let mut components = vec![Component::exact(
            ComponentName::Host,
            weights,
            Basis::Exact,
            format!("weights on the host, {kept}"),
        )];

        if let Some(bytes) = self
            .projector_bytes()
            .filter(|_| self.parameters.no_mmproj_offload)
        {
            components.push(Component::exact(
                ComponentName::Host,
                bytes,
                Basis::Exact,
                "the projector",
            ));
        }

        let here = if self.cache_on_device() {
            0..host.layers.min(self.layers)
        } else {
            0..self.layers
        };

        let (cache, states) = self.remembered(&self.kinds.within(&here), layout);
        if cache + states > Bytes::ZERO {
            components.push(Component::exact(
                ComponentName::Host,
                cache + states,
                Basis::Formula,
                "cache on the host",
            ));
        }

        let on_host = self.kinds.within(&(0..host.layers.min(self.layers)));
        let graph = self.graph(layout, split, false, host, &on_host);
        let own = graph.host(&self.kinds.all());
        let high = own + graph.buffer(&on_host).high;

        let buffers = if on_host.is_empty() {
            Interval::exact(own)
        } else {
            Interval::new(own, own, high)
        };

        let detail = "input embedding, masks and logits";
        components.push(Component::between(
            ComponentName::Host,
            buffers,
            Basis::Formula,
            detail,
        ));

        finite(components, "host memory")
    }

    fn must_be_available(&self, _split: &Split, device: &DeviceFacts, sum: Interval) -> Interval {
        if self.parameters.no_fit {
            return sum;
        }
        // What --fit leaves free is also what the libraries take later.
        let margin = Bytes::mib(
            self.parameters
                .fit_target
                .unwrap_or(self.profile.fit_target_mib),
        );

        let libraries = self.profile.libraries(device.capability());
        let more = |end: Bytes, counted: Bytes| end + margin.less(counted).unwrap_or(Bytes::ZERO);

        Interval::new(
            more(sum.low, libraries.low),
            more(sum.likely, libraries.likely),
            more(sum.high, libraries.high),
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
