//! The command that starts SGLang with what the answer says.

use super::SglangPrepared;
use super::draft::SglangDraft;
use super::settings::fraction_text;
use crate::bytes::Bytes;
use crate::engines::shared::launch_arguments::{LaunchArguments, cuda_environment};
use crate::engines::{Launch, LaunchDevice, LaunchPlan};

impl SglangPrepared<'_> {
    /// Writes the environment and the arguments for `plan`.
    pub(super) fn launch_line(&self, plan: &LaunchPlan<'_>) -> Launch {
        let takes = plan.devices.iter().map(|device| {
            self.settings
                .server_sizes_pool
                .then(|| self.server_sized_bytes(plan, device))
        });

        Launch {
            env: cuda_environment(plan),
            args: self.arguments(plan),
            takes: takes.collect(),
        }
    }

    fn arguments(&self, plan: &LaunchPlan<'_>) -> Vec<String> {
        let settings = &self.settings;
        let identity = &self.model.identity;
        let mut arguments = LaunchArguments::new(&[
            "python3",
            "-m",
            "sglang.launch_server",
            "--model-path",
            &identity.repo,
        ]);
        arguments.optional_flag("revision", identity.revision.as_ref());

        if plan.split.tensor > 1 {
            arguments.flag("tp-size", &plan.split.tensor);
        }

        if plan.split.stages.len() > 1 {
            arguments.flag("pp-size", &plan.split.stages.len());
        }

        if plan.split.expert_parallel {
            arguments.flag("ep-size", &plan.split.tensor);
        }

        arguments.flag("context-length", &plan.workload.context);
        arguments.flag("chunked-prefill-size", &settings.chunk);

        if !settings.server_sizes_pool {
            arguments.flag("max-total-tokens", &self.token_slots(plan.workload));
        }

        arguments.optional_flag("max-running-requests", settings.max_running.as_ref());
        arguments.optional_flag(
            "mem-fraction-static",
            self.launch_fraction(plan).map(fraction_text).as_ref(),
        );

        if settings.kv.is_quantized() {
            let name = match &*settings.kv_name {
                "fp8" => "fp8_e4m3",
                "nvfp4" => "fp4_e2m1",
                name => name,
            };
            arguments.flag("kv-cache-dtype", name);
        }

        if settings.given.contains("dtype") {
            arguments.flag("dtype", settings.compute.name());
        }

        if settings.given.contains("swa_full_tokens_ratio") {
            arguments.flag("swa-full-tokens-ratio", &fraction_text(settings.swa_ratio));
        }

        arguments.switch("disable-cuda-graph", !settings.graphs);
        arguments.switch("disable-radix-cache", !settings.radix);
        arguments.extend(&settings.flags);
        if let Some(speculation) = settings.speculation {
            let draft = self.draft.as_ref().map(SglangDraft::model);
            arguments.extend(&speculation.flags(draft));
        }

        arguments.into_vec()
    }

    /// `mem_fraction_static` for the launch line, in millionths; `None` if the server's own default
    /// applies.
    ///
    /// It is a fraction of the memory that is free at start: what remains for pools and weights
    /// after the reserve, on the device with the least of it.
    fn launch_fraction(&self, plan: &LaunchPlan<'_>) -> Option<u64> {
        let settings = &self.settings;
        if settings.asked_fraction.is_some() || settings.server_sizes_pool {
            return settings.asked_fraction;
        }

        plan.devices
            .iter()
            .map(|device| {
                let free = device.free.unwrap_or(device.available).get().max(1);
                let reserve = self.reserve(plan.split, device.facts).get();
                let budget =
                    u128::from(free.saturating_sub(reserve)) * 1_000_000 / u128::from(free);
                u64::try_from(budget).unwrap_or(0)
            })
            .min()
    }

    /// Bytes that a server takes when it sizes its pool itself.
    ///
    /// Weights and pool fill the server's fraction of the memory that is free after its context,
    /// and the steps take from the rest.
    fn server_sized_bytes(&self, plan: &LaunchPlan<'_>, device: &LaunchDevice<'_>) -> Bytes {
        let free = device.free.unwrap_or(device.available);
        let context = self.context(device.facts).high;
        let left = free.less(context).unwrap_or_default();
        let filled = left.scale(self.fraction(plan.split, device.facts), 1_000_000);
        (context + filled + self.transient(plan.split, device.facts)).min(free)
    }
}
