//! The command that starts vLLM with what the answer says.

use std::collections::BTreeMap;

use super::VllmPrepared;
use super::settings::{CHUNKED_WITH_MANAGER, share_text};
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::engines::shared::launch_arguments::{LaunchArguments, cuda_environment};
use crate::engines::shared::topology::vllm_stages;
use crate::engines::{Interval, Launch, LaunchDevice, LaunchPlan, Split};

/// The step of the shares that the command line gives, in millionths: a ten-thousandth.
const SHARE_STEP: u64 = 100;

/// A whole device in millionths.
const WHOLE: u64 = 1_000_000;

impl VllmPrepared<'_> {
    /// Writes the environment and the arguments for `plan`.
    pub(super) fn launch_line(&self, plan: &LaunchPlan<'_>) -> Launch {
        let share = self.settings.asked_share.or_else(|| self.share_for(plan));
        let takes = plan
            .devices
            .iter()
            .enumerate()
            .map(|(rank, device)| Some(self.taken_with_share(plan.split, rank, device, share?)))
            .collect();

        Launch {
            env: self.environment(plan),
            args: self.arguments(plan, share),
            takes,
        }
    }

    fn environment(&self, plan: &LaunchPlan<'_>) -> BTreeMap<String, String> {
        let settings = &self.settings;
        let mut env = cuda_environment(plan);

        if let Some(enabled) = settings.chunked_windows {
            let switch = if enabled { "1" } else { "0" };
            env.insert(CHUNKED_WITH_MANAGER.to_owned(), switch.to_owned());
        }

        let stages = &plan.split.stages;
        let count = u32::try_from(stages.len()).unwrap_or(u32::MAX);
        if count > 1 && *stages != vllm_stages(self.architecture.layer_count(), count) {
            let widths: Vec<String> = stages.iter().map(|stage| stage.len().to_string()).collect();
            env.insert("VLLM_PP_LAYER_PARTITION".to_owned(), widths.join(","));
        }

        env
    }

    fn arguments(&self, plan: &LaunchPlan<'_>, share: Option<u64>) -> Vec<String> {
        let settings = &self.settings;
        let identity = &self.model.identity;
        let mut arguments = LaunchArguments::new(&["vllm", "serve", &identity.repo]);
        arguments.optional_flag("revision", identity.revision.as_ref());

        if plan.split.tensor > 1 {
            arguments.flag("tensor-parallel-size", &plan.split.tensor);
        }

        if plan.split.stages.len() > 1 {
            arguments.flag("pipeline-parallel-size", &plan.split.stages.len());
        }

        arguments.flag("max-model-len", &plan.workload.context);

        // The limits that enter the activations must be in force, whatever vLLM's defaults for this
        // GPU are.
        arguments.flag(
            "max-num-seqs",
            &settings.max_sequences.max(plan.workload.sequences),
        );
        arguments.flag("max-num-batched-tokens", &settings.batched_tokens);

        if settings.kv.is_quantized() {
            let name = match &*settings.kv_name {
                "fp8_ds_mla" => "fp8",
                name => name,
            };
            arguments.flag("kv-cache-dtype", name);
        }

        if settings.given.contains("dtype") {
            arguments.flag("dtype", settings.compute.name());
        }

        arguments.optional_flag("block-size", settings.block_tokens.as_ref());
        arguments.optional_flag("quantization", settings.online_name.as_ref());

        if settings.cpu_offload_bytes > 0 {
            let millionths = Bytes::new(settings.cpu_offload_bytes).scale(WHOLE, 1 << 30);
            arguments.flag("cpu-offload-gb", &share_text(millionths.get()));
        }

        if let Some((adapters, rank)) = settings.lora {
            arguments.flag("max-loras", &adapters);
            arguments.flag("max-lora-rank", &rank);
        }

        if settings.context_parallel > 1 {
            arguments.flag("decode-context-parallel-size", &settings.context_parallel);
        }

        if let Some(share) = share {
            arguments.flag("gpu-memory-utilization", &share_text(share));
        } else {
            // The byte count then sizes the cache, but vLLM still refuses to start unless the share
            // is free (`v1/worker/utils.py`, `request_memory`).
            arguments.flag("gpu-memory-utilization", &share_text(self.free_share(plan)));
            arguments.flag("kv-cache-memory-bytes", &self.cache_bytes(plan).get());
        }

        arguments.switch("enable-expert-parallel", plan.split.expert_parallel);
        arguments.switch("enforce-eager", settings.eager);
        arguments.switch("enable-lora", settings.lora.is_some());
        arguments.switch(
            "disable-hybrid-kv-cache-manager",
            settings.given.contains("disable_hybrid_kv_cache_manager") && !settings.hybrid_manager,
        );
        arguments.switch(
            "language-model-only",
            settings.given.contains("language_model_only") && !settings.towers,
        );
        arguments.extend(&settings.flags);

        arguments.into_vec()
    }

    /// Bytes that vLLM takes on `device` with `share` of it.
    fn taken_with_share(
        &self,
        split: &Split,
        rank: usize,
        device: &LaunchDevice<'_>,
        share: u64,
    ) -> Bytes {
        cuda_total(device).scale(share, WHOLE) + self.outside_share(split, rank, device.facts).high
    }

    /// The smallest share that covers the need on every device; `None` if it is not free on each.
    fn share_for(&self, plan: &LaunchPlan<'_>) -> Option<u64> {
        let mut share = SHARE_STEP;
        for (rank, device) in plan.devices.iter().enumerate() {
            let budgeted = device
                .required
                .less(self.outside_share(plan.split, rank, device.facts).high)?;
            let needed = budgeted.scale(WHOLE, cuda_total(device).get().max(1));
            share = share.max(needed.round_up(SHARE_STEP).get());
        }

        let is_free = plan.devices.iter().enumerate().all(|(rank, device)| {
            share <= WHOLE
                && self.taken_with_share(plan.split, rank, device, share) <= device.available
        });
        is_free.then_some(share)
    }

    /// The largest share that is free on every device after context and communication took theirs.
    fn free_share(&self, plan: &LaunchPlan<'_>) -> u64 {
        plan.devices
            .iter()
            .enumerate()
            .map(|(rank, device)| {
                let outside = self.outside_share(plan.split, rank, device.facts).high;
                let left = device.available.less(outside).unwrap_or_default();
                let share = left.scale(WHOLE, cuda_total(device).get().max(1)).get();
                share / SHARE_STEP * SHARE_STEP
            })
            .min()
            .unwrap_or(SHARE_STEP)
            .clamp(SHARE_STEP, WHOLE)
    }

    /// The memory outside vLLM's share: context and communication from before its snapshot, and
    /// graphs if the release does not budget them.
    pub(super) fn outside_share(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
    ) -> Interval {
        let before = self
            .context(device)
            .plus(self.communication_before(split, device));

        if self.constants.graphs_in_budget {
            before
        } else {
            before.plus(self.graphs(split, rank, device))
        }
    }

    /// Cache bytes for the workload on the rank that needs most: the flag holds for every GPU.
    fn cache_bytes(&self, plan: &LaunchPlan<'_>) -> Bytes {
        (0..plan.split.ranks())
            .map(|rank| {
                let (tokens, states) = self.cache(plan.split, rank, plan.workload);
                tokens.high + states.high
            })
            .max()
            .unwrap_or_default()
    }
}

/// The memory of a device that CUDA can allocate, which vLLM takes its share of.
pub(super) fn cuda_total(device: &LaunchDevice<'_>) -> Bytes {
    device
        .facts
        .cuda_total()
        .unwrap_or(device.facts.total_bytes)
}
