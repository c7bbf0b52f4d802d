//! The seam's answers for vLLM.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;

use super::VllmPrepared;
use super::device_support::{Demands, fitness};
use super::settings::unsupported;
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::engines::shared::cache::{CacheKind, state_elements, token_bytes};
use crate::engines::shared::topology::{degrees, vllm_stages};
use crate::engines::{
    Basis, CacheCapacity, Component, ComponentName, DeviceSupport, EngineError, IllegalSplit,
    Interval, Launch, LaunchPlan, Offload, PreparedEngine, Share, Split, Workload,
};
use crate::model::architecture::Span;
use crate::model::{Dtype, Format};

impl VllmPrepared<'_> {
    /// Weights on `rank`, after what `cpu_offload_gb` keeps on the host.
    fn weights(&self, split: &Split, rank: usize) -> Interval {
        let whole = self.weights_interval(self.table(split).bytes(split, rank));

        // Only what decoder layers hold can stay behind: embeddings and the head do not
        // (`maybe_offload_to_cpu`).
        let off = Bytes::new(self.settings.cpu_offload_bytes)
            .min(self.table(split).of_layers(split, rank));
        if off == Bytes::ZERO {
            return whole;
        }

        let less = |bytes: Bytes| bytes.less(off).unwrap_or(Bytes::OVERFLOW);
        Interval::new(less(whole.low), less(whole.likely), less(whole.high))
    }

    /// Tensors and tables are exact; FP4 layouts and towers depend on the kernels that are
    /// installed.
    fn weights_interval(&self, likely: Bytes) -> Interval {
        let constants = &self.constants;
        if self.model.format == Format::PytorchBin {
            // A pickle that was stored in 16 bits after all is not halved.
            let stored = if self.architecture.dtype == Some(Dtype::F32) {
                likely * 2
            } else {
                likely
            };
            return Interval::new(likely.scale(95, 100), likely, stored.scale(106, 100));
        }

        let method = self.architecture.quantization.as_ref();
        let fp4 = method.is_some_and(|method| {
            method.method.contains("fp4")
                || method
                    .format
                    .as_deref()
                    .is_some_and(|format| format.to_ascii_lowercase().contains("fp4"))
        });

        let soft = fp4
            || (self.settings.towers
                && (self.architecture.vision.is_some() || self.architecture.audio));
        let (low, high) = if soft {
            (
                constants.weights_soft_low_ratio,
                constants.weights_soft_high_ratio,
            )
        } else {
            (constants.weights_low_ratio, constants.weights_high_ratio)
        };

        Interval::new(
            low.of(likely),
            likely,
            high.of(likely) + constants.weights_high_mib,
        )
    }

    /// Layers whose caches `rank` holds: its stage's, and on the last one the draft's.
    pub(super) fn cached(&self, split: &Split, rank: usize) -> Range<u32> {
        let (_, range) = split.stage_of(rank);
        if split.is_last_stage(rank) {
            range.start..range.end.saturating_add(self.drafts())
        } else {
            range
        }
    }

    /// Layers of the model's own next-token predictor that are loaded: with speculative decoding
    /// only.
    pub(super) fn drafts(&self) -> u32 {
        if self.settings.speculative_tokens > 0 {
            self.architecture.mtp_layers
        } else {
            0
        }
    }

    /// (tokens, states) in bytes that `rank` holds for `workload`.
    pub(super) fn cache(
        &self,
        split: &Split,
        rank: usize,
        workload: Workload,
    ) -> (Interval, Interval) {
        let range = self.cached(split, rank);
        let pages = self.pages(split);
        let block = pages.bytes_per_block(&self.layers, &range);
        let blocks = pages.blocks(&self.layers, workload.context);
        let sequences = workload.sequences;

        // One block is the null block, which holds nothing.
        let tokens = block * blocks.tokens.saturating_mul(sequences).saturating_add(1);
        let states = |count: u64| block * count.saturating_mul(sequences);
        let likely = states(blocks.states);

        (
            Interval::new(tokens, tokens, pages.doubt(tokens)),
            Interval::new(likely, likely, states(blocks.states_high)),
        )
    }
}

impl VllmPrepared<'_> {
    /// What `rank` holds on `device` whatever the workload; what is nothing here has no component.
    fn fixed_parts(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
    ) -> Result<[(ComponentName, Interval); 6], EngineError> {
        if self.model.inventory.classes.is_empty() {
            return Err(unsupported(
                "no tensor of the weights is known, so their size is not",
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

        Ok([
            (ComponentName::Weights, weights),
            (ComponentName::Activations, self.activations(split, rank)),
            (ComponentName::Graphs, self.graphs(split, rank, device)),
            (ComponentName::Communication, communication),
            (ComponentName::Runtime, runtime),
            (ComponentName::Context, self.context(device)),
        ])
    }

    /// Tokens, states and what grows beside them with the context; `None` for a model that
    /// remembers nothing.
    pub(super) fn variable_parts(
        &self,
        split: &Split,
        rank: usize,
        workload: Workload,
    ) -> Result<Option<[Interval; 3]>, EngineError> {
        if self.layers.is_empty() {
            return Ok(None);
        }

        let (tokens, states) = self.cache(split, rank, workload);
        if tokens.high.overflowed() || states.high.overflowed() {
            return Err(EngineError::Overflow { what: "cache" });
        }

        Ok(Some([
            tokens,
            states,
            self.persistent_by_context(split, rank, workload.context),
        ]))
    }
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
        let all = 0..self.architecture.layer_count();
        let context = self.settings.workload.context;

        // A window keeps the tokens in flight besides: until both are full, one more token is kept.
        let in_flight = self.page_rules(&Split::single(all.end)).in_flight;
        let of = |(index, kind): (usize, &CacheKind)| {
            let each = match kind {
                CacheKind::Heads(attention) => match attention.span {
                    Span::Sliding { window }
                        if self.settings.hybrid_manager
                            && context >= window.saturating_add(in_flight) =>
                    {
                        Bytes::ZERO
                    }
                    Span::Cross { .. } | Span::Bidirectional => Bytes::ZERO,
                    _ => token_bytes(attention, self.settings.kv, 1),
                },
                CacheKind::Latent(latent) => match latent.compress_ratio {
                    None => {
                        super::cache::latent_bytes(latent, self.settings.kv, self.layers.sparse())
                    }
                    Some(_) => Bytes::ZERO,
                },
                CacheKind::State(_) => Bytes::ZERO,
            };

            each * self.layers.layers(index, &all)
        };

        let sum: Bytes = self.layers.kinds().iter().enumerate().map(of).sum();
        let compressed = self
            .layers
            .kinds()
            .iter()
            .any(|kind| matches!(kind, CacheKind::Latent(l) if l.compress_ratio.is_some()));

        if compressed {
            self.pages(&Split::single(all.end))
                .bytes_per_block(&self.layers, &all)
                .div_ceil(256)
        } else {
            sum
        }
    }

    fn state_bytes_per_sequence(&self) -> Bytes {
        let all = 0..self.architecture.layer_count();
        let of = |(index, kind): (usize, &CacheKind)| match kind {
            CacheKind::State(state) => {
                let (conv, recurrent) = state_elements(state, 1, self.settings.speculative_tokens);
                let each =
                    conv * self.settings.compute.bytes() + recurrent * self.settings.state_bytes;
                each * self.layers.layers(index, &all)
            }
            _ => Bytes::ZERO,
        };

        self.layers.kinds().iter().enumerate().map(of).sum()
    }

    fn assumptions(&self) -> Vec<String> {
        let mut all = self.settings.assumptions.clone();
        let settings = &self.settings;
        if !settings.given.contains("max_num_seqs")
            || !settings.given.contains("max_num_batched_tokens")
        {
            all.push(format!(
                "API server defaults for this GPU: max_num_batched_tokens {}, max_num_seqs {}",
                settings.batched_tokens, settings.max_sequences
            ));
        }

        all
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    fn splits(&self, devices: u32) -> Result<Vec<Split>, IllegalSplit> {
        let layers = self.architecture.layer_count();
        let mut found = Vec::new();
        let mut why = None;

        for (tensor, stages) in degrees(devices) {
            if stages > layers.max(1) {
                continue;
            }

            let split = |expert_parallel| Split {
                tensor,
                stages: vllm_stages(layers, stages),
                expert_parallel,
                offload: Offload::None,
            };

            let asked =
                self.settings.expert_parallel && self.architecture.experts.is_some() && tensor > 1;

            match self.legal(&split(asked)) {
                Ok(()) => found.push(split(asked)),
                // Expert parallelism keeps an expert's width whole where it does not divide.
                Err(_)
                    if tensor > 1
                        && self.architecture.experts.is_some()
                        && self.legal(&split(true)).is_ok() =>
                {
                    found.push(split(true));
                }
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
        self.legal(split)
    }

    fn uneven(&self) -> bool {
        use crate::model::architecture::Task;
        !matches!(self.architecture.task, Task::Encode | Task::EncodeDecode)
    }

    fn moves_to_host(&self) -> bool {
        self.settings.cpu_offload_bytes > 0
    }

    fn ranks_are_processes(&self) -> bool {
        true
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

        fitness(&demands, device)
    }

    fn fixed(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
    ) -> Result<Vec<Component>, EngineError> {
        let details = &self.details;
        let told: [(Basis, &str); 6] = [
            (Basis::Formula, &details.weights),
            (Basis::Calibrated, &details.activations),
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
            .zip(told)
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
        let Some([tokens, states, tables]) = self.variable_parts(split, rank, workload)? else {
            return Ok(Vec::new());
        };

        let part =
            |name, bytes, detail: &str| Component::between(name, bytes, Basis::Formula, detail);
        let mut parts = vec![part(ComponentName::KvCache, tokens, &self.details.cache)];
        if states.high > Bytes::ZERO {
            parts.push(part(
                ComponentName::State,
                states,
                "recurrent states, in pages of the cache",
            ));
        }

        parts.push(part(
            ComponentName::Runtime,
            tables,
            "block tables and gather buffers",
        ));

        Ok(parts)
    }

    fn variable_sum(
        &self,
        split: &Split,
        rank: usize,
        _device: &DeviceFacts,
        workload: Workload,
    ) -> Result<Interval, EngineError> {
        Ok(self
            .variable_parts(split, rank, workload)?
            .into_iter()
            .flatten()
            .sum())
    }

    fn host(&self, split: &Split, _workload: Workload) -> Result<Vec<Component>, EngineError> {
        let off = Bytes::new(self.settings.cpu_offload_bytes) * split.ranks() as u64;
        if off == Bytes::ZERO {
            return Ok(Vec::new());
        }

        Ok(vec![Component::exact(
            ComponentName::Host,
            off,
            Basis::Formula,
            "pinned by cpu_offload_gb on every rank",
        )])
    }

    fn must_be_available(&self, _split: &Split, _device: &DeviceFacts, sum: Interval) -> Interval {
        // Without a share of the asker's own, the launch line takes what the figures say and no
        // more.
        sum
    }

    fn share(&self, split: &Split, rank: usize, device: &DeviceFacts) -> Option<Share> {
        let millionths = self.settings.asked_share?;
        let inside = device
            .cuda_total()
            .unwrap_or(device.total_bytes)
            .scale(millionths, 1_000_000);
        let outside = self.outside(split, rank, device);
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

/// The figures that vLLM's start-up log prints of one rank.
#[derive(Clone, Copy, Debug)]
pub struct StartUpLog {
    /// "Model loading took".
    pub weights: Interval,
    /// Peak of the profile beside weights.
    pub activations: Interval,
    /// Memory beside torch that grew since the snapshot.
    pub non_torch: Interval,
    /// "Graph capturing finished ... took".
    pub graphs: Interval,
}

impl VllmPrepared<'_> {
    /// What the log of `rank` would print: for holding the figures against measured ones.
    pub fn start_up_log(&self, split: &Split, rank: usize, device: &DeviceFacts) -> StartUpLog {
        StartUpLog {
            weights: self.weights(split, rank),
            activations: self.activations(split, rank),
            non_torch: self
                .library_growth(split)
                .plus(self.communication_growth(split, device)),
            graphs: self.graphs(split, rank, device),
        }
    }

    /// Blocks that `bytes` of cache on every rank give: the least over all stages.
    pub fn blocks_in(&self, split: &Split, bytes: Bytes) -> u64 {
        let pages = self.pages(split);
        let of = |rank| {
            bytes.get()
                / pages
                    .bytes_per_block(&self.layers, &self.cached(split, rank))
                    .get()
                    .max(1)
        };

        (0..split.ranks()).map(of).min().unwrap_or(0)
    }

    /// "GPU KV cache size" in tokens as this release logs it for `blocks` blocks.
    pub fn logged_tokens(&self, split: &Split, blocks: u64) -> u64 {
        let pages = self.pages(split);
        if !self.constants.capacity_by_request {
            return pages.logged_tokens(blocks);
        }

        let context = self.settings.workload.context;
        let each = pages.blocks(&self.layers, context);
        let each = each.tokens.saturating_add(each.states).max(1);

        u64::try_from(u128::from(blocks) * u128::from(context) / u128::from(each))
            .unwrap_or(u64::MAX)
    }

    /// Bytes of cache on one rank for one sequence of the settled context: "KV cache is needed".
    pub fn needed_for_one(&self, split: &Split, rank: usize) -> Interval {
        let range = self.cached(split, rank);
        let pages = self.pages(split);
        let blocks = pages.blocks(&self.layers, self.settings.workload.context);
        let bytes = pages.bytes_per_block(&self.layers, &range)
            * blocks.tokens.saturating_add(blocks.states);
        Interval::new(bytes, bytes, pages.doubt(bytes))
    }
}
