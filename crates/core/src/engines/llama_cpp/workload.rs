//! Contexts, slots and how they lie in the cache.
//!
//! Source: llama.cpp `src/llama-context.cpp` (`llama_context::llama_context`),
//! `tools/server/server.cpp` (four slots over one cache where no number was given).

use super::cache::{CELL_PADDING, Layout};
use super::parameters::{ENGINE, LlamaParameters, cache_type};
use super::profile::LlamaProfile;
use crate::engines::{AskedContext, AskedWorkload, EngineError, Workload};
use crate::model::Dtype;

/// What was settled before any split: everything but the context of the moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EffectiveParams {
    pub(crate) workload: Workload,
    /// Slots, at least.
    pub(crate) slots: u64,
    /// All slots share one cache.
    pub(crate) unified: bool,
    pub(crate) n_batch: u64,
    pub(crate) n_ubatch: u64,
    pub(crate) keys: Dtype,
    pub(crate) values: Dtype,
    pub(crate) flash_attention: bool,
    pub(crate) swa_full: bool,
}

impl EffectiveParams {
    /// Settles parameters and what was asked. `longest` is the model's own context.
    pub(crate) fn new(
        parameters: &LlamaParameters,
        asked: &AskedWorkload,
        profile: &LlamaProfile,
        longest: Option<u64>,
    ) -> Result<Self, EngineError> {
        let conflict = |name: &str, value: u64, why: String| {
            Err(EngineError::BadParameter {
                engine: ENGINE,
                name: name.to_owned(),
                value: value.to_string(),
                why,
            })
        };

        if let (Some(slots), Some(sequences)) = (parameters.n_parallel, asked.sequences)
            && slots < sequences
        {
            return conflict(
                "n_parallel",
                slots,
                format!("fewer slots than the {sequences} sequences asked for"),
            );
        }

        let chosen = parameters.n_parallel.or(asked.sequences);
        let unified = parameters
            .kv_unified
            .unwrap_or(chosen.is_none() && profile.slots > 1);
        let slots = chosen.unwrap_or(profile.slots).max(1);

        // Slots with a cache of their own are all there to be used; slots that share one serve one
        // whole context.
        let sequences = asked
            .sequences
            .unwrap_or(if unified { 1 } else { slots })
            .max(1);
        let Some(longest) = longest.filter(|tokens| *tokens > 0) else {
            let why = "context_length is missing, so the default context is unknown".to_owned();
            return Err(EngineError::Unsupported {
                engine: ENGINE,
                why,
            });
        };

        let context = match (parameters.n_ctx, asked.context) {
            (Some(total), Some(AskedContext::Tokens(tokens)))
                if total < tokens.saturating_mul(sequences) =>
            {
                return conflict(
                    "n_ctx",
                    total,
                    format!("less than {sequences} x {tokens} tokens asked for"),
                );
            }
            (_, Some(AskedContext::Tokens(tokens))) => tokens,
            // `n_ctx` is shared out over the sequences.
            (Some(total), _) => total / sequences,
            (None, _) => longest,
        };

        let asked_type = asked
            .kv_cache_dtype
            .as_deref()
            .filter(|name| *name != "auto")
            .map(|name| {
                cache_type(name).ok_or_else(|| EngineError::BadParameter {
                    engine: ENGINE,
                    name: "type_k".to_owned(),
                    value: name.to_owned(),
                    why: "known cache types: f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, iq4_nl"
                        .to_owned(),
                })
            });
        let asked_type = asked_type.transpose()?;
        let keys = parameters.type_k.or(asked_type).unwrap_or(Dtype::F16);
        let values = parameters.type_v.or(asked_type).unwrap_or(Dtype::F16);

        // `auto` turns flash attention on wherever the device has a kernel; CUDA has one for all
        // common shapes.
        let flash_attention = parameters.flash_attn.unwrap_or(true);
        if !flash_attention && values.block().0 > 1 {
            let (name, value) = ("type_v".to_owned(), values.to_string());
            let why = "a quantised V cache needs flash attention".to_owned();
            return Err(EngineError::BadParameter {
                engine: ENGINE,
                name,
                value,
                why,
            });
        }

        let workload = Workload {
            context: context.max(1),
            sequences,
        };

        let batch = parameters.n_batch.unwrap_or(profile.n_batch);
        Ok(Self {
            workload,
            slots,
            unified,
            n_batch: batch,
            n_ubatch: parameters.n_ubatch.unwrap_or(profile.n_ubatch).min(batch),
            keys,
            values,
            flash_attention,
            swa_full: parameters.swa_full,
        })
    }

    /// Slots for `workload`.
    pub(crate) fn slots(&self, workload: Workload) -> u64 {
        self.slots.max(workload.sequences)
    }

    /// What `-c` must say for `workload`.
    pub(crate) fn total_context(&self, workload: Workload) -> u64 {
        let pad = |tokens: u64| {
            tokens
                .checked_next_multiple_of(CELL_PADDING)
                .unwrap_or(u64::MAX)
        };

        if self.unified {
            pad(workload.context.saturating_mul(workload.sequences))
        } else {
            pad(workload.context).saturating_mul(self.slots(workload))
        }
    }

    /// The cache for `workload`.
    pub(crate) fn layout(&self, workload: Workload) -> Layout {
        let slots = self.slots(workload);
        let total = self.total_context(workload);
        let streams = if self.unified { 1 } else { slots };
        let context = total / streams.max(1);

        Layout {
            context,
            streams,
            slots,
            // `n_batch = min(n_ctx, n_batch)` for causal models.
            ubatch: self.n_ubatch.min(total),
            swa_full: self.swa_full,
            keys: self.keys,
            values: self.values,
            flash_attention: self.flash_attention,
        }
    }
}
