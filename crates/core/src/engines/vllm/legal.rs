//! Which splits vLLM accepts, and why not.
//!
//! Source: vLLM 0.33 `config/model.py` (`verify_with_parallel_config`), in addition to
//! [`split_rules`](crate::engines::shared::split_rules).

use super::VllmPrepared;
use super::weights::VOCABULARY_STEP;
use crate::engines::shared::split_rules::{check_stages, check_tensor_parallel, illegal};
use crate::engines::{IllegalSplit, Offload, Split};
use crate::model::Architecture;
use crate::model::architecture::Mixer;

impl VllmPrepared<'_> {
    /// Checks that vLLM runs `split`.
    pub(super) fn check_split(&self, split: &Split) -> Result<(), IllegalSplit> {
        if split.offload != Offload::None {
            return illegal(
                "vLLM cannot keep a number of layers or experts on the host; use cpu_offload_gb",
            );
        }

        check_stages(self.architecture, split)?;
        let tensor = u64::from(split.tensor);
        if tensor > 1 && self.architecture.is_looped() {
            return illegal(format!(
                "the weights of {} over several ranks are not counted yet",
                self.architecture.class
            ));
        }

        let parallel = self.settings.context_parallel;
        if parallel > 1 && !tensor.is_multiple_of(parallel) {
            return illegal(format!(
                "decode_context_parallel_size {parallel} does not divide tensor parallelism \
                 {tensor}"
            ));
        }

        if parallel > 1 {
            check_context_parallel(self.architecture, tensor, parallel)?;
        }

        if let Some(draft) = &self.draft {
            draft.check_split(split)?;
        }

        let asked = self
            .settings
            .speculation
            .and_then(|speculation| speculation.draft_tensor);
        if let Some(degree) = asked.filter(|degree| *degree != tensor) {
            return illegal(format!(
                "draft_tensor_parallel_size {degree} is not the tensor parallelism {tensor} of the \
                 model, at which the draft is counted"
            ));
        }

        check_tensor_parallel(
            self.architecture,
            tensor,
            split.expert_parallel,
            VOCABULARY_STEP,
        )
    }
}

/// Checks that the ranks that share a sequence's tokens would otherwise hold copies of the same
/// heads (`ModelConfig`, `verify_with_parallel_config`).
///
/// Every rank holds a copy of a latent. Ranks hold copies of KV heads if there are more ranks than
/// heads.
fn check_context_parallel(
    architecture: &Architecture,
    tensor: u64,
    parallel: u64,
) -> Result<(), IllegalSplit> {
    for layer in &architecture.layers {
        for mixer in layer.mixers() {
            let Mixer::Attention(attention) = mixer else {
                continue;
            };

            let copies = tensor / attention.kv_heads.max(1);
            if copies < parallel {
                return illegal(format!(
                    "decode_context_parallel_size {parallel} is more than the {copies} ranks that \
                     share a KV head: {} heads over tensor parallelism {tensor}",
                    attention.kv_heads
                ));
            }
        }
    }

    Ok(())
}
