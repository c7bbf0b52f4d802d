//! [`PreparedEngine`] for SGLang.

use std::collections::BTreeMap;

use serde_json::Value;

use super::device_support::device_support;
use super::{SglangPrepared, unsupported, vocabulary_step};
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::engines::component::device_sum;
use crate::engines::shared::shard_size::ExpertPadding;
use crate::engines::shared::split_rules::{
    check_stages, check_tensor_parallel, illegal, legal_splits,
};
use crate::engines::shared::topology::sglang_stages;
use crate::engines::{
    Basis, CacheCapacity, Component, ComponentName, DeviceSupport, EngineError, IllegalSplit,
    Interval, Launch, LaunchPlan, Offload, PreparedEngine, Share, Split, Workload,
};

/// The widest padding of MXFP4 experts by a kernel of SGLang (`layers/quantization/mxfp4.py`,
/// FlashInfer's on SM10x).
const WIDEST_PADDING: ExpertPadding = ExpertPadding {
    width: 256,
    hidden: 256,
    scales: true,
};

impl SglangPrepared<'_> {
    /// Returns the tokens that fit in `bytes` of pool on `rank`.
    pub fn pool_tokens(&self, split: &Split, rank: usize, bytes: Bytes) -> u64 {
        bytes.get() / self.slot(split, rank).get().max(1)
    }

    /// Returns the weights of one rank, to compare with logs.
    pub fn weights(&self, split: &Split, rank: usize) -> Interval {
        let likely = self.table(split, None).bytes(split, rank);

        // Kernels pad MXFP4 experts: by a tenth on one rank, by more than a third if ranks cut them
        // small.
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

    /// The CUDA context and the libraries.
    pub(super) fn context(&self, device: &DeviceFacts) -> Interval {
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
        all.push(
            "activations, graphs and workspaces take what mem_fraction_static leaves for them"
                .to_owned(),
        );

        if let Some(draft) = &self.draft {
            all.push(format!(
                "the draft {} proposes tokens: a step checks {} for each sequence, and at most {} \
                 requests run at once unless max_running_requests says otherwise",
                draft.model().identity.repo,
                draft.speculation().tokens,
                self.settings.max_running.unwrap_or(0)
            ));
        }

        all
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    fn splits(&self, devices: u32) -> Result<Vec<Split>, IllegalSplit> {
        let layers = self.architecture.layer_count();
        let has_experts = self.architecture.experts.is_some();

        legal_splits(layers, devices, |tensor, stages| {
            let split = Split {
                tensor,
                stages: sglang_stages(layers, stages),
                expert_parallel: self.settings.expert_parallel && tensor > 1 && has_experts,
                offload: Offload::None,
            };

            self.check(&split).map(|()| split)
        })
    }

    fn check(&self, split: &Split) -> Result<(), IllegalSplit> {
        if split.offload != Offload::None {
            return illegal("SGLang cannot keep a number of layers or experts on the host");
        }

        check_stages(self.architecture, split)?;
        if let Some(draft) = &self.draft {
            draft.check_split(split)?;
        }

        let count = u32::try_from(split.stages.len()).unwrap_or(u32::MAX);
        if split.stages != sglang_stages(self.architecture.layer_count(), count) {
            return illegal(
                "SGLang assigns layers to stages itself: equal shares, the remainder to the last",
            );
        }

        let tensor = u64::from(split.tensor);
        check_tensor_parallel(
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

    fn least_default_context(&self) -> Option<u64> {
        None
    }

    fn device_fitness(&self, device: &DeviceFacts) -> DeviceSupport {
        device_support(self.architecture, self.online_name.as_deref(), device)
    }

    fn fixed(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
    ) -> Result<Vec<Component>, EngineError> {
        if self.model.inventory.classes.is_empty() {
            return Err(unsupported(
                "no tensor of the weights is known, so their size is unknown",
            ));
        }

        let weights = self.weights(split, rank);
        if weights.likely.overflowed() {
            return Err(EngineError::Overflow { what: "weights" });
        }

        let reserve = self.reserve(split, device);
        let mut parts = vec![
            Component::between(ComponentName::Weights, weights, Basis::Formula, ""),
            // Everything transient must fit in what mem_fraction_static leaves free. The need is
            // that remainder, or the transient bytes if they are more. No log shows how much of the
            // remainder a step uses.
            Component::between(
                ComponentName::Activations,
                Interval::new(
                    reserve.div_ceil(2),
                    reserve,
                    reserve.max(self.transient(split, device)),
                ),
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

        if let Some(draft) = &self.draft {
            let weights = draft.weights(split);
            if weights.likely.overflowed() {
                return Err(EngineError::Overflow { what: "weights" });
            }

            let detail = format!("the draft {}", draft.model().identity.repo);
            parts.push(Component::between(
                ComponentName::Weights,
                weights,
                Basis::Formula,
                &*detail,
            ));
        }

        if self.architecture.vision.is_some() {
            // The embeddings of the images in flight, which no log shows.
            let reserve = Bytes::mib(self.constants.multimodal_mib);
            parts.push(Component::between(
                ComponentName::Runtime,
                Interval::new(Bytes::ZERO, reserve, reserve * 2),
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

        if let Some(draft) = self.draft_pool(split, workload) {
            parts.push(Component::between(
                ComponentName::KvCache,
                draft,
                Basis::Formula,
                "the draft's pool",
            ));
        }

        // The request table fits in the remainder; only what exceeds half of it adds to the need.
        let room = self.reserve(split, device).div_ceil(2);
        if let Some(beyond) = pools
            .table
            .less(room)
            .filter(|beyond| *beyond > Bytes::ZERO)
        {
            parts.push(Component::between(
                ComponentName::Runtime,
                Interval::new(beyond.scale(98, 100), beyond, beyond.scale(102, 100)),
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

    /// No share: `mem_fraction_static` sets what activations get, and the launch line sizes the
    /// pool by the workload.
    fn share(&self, _split: &Split, _rank: usize, _device: &DeviceFacts) -> Option<Share> {
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
        self.launch_line(plan)
    }
}
