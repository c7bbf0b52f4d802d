//! The command that makes vLLM take what was answered.

use std::collections::BTreeMap;

use super::VllmPrepared;
use super::settings::{CHUNKED_WITH_MANAGER, share_text};
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::engines::shared::topology::vllm_stages;
use crate::engines::{
    CacheCapacity, EngineError, Interval, Launch, LaunchDevice, LaunchPlan, PreparedEngine as _,
    Split,
};

/// Shares are given in steps of a ten-thousandth.
const SHARE_STEP: u64 = 100;

impl VllmPrepared<'_> {
    pub(super) fn launch_line(&self, plan: &LaunchPlan<'_>) -> Launch {
        let settings = &self.settings;
        let mut env = BTreeMap::from([("CUDA_DEVICE_ORDER".to_owned(), "PCI_BUS_ID".to_owned())]);

        let uuids: Vec<&str> = plan
            .devices
            .iter()
            .map(|device| &*device.facts.uuid)
            .collect();
        env.insert("CUDA_VISIBLE_DEVICES".to_owned(), uuids.join(","));

        if settings.given.contains(CHUNKED_WITH_MANAGER) && settings.hybrid_manager {
            env.insert(CHUNKED_WITH_MANAGER.to_owned(), "1".to_owned());
        }

        let mut args: Vec<String> = vec![
            "vllm".to_owned(),
            "serve".to_owned(),
            self.model.identity.repo.clone(),
        ];
        let mut flag = |name: &str, value: String| args.extend([format!("--{name}"), value]);
        if let Some(revision) = &self.model.identity.revision {
            flag("revision", revision.clone());
        }

        let stages = plan.split.stages.len();
        if plan.split.tensor > 1 {
            flag("tensor-parallel-size", plan.split.tensor.to_string());
        }

        if stages > 1 {
            flag("pipeline-parallel-size", stages.to_string());
            let layers = self.architecture.layer_count();
            if plan.split.stages != vllm_stages(layers, u32::try_from(stages).unwrap_or(u32::MAX)) {
                let widths: Vec<String> = plan
                    .split
                    .stages
                    .iter()
                    .map(|stage| stage.len().to_string())
                    .collect();
                env.insert("VLLM_PP_LAYER_PARTITION".to_owned(), widths.join(","));
            }
        }

        flag("max-model-len", plan.workload.context.to_string());

        // What enters the activations must be in force, whatever vLLM would default on this GPU.
        flag(
            "max-num-seqs",
            settings
                .max_sequences
                .max(plan.workload.sequences)
                .to_string(),
        );

        flag(
            "max-num-batched-tokens",
            settings.batched_tokens.to_string(),
        );
        if settings.kv.is_quantized() {
            flag(
                "kv-cache-dtype",
                if settings.kv_name == "fp8_ds_mla" {
                    "fp8".to_owned()
                } else {
                    settings.kv_name.clone()
                },
            );
        }

        if settings.given.contains("dtype") {
            flag("dtype", settings.compute.name().to_owned());
        }

        if let Some(block) = settings.block_tokens {
            flag("block-size", block.to_string());
        }

        if let Some(method) = &settings.online_name {
            flag("quantization", method.clone());
        }

        if settings.cpu_offload_bytes > 0 {
            flag(
                "cpu-offload-gb",
                share_text(
                    Bytes::new(settings.cpu_offload_bytes)
                        .scale(1_000_000, 1 << 30)
                        .get(),
                ),
            );
        }

        if let Some((adapters, rank)) = settings.lora {
            flag("max-loras", adapters.to_string());
            flag("max-lora-rank", rank.to_string());
        }

        if settings.context_parallel > 1 {
            flag(
                "decode-context-parallel-size",
                settings.context_parallel.to_string(),
            );
        }

        let share = settings.asked_share.or_else(|| self.share_for(plan));
        if let Some(share) = share {
            flag("gpu-memory-utilization", share_text(share));
        } else {
            // The share is not what sizes the cache then, but vLLM still refuses to start unless it
            // is free (`v1/worker/utils.py`, `request_memory`).
            flag("gpu-memory-utilization", share_text(self.free_share(plan)));
            flag(
                "kv-cache-memory-bytes",
                self.cache_bytes(plan).get().to_string(),
            );
        }

        let switches = [
            (plan.split.expert_parallel, "--enable-expert-parallel"),
            (settings.eager, "--enforce-eager"),
            (settings.lora.is_some(), "--enable-lora"),
            (
                settings.given.contains("disable_hybrid_kv_cache_manager")
                    && !settings.hybrid_manager,
                "--disable-hybrid-kv-cache-manager",
            ),
            (
                settings.given.contains("language_model_only") && !settings.towers,
                "--language-model-only",
            ),
        ];
        args.extend(
            switches
                .iter()
                .filter(|(on, _)| *on)
                .map(|(_, switch)| (*switch).to_owned()),
        );

        args.extend(settings.flags.iter().cloned());
        let takes = plan.devices.iter().enumerate().map(|(rank, device)| {
            let share = share?;
            Some(
                cuda_total(device).scale(share, 1_000_000)
                    + self.outside(plan.split, rank, device.facts).high,
            )
        });

        Launch {
            env,
            takes: takes.collect(),
            args,
        }
    }

    /// The smallest share that holds the need on every device; `None` where that share is not free
    /// everywhere.
    fn share_for(&self, plan: &LaunchPlan<'_>) -> Option<u64> {
        let mut share = SHARE_STEP;
        for (rank, device) in plan.devices.iter().enumerate() {
            let budgeted = device
                .required
                .less(self.outside(plan.split, rank, device.facts).high)?;
            let needed = budgeted.scale(1_000_000, cuda_total(device).get().max(1));
            share = share.max(needed.round_up(SHARE_STEP).get());
        }

        let free = |(rank, device): (usize, &LaunchDevice<'_>)| {
            let taken = cuda_total(device).scale(share, 1_000_000)
                + self.outside(plan.split, rank, device.facts).high;
            share <= 1_000_000 && taken <= device.available
        };

        plan.devices.iter().enumerate().all(free).then_some(share)
    }

    /// The largest share that is free on every device once context and communication have taken
    /// theirs.
    fn free_share(&self, plan: &LaunchPlan<'_>) -> u64 {
        let free = |(rank, device): (usize, &LaunchDevice<'_>)| {
            let left = device
                .available
                .less(self.outside(plan.split, rank, device.facts).high)
                .unwrap_or_default();
            left.scale(1_000_000, cuda_total(device).get().max(1)).get() / SHARE_STEP * SHARE_STEP
        };

        plan.devices
            .iter()
            .enumerate()
            .map(free)
            .min()
            .unwrap_or(SHARE_STEP)
            .clamp(SHARE_STEP, 1_000_000)
    }

    /// What vLLM holds outside its share: context and communication from before its snapshot, and
    /// graphs where the release does not budget them.
    pub(super) fn outside(&self, split: &Split, rank: usize, device: &DeviceFacts) -> Interval {
        let before = self
            .context(device)
            .plus(self.communication_before(split, device));

        if self.constants.graphs_in_budget {
            before
        } else {
            before.plus(self.graphs(split, rank, device))
        }
    }

    /// The cache that a server has that was given a share, as its log says it. Without one, the
    /// workload sizes the cache.
    pub(super) fn cache_capacity(
        &self,
        plan: &LaunchPlan<'_>,
    ) -> Result<Option<CacheCapacity>, EngineError> {
        let Some(share) = self.settings.asked_share else {
            return Ok(None);
        };

        let (mut blocks, mut low_blocks) = (u64::MAX, u64::MAX);

        for (rank, device) in plan.devices.iter().enumerate() {
            let Some((room, low_room)) = self.cache_room(plan, rank, device, share)? else {
                return Ok(None);
            };

            let block = self
                .pages(plan.split)
                .bytes_per_block(&self.layers, &self.cached(plan.split, rank));
            let block = block.get().max(1);
            (blocks, low_blocks) = (
                blocks.min(room.get() / block),
                low_blocks.min(low_room.get() / block),
            );
        }

        let each = self
            .pages(plan.split)
            .blocks(&self.layers, plan.workload.context);
        let each = each.tokens.saturating_add(each.states);
        if each == 0 || plan.devices.is_empty() {
            return Ok(None);
        }

        let hundredths = u128::from(blocks) * 100 / u128::from(each);
        Ok(Some(CacheCapacity {
            tokens: self.logged_tokens(plan.split, blocks),
            low_tokens: self.logged_tokens(plan.split, low_blocks),
            concurrency_hundredths: u64::try_from(hundredths).unwrap_or(u64::MAX),
        }))
    }

    /// Bytes that `share` leaves `rank` for its cache: as a rule, and at the least. `None` for a
    /// model without a cache.
    fn cache_room(
        &self,
        plan: &LaunchPlan<'_>,
        rank: usize,
        device: &LaunchDevice<'_>,
        share: u64,
    ) -> Result<Option<(Bytes, Bytes)>, EngineError> {
        let Some([_, _, tables]) = self.variable_parts(plan.split, rank, plan.workload)? else {
            return Ok(None);
        };

        let others = self.fixed_sum(plan.split, rank, device.facts)?.plus(tables);
        let taken = Interval::exact(cuda_total(device).scale(share, 1_000_000)).plus(self.outside(
            plan.split,
            rank,
            device.facts,
        ));

        let left = |taken: Bytes, others: Bytes| taken.less(others).unwrap_or_default();
        Ok(Some((
            left(taken.likely, others.likely),
            left(taken.high, others.high),
        )))
    }

    /// Cache bytes by GPU for the workload: the largest rank's, for the flag holds for all of them.
    fn cache_bytes(&self, plan: &LaunchPlan<'_>) -> Bytes {
        let of = |rank| {
            let (tokens, states) = self.cache(plan.split, rank, plan.workload);
            tokens.high + states.high
        };
        (0..plan.split.ranks()).map(of).max().unwrap_or_default()
    }
}

fn cuda_total(device: &LaunchDevice<'_>) -> Bytes {
    device
        .facts
        .cuda_total()
        .unwrap_or(device.facts.total_bytes)
}
