//! [`PreparedEngine`] for vLLM.

use std::collections::BTreeMap;

use serde_json::Value;

use super::VllmPrepared;
use super::cache_bytes::VariableBytes;
use super::device_support::{Demands, device_support};
use super::refusal::unsupported;
use super::speculation::SpeculationMethod;
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::engines::shared::split_rules::legal_splits;
use crate::engines::shared::topology::vllm_stages;
use crate::engines::{
    Basis, CacheCapacity, Component, ComponentName, DeviceSupport, EngineError, IllegalSplit,
    Interval, Launch, LaunchPlan, Offload, PreparedEngine, Share, Split, Workload,
};
use crate::model::architecture::Task;

impl VllmPrepared<'_> {
    /// The memory that `rank` holds on `device` whatever the workload; absent parts are zero.
    fn fixed_parts(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
    ) -> Result<[(ComponentName, Interval); 7], EngineError> {
        if self.model.inventory.classes.is_empty() {
            return Err(unsupported(
                "no tensor of the weights is known, so their size is unknown",
            ));
        }

        let weights = self.weights(split, rank);
        if weights.likely.overflowed() {
            return Err(EngineError::Overflow { what: "weights" });
        }

        let communication = self
            .communication_before(split, device)
            .plus(self.communication_growth(split, device));
        let runtime = self
            .library_growth(split)
            .plus(self.persistent(split, rank));

        let mut activations = self.activations(split, rank);
        let mut graphs = self.graphs(split, rank, device);
        let mut draft_parts = Interval::default();
        let looks_up = self
            .settings
            .speculation
            .is_some_and(|speculation| speculation.method == SpeculationMethod::Ngram);
        if looks_up {
            graphs = with_graphs_of_draft(graphs, Interval::default());
        }

        let mut runtime = runtime;

        if let Some(draft) = self.draft.as_ref().filter(|_| split.is_last_stage(rank)) {
            draft_parts = draft.weights(split);
            if draft_parts.likely.overflowed() {
                return Err(EngineError::Overflow { what: "weights" });
            }

            runtime = runtime.plus(draft.buffers());
            activations = with_run_of_draft(activations, draft.activations(split))
                .plus(draft.auxiliary_states());
            graphs = with_graphs_of_draft(graphs, draft.graphs(split, device));
        }

        Ok([
            (ComponentName::Weights, weights),
            (ComponentName::Weights, draft_parts),
            (ComponentName::Activations, activations),
            (ComponentName::Graphs, graphs),
            (ComponentName::Communication, communication),
            (ComponentName::Runtime, runtime),
            (ComponentName::Context, self.context(device)),
        ])
    }

    /// A legal split of `tensor` ranks by `stages` stages, with whole experts if nothing else
    /// divides.
    fn legal_split(&self, tensor: u32, stages: u32) -> Result<Split, IllegalSplit> {
        let can_keep_experts_whole = tensor > 1 && self.architecture.experts.is_some();
        let split = Split {
            tensor,
            stages: vllm_stages(self.architecture.layer_count(), stages),
            expert_parallel: can_keep_experts_whole && self.settings.expert_parallel,
            offload: Offload::None,
        };

        let Err(reason) = self.check_split(&split) else {
            return Ok(split);
        };

        // Expert parallelism keeps an expert's width whole when it does not divide.
        let whole_experts = Split {
            expert_parallel: true,
            ..split
        };
        if can_keep_experts_whole && self.check_split(&whole_experts).is_ok() {
            return Ok(whole_experts);
        }

        Err(reason)
    }
}

/// The peak of the model's run and of the draft's, one after the other.
///
/// At most the first still holds its tensors when the second begins.
fn with_run_of_draft(model: Interval, draft: Interval) -> Interval {
    Interval::new(
        model.low,
        model.likely.max(draft.likely),
        model.high + draft.high,
    )
}

/// The model's graphs with the draft's.
///
/// A step of the model checks all proposed tokens, so its graphs can be as large again.
fn with_graphs_of_draft(model: Interval, draft: Interval) -> Interval {
    Interval::new(
        model.low,
        model.likely + draft.likely,
        model.high * 2 + draft.high,
    )
}

impl PreparedEngine for VllmPrepared<'_> {
    fn profile(&self) -> &str {
        &self.profile
    }

    fn parameters(&self) -> BTreeMap<String, Value> {
        let mut all = self.settings.report();
        all.entry("block_size".to_owned())
            .or_insert_with(|| self.block_tokens().into());
        all
    }

    fn workload(&self) -> Workload {
        self.settings.workload
    }

    fn kv_cache_dtype(&self) -> String {
        self.settings.kv_name.clone()
    }

    fn kv_bytes_per_token(&self) -> Bytes {
        self.token_bytes()
    }

    fn state_bytes_per_sequence(&self) -> Bytes {
        self.sequence_state_bytes()
    }

    fn assumptions(&self) -> Vec<String> {
        let settings = &self.settings;
        let mut all = settings.assumptions.clone();
        if !settings.given.contains("max_num_seqs")
            || !settings.given.contains("max_num_batched_tokens")
        {
            all.push(format!(
                "API server defaults for this GPU: max_num_batched_tokens {}, max_num_seqs {}",
                settings.batched_tokens, settings.max_sequences
            ));
        }

        if let Some(draft) = &self.draft {
            all.push(format!(
                "the draft {} proposes {} tokens a step; no start-up log shows its run, graphs and \
                 buffers, so their intervals hold those of both models",
                draft.model().identity.repo,
                settings.speculative_tokens()
            ));
        }

        all
    }

    fn warnings(&self) -> Vec<String> {
        let looped = self.architecture.is_looped().then(|| {
            "layers that run several times are counted on one device only: more devices may help"
                .to_owned()
        });
        let drafted = self.draft.as_ref().map(|_| {
            "a draft is counted without pipeline stages only: more devices may help as stages"
                .to_owned()
        });

        looped.into_iter().chain(drafted).collect()
    }

    fn splits(&self, devices: u32) -> Result<Vec<Split>, IllegalSplit> {
        legal_splits(
            self.architecture.layer_count(),
            devices,
            |tensor, stages| self.legal_split(tensor, stages),
        )
    }

    fn check(&self, split: &Split) -> Result<(), IllegalSplit> {
        self.check_split(split)
    }

    fn uneven(&self) -> bool {
        !matches!(self.architecture.task, Task::Encode | Task::EncodeDecode)
    }

    fn moves_to_host(&self) -> bool {
        self.settings.cpu_offload_bytes > 0
    }

    fn ranks_are_processes(&self) -> bool {
        true
    }

    fn least_default_context(&self) -> Option<u64> {
        None
    }

    fn device_fitness(&self, device: &DeviceFacts) -> DeviceSupport {
        let demands = Demands {
            architecture: self.architecture,
            compute: self.settings.compute,
            asked_dtype: self.settings.given.contains("dtype"),
            kv: self.settings.kv,
            refuses_half: self.constants.refuses_half,
            online: self.settings.online_name.as_deref(),
        };

        device_support(&demands, device)
    }

    fn fixed(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
    ) -> Result<Vec<Component>, EngineError> {
        let draft_weights = self.draft.as_ref().map_or_else(String::new, |draft| {
            format!("the draft {}", draft.model().identity.repo)
        });
        let sources: [(Basis, &str); 7] = [
            (Basis::Formula, &self.details.weights),
            (Basis::Formula, &draft_weights),
            (Basis::Calibrated, &self.details.activations),
            (Basis::Calibrated, "piecewise and full capture sizes"),
            (
                Basis::Calibrated,
                "NCCL, custom all-reduce, symmetric memory",
            ),
            (Basis::Calibrated, "libraries, sampler state, workspaces"),
            (Basis::Calibrated, "CUDA context and kernels"),
        ];

        let parts = self.fixed_parts(split, rank, device)?;
        let parts = parts
            .into_iter()
            .zip(sources)
            .filter(|((_, bytes), _)| bytes.high > Bytes::ZERO);

        Ok(parts
            .map(|((name, bytes), (basis, detail))| Component::between(name, bytes, basis, detail))
            .collect())
    }

    fn fixed_sum(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
    ) -> Result<Interval, EngineError> {
        Ok(self
            .fixed_parts(split, rank, device)?
            .into_iter()
            .map(|(_, bytes)| bytes)
            .sum())
    }

    fn variable(
        &self,
        split: &Split,
        rank: usize,
        _device: &DeviceFacts,
        workload: Workload,
    ) -> Result<Vec<Component>, EngineError> {
        let Some(variable) = self.variable_bytes(split, rank, workload)? else {
            return Ok(Vec::new());
        };

        let mut components = vec![Component::between(
            ComponentName::KvCache,
            variable.tokens,
            Basis::Formula,
            &*self.details.cache,
        )];

        if variable.states.high > Bytes::ZERO {
            components.push(Component::between(
                ComponentName::State,
                variable.states,
                Basis::Formula,
                "recurrent states, in pages of the cache",
            ));
        }

        components.push(Component::between(
            ComponentName::Runtime,
            variable.tables,
            Basis::Formula,
            "block tables and gather buffers",
        ));

        Ok(components)
    }

    fn variable_sum(
        &self,
        split: &Split,
        rank: usize,
        _device: &DeviceFacts,
        workload: Workload,
    ) -> Result<Interval, EngineError> {
        let variable = self.variable_bytes(split, rank, workload)?;
        Ok(variable.map_or_else(Interval::default, VariableBytes::sum))
    }

    fn host(&self, split: &Split, _workload: Workload) -> Result<Vec<Component>, EngineError> {
        let offloaded = Bytes::new(self.settings.cpu_offload_bytes) * split.ranks() as u64;
        if offloaded == Bytes::ZERO {
            return Ok(Vec::new());
        }

        Ok(vec![Component::exact(
            ComponentName::Host,
            offloaded,
            Basis::Formula,
            "pinned by cpu_offload_gb on every rank",
        )])
    }

    /// Without a share of the user's own, the launch line takes the estimate and no more.
    fn must_be_available(&self, _split: &Split, _device: &DeviceFacts, sum: Interval) -> Interval {
        sum
    }

    fn share(&self, split: &Split, rank: usize, device: &DeviceFacts) -> Option<Share> {
        let millionths = self.settings.asked_share?;
        let inside = device
            .cuda_total()
            .unwrap_or(device.total_bytes)
            .scale(millionths, 1_000_000);
        let outside = self.outside_share(split, rank, device);
        let taken = Interval::exact(inside).plus(outside);

        Some(Share {
            name: "gpu_memory_utilization",
            millionths,
            taken,
            outside,
        })
    }

    fn capacity(&self, plan: &LaunchPlan<'_>) -> Result<Option<CacheCapacity>, EngineError> {
        self.cache_capacity(plan)
    }

    fn launch(&self, plan: &LaunchPlan<'_>) -> Launch {
        self.launch_line(plan)
    }
}
