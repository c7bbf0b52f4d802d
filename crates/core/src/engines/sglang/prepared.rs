//! The seam's answers for SGLang.

use std::collections::BTreeMap;

use serde_json::Value;

use super::settings::fraction_text;
use super::{SglangPrepared, unsupported, vocabulary_step};
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::engines::component::device_sum;
use crate::engines::shared::shard_size::ExpertPadding;
use crate::engines::shared::topology::{degrees, sglang_stages};
use crate::engines::vllm::legal::{stages, tensor_parallel};
use crate::engines::{
    Basis, CacheCapacity, Component, ComponentName, DeviceSupport, EngineError, IllegalSplit,
    Interval, Launch, LaunchDevice, LaunchPlan, Offload, PreparedEngine, Share, Split, Workload,
};

/// The most that a kernel of SGLang's pads MXFP4 experts to (`layers/quantization/mxfp4.py`,
/// FlashInfer's on SM10x).
const WIDEST_PADDING: ExpertPadding = ExpertPadding {
    width: 256,
    hidden: 256,
    scales: true,
};

impl SglangPrepared<'_> {
    /// Tokens that `bytes` of pool give on `rank`.
    pub fn pool_tokens(&self, split: &Split, rank: usize, bytes: Bytes) -> u64 {
        bytes.get() / self.slot(split, rank).get().max(1)
    }

    /// Weights of one rank, for holding against logs.
    pub fn weights(&self, split: &Split, rank: usize) -> Interval {
        let likely = self.table(split, None).bytes(split, rank);

        // Kernels for MXFP4 experts pad them: by a tenth on one rank, by more than a third where
        // ranks cut them small.
        let mxfp4 = self
            .architecture
            .quantization
            .as_ref()
            .is_some_and(|quantization| quantization.method == "mxfp4");
        let high = if mxfp4 {
            self.table(split, Some(WIDEST_PADDING))
                .bytes(split, rank)
                .max(likely.scale(1085, 1000))
        } else {
            likely
        };

        Interval::new(
            likely.scale(985, 1000),
            likely,
            high.scale(1015, 1000) + Bytes::mib(128),
        )
    }

    /// What a server takes that sizes its pool itself: weights and pool fill its fraction of what
    /// it finds free once its context is there, and the steps take of the rest.
    fn own_pool_takes(&self, plan: &LaunchPlan<'_>, device: &LaunchDevice<'_>) -> Bytes {
        let free = device.free.unwrap_or(device.available);
        let context = self.context(device.facts).high;
        let left = free.less(context).unwrap_or_default();
        let filled = left.scale(self.fraction(plan.split, device.facts), 1_000_000);
        (context + filled + self.transient(plan.split, device.facts)).min(free)
    }

    fn context(&self, device: &DeviceFacts) -> Interval {
        let constants = &self.constants;
        device.multiprocessors.map_or_else(
            || {
                Interval::new(
                    Bytes::mib(110),
                    Bytes::mib(500),
                    Bytes::mib(constants.context_unknown_mib),
                )
            },
            |count| {
                let bare = Bytes::mib(constants.context_by_multiprocessor_mib) * u64::from(count);
                let libraries = Bytes::mib(constants.context_libraries_mib);
                Interval::new(bare, bare + libraries, bare + libraries * 2)
            },
        )
    }
}

impl PreparedEngine for SglangPrepared<'_> {
    fn profile(&self) -> &str {
        &self.profile
    }

    fn parameters(&self) -> BTreeMap<String, Value> {
        self.settings.report(self.fraction(
            &Split::single(self.architecture.layer_count()),
            &self.device,
        ))
    }

    fn workload(&self) -> Workload {
        self.settings.workload
    }

    fn kv_cache_dtype(&self) -> String {
        self.settings.kv_name.clone()
    }

    fn kv_bytes_per_token(&self) -> Bytes {
        self.slot(&Split::single(self.architecture.layer_count()), 0)
    }

    fn state_bytes_per_sequence(&self) -> Bytes {
        self.state_slot(&Split::single(self.architecture.layer_count()), 0)
    }

    fn assumptions(&self) -> Vec<String> {
        let mut all = self.settings.assumptions.clone();
        all.push("activations, graphs and workspaces are taken as what mem_fraction_static leaves for them".to_owned());
        all
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    fn splits(&self, devices: u32) -> Result<Vec<Split>, IllegalSplit> {
        let layers = self.architecture.layer_count();
        let (mut found, mut why) = (Vec::new(), None);

        for (tensor, count) in degrees(devices).filter(|(_, count)| *count <= layers.max(1)) {
            let split = Split {
                tensor,
                stages: sglang_stages(layers, count),
                expert_parallel: self.settings.expert_parallel
                    && tensor > 1
                    && self.architecture.experts.is_some(),
                offload: Offload::None,
            };

            match self.check(&split) {
                Ok(()) => found.push(split),
                Err(reason) => why = why.or(Some(reason)),
            }
        }

        if found.is_empty() {
            return Err(why.unwrap_or_else(|| {
                IllegalSplit(format!(
                    "{layers} layers cannot be cut into {devices} stages"
                ))
            }));
        }

        Ok(found)
    }

    fn check(&self, split: &Split) -> Result<(), IllegalSplit> {
        if split.offload != Offload::None {
            return Err(IllegalSplit(
                "SGLang keeps no layers or experts on the host by number".to_owned(),
            ));
        }

        stages(self.architecture, split)?;
        let count = u32::try_from(split.stages.len()).unwrap_or(u32::MAX);
        if split.stages != sglang_stages(self.architecture.layer_count(), count) {
            return Err(IllegalSplit(
                "SGLang deals layers to stages itself: equal, the remainder to the last".to_owned(),
            ));
        }

        let tensor = u64::from(split.tensor);
        tensor_parallel(
            self.architecture,
            tensor,
            split.expert_parallel,
            vocabulary_step(self.architecture.vocab_size, tensor),
        )
    }

    fn uneven(&self) -> bool {
        false
    }

    fn moves_to_host(&self) -> bool {
        false
    }

    fn ranks_are_processes(&self) -> bool {
        true
    }

    fn device_fitness(&self, device: &DeviceFacts) -> DeviceSupport {
        super::device_support::fitness(self.architecture, self.online_name.as_deref(), device)
    }

    fn fixed(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
    ) -> Result<Vec<Component>, EngineError> {
        if self.model.inventory.classes.is_empty() {
            return Err(unsupported(
                "no tensor of the weights is known, so their size is not",
            ));
        }

        let weights = self.weights(split, rank);
        if weights.likely.overflowed() {
            return Err(EngineError::Overflow { what: "weights" });
        }

        let reserve = self.reserve(split, device);
        let mut parts = vec![
            Component::between(ComponentName::Weights, weights, Basis::Formula, ""),
            // All that is transient must live in the remainder, which is therefore part of the
            // need: as much as mem_fraction_static leaves, or more where that is too little.
            Component::between(
                ComponentName::Activations,
                Interval::new(reserve, reserve, reserve.max(self.transient(split, device))),
                Basis::Formula,
                "left by mem_fraction_static",
            ),
            Component::between(
                ComponentName::Context,
                self.context(device),
                Basis::Calibrated,
                "",
            ),
        ];

        if self.architecture.vision.is_some() {
            let reserve = Bytes::mib(self.constants.multimodal_mib);
            parts.push(Component::exact(
                ComponentName::Runtime,
                reserve,
                Basis::Formula,
                "multimodal embedding cache",
            ));
        }

        Ok(parts)
    }

    fn variable(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
        workload: Workload,
    ) -> Result<Vec<Component>, EngineError> {
        let pools = self.pools(split, rank, workload);
        if pools.tokens.overflowed() || pools.states.overflowed() || pools.table.overflowed() {
            return Err(EngineError::Overflow { what: "cache" });
        }

        let mut parts = Vec::new();
        for (name, bytes) in [
            (ComponentName::KvCache, pools.tokens),
            (ComponentName::State, pools.states),
        ] {
            if bytes > Bytes::ZERO {
                parts.push(Component::exact(name, bytes, Basis::Formula, ""));
            }
        }
        // The request table lies in the remainder; only what outgrows half of it adds to the need.
        let room = self.reserve(split, device).div_ceil(2);

        if let Some(beyond) = pools
            .table
            .less(room)
            .filter(|beyond| *beyond > Bytes::ZERO)
        {
            parts.push(Component::exact(
                ComponentName::Runtime,
                beyond,
                Basis::Formula,
                "request table beyond the reserve",
            ));
        }

        Ok(parts)
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

    fn host(&self, _split: &Split, _workload: Workload) -> Result<Vec<Component>, EngineError> {
        Ok(Vec::new())
    }

    fn must_be_available(&self, _split: &Split, _device: &DeviceFacts, sum: Interval) -> Interval {
        sum
    }

    fn share(&self, _split: &Split, _rank: usize, _device: &DeviceFacts) -> Option<Share> {
        // `mem_fraction_static` says what is left for activations, and the launch line sizes the
        // pool by the workload.
        None
    }

    fn capacity(&self, plan: &LaunchPlan<'_>) -> Result<Option<CacheCapacity>, EngineError> {
        if self.settings.asked_fraction.is_none() || self.kv_bytes_per_token() == Bytes::ZERO {
            return Ok(None);
        }

        let tokens = self.token_slots(plan.workload);
        let hundredths = u128::from(tokens) * 100 / u128::from(plan.workload.context.max(1));
        let concurrency_hundredths = u64::try_from(hundredths).unwrap_or(u64::MAX);

        Ok(Some(CacheCapacity {
            tokens,
            low_tokens: tokens,
            concurrency_hundredths,
        }))
    }

    fn launch(&self, plan: &LaunchPlan<'_>) -> Launch {
        let settings = &self.settings;
        let uuids: Vec<&str> = plan
            .devices
            .iter()
            .map(|device| &*device.facts.uuid)
            .collect();

        let env = BTreeMap::from([
            ("CUDA_DEVICE_ORDER".to_owned(), "PCI_BUS_ID".to_owned()),
            ("CUDA_VISIBLE_DEVICES".to_owned(), uuids.join(",")),
        ]);
        let mut args: Vec<String> = ["python3", "-m", "sglang.launch_server", "--model-path"]
            .map(str::to_owned)
            .to_vec();
        args.push(self.model.identity.repo.clone());
        let mut flag = |name: &str, value: String| args.extend([format!("--{name}"), value]);
        if let Some(revision) = &self.model.identity.revision {
            flag("revision", revision.clone());
        }

        if plan.split.tensor > 1 {
            flag("tp-size", plan.split.tensor.to_string());
        }

        if plan.split.stages.len() > 1 {
            flag("pp-size", plan.split.stages.len().to_string());
        }

        if plan.split.expert_parallel {
            flag("ep-size", plan.split.tensor.to_string());
        }

        flag("context-length", plan.workload.context.to_string());
        flag("chunked-prefill-size", settings.chunk.to_string());

        if !settings.own_pool {
            flag(
                "max-total-tokens",
                self.token_slots(plan.workload).to_string(),
            );
        }

        if let Some(most) = settings.max_running {
            flag("max-running-requests", most.to_string());
        }
        // The fraction is of the memory free at start: what the pools and weights take of it, at
        // least the default's share.
        let fractions = plan.devices.iter().map(|device| {
            let free = device.free.unwrap_or(device.available).get().max(1);
            let reserve = self.reserve(plan.split, device.facts).get();
            let budget = u128::from(free.saturating_sub(reserve)) * 1_000_000 / u128::from(free);
            u64::try_from(budget).unwrap_or(0)
        });

        let fraction = match settings.asked_fraction {
            // A fraction of the server's own needs no flag.
            None if settings.own_pool => None,
            asked => asked.or_else(|| fractions.min()),
        };

        if let Some(fraction) = fraction {
            flag("mem-fraction-static", fraction_text(fraction));
        }

        if settings.kv.is_quantized() {
            let name = match &*settings.kv_name {
                "fp8" => "fp8_e4m3",
                "nvfp4" => "fp4_e2m1",
                name => name,
            };
            flag("kv-cache-dtype", name.to_owned());
        }

        if settings.given.contains("dtype") {
            flag("dtype", settings.compute.name().to_owned());
        }

        if settings.given.contains("swa_full_tokens_ratio") {
            flag("swa-full-tokens-ratio", fraction_text(settings.swa_ratio));
        }

        if !settings.graphs {
            args.push("--disable-cuda-graph".to_owned());
        }

        if !settings.radix {
            args.push("--disable-radix-cache".to_owned());
        }

        args.extend(settings.flags.iter().cloned());
        let takes = plan
            .devices
            .iter()
            .map(|device| settings.own_pool.then(|| self.own_pool_takes(plan, device)));

        Launch {
            env,
            takes: takes.collect(),
            args,
        }
    }
}
