//! The limits of one step: sequences and batched tokens, by GPU, model and version.

use super::constants::Constants;
use crate::device::DeviceFacts;
use crate::engines::shared::parameters::Parameters;
use crate::engines::{EngineError, Workload};
use crate::model::architecture::Task;

/// The longest context that releases before 0.8 prefill at once.
const WHOLE_PREFILL_TOKENS: u64 = 32_768;

/// The compute capability of GB10, 12.1, which takes the smaller defaults.
const GB10_CAPABILITY: u32 = 121;

/// The facts of the first device that vLLM's defaults depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct GpuClass {
    /// Compute capability, as 90 for 9.0.
    pub(super) capability: Option<u32>,
    /// Whether vLLM takes its larger defaults.
    large: bool,
    /// Whether the device is as large as only SM10x cards are.
    pub(super) huge: bool,
}

impl GpuClass {
    pub(super) fn new(device: &DeviceFacts, constants: &Constants) -> Self {
        let total_gib = device.total_bytes.get() >> 30;
        let capability = device.capability();

        Self {
            capability,
            large: total_gib >= constants.large_gpu_gib
                && !device.name.to_ascii_lowercase().contains("a100")
                && capability != Some(GB10_CAPABILITY),
            huge: total_gib >= constants.huge_gpu_gib,
        }
    }
}

/// The limits of one step.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepLimits {
    pub(super) max_sequences: u64,
    pub(super) batched_tokens: u64,
}

impl StepLimits {
    /// Resolves both limits (`arg_utils.py`, `_set_default_max_num_seqs_and_batched_tokens_args`).
    pub(super) fn resolve(
        given: &Parameters,
        task: Task,
        constants: &Constants,
        gpu: GpuClass,
        workload: Workload,
    ) -> Result<Self, EngineError> {
        let asked_sequences = given.positive("max_num_seqs")?;
        if asked_sequences.is_some_and(|limit| limit < workload.sequences) {
            return Err(given.bad(
                "max_num_seqs",
                format!(
                    "is less than the {} sequences asked for",
                    workload.sequences
                ),
            ));
        }

        let default_sequences = if gpu.large {
            constants.sequences_large
        } else {
            constants.sequences_small
        };
        let max_sequences = asked_sequences.unwrap_or(default_sequences.max(workload.sequences));

        let whole_prefill = prefills_at_once(given, constants, workload.context)?;
        let default_tokens = default_tokens(constants, gpu)
            .min(max_sequences.saturating_mul(workload.context))
            .max(1);

        // A model that cannot chunk its prefill (encoders, pooling) takes a whole sequence in one
        // step.
        let default_tokens = if whole_prefill || task != Task::Generate {
            default_tokens.max(workload.context)
        } else {
            default_tokens
        };

        let asked_tokens = given.positive("max_num_batched_tokens")?;
        let batched_tokens = asked_tokens.unwrap_or(default_tokens);

        // A step holds at least a token of every sequence
        // (`SchedulerConfig.verify_max_model_len`).
        let needed = asked_sequences.unwrap_or(workload.sequences);
        if asked_tokens.is_some_and(|tokens| tokens < needed) {
            return Err(given.bad(
                "max_num_batched_tokens",
                format!("is less than the {needed} sequences of a step"),
            ));
        }

        // Only an asked number of sequences may exceed the tokens of a step (`arg_utils.py`).
        let max_sequences = if asked_sequences.is_none() {
            max_sequences.min(batched_tokens)
        } else {
            max_sequences
        };

        Ok(Self {
            max_sequences,
            batched_tokens,
        })
    }
}

const fn default_tokens(constants: &Constants, gpu: GpuClass) -> u64 {
    if gpu.huge {
        constants.batched_tokens_huge
    } else if gpu.large {
        constants.batched_tokens_large
    } else {
        constants.batched_tokens_small
    }
}

/// Whether vLLM prefills a whole prompt at once.
///
/// Releases before 0.8 do so by default unless the context is longer than 32,768 tokens.
fn prefills_at_once(
    given: &Parameters,
    constants: &Constants,
    context: u64,
) -> Result<bool, EngineError> {
    let chunked = given.flag("enable_chunked_prefill")?;
    Ok(match chunked {
        Some(chunked) => !chunked,
        None => constants.whole_prefill && context <= WHOLE_PREFILL_TOKENS,
    })
}
