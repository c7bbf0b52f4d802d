//! Contexts, slots and their layout in the cache.
//!
//! Source: llama.cpp `src/llama-context.cpp` (`llama_context::llama_context`),
//! `tools/server/server.cpp` (default: four slots over one cache).

use super::cache::{CELL_PADDING, Layout};
use super::draft::snapshots;
use super::flash_kernels::AttentionMode;
use super::parameters::{ENGINE, LlamaParameters, cache_type};
use super::profile::LlamaProfile;
use crate::engines::{AskedContext, AskedWorkload, EngineError, Workload};
use crate::model::Dtype;
use crate::model::architecture::Architecture;

/// The effective parameters, the same for every split.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a separate switch")]
pub(crate) struct EffectiveParams {
    pub(crate) workload: Workload,
    /// Minimum number of slots.
    pub(crate) slots: u64,
    /// Whether all slots share one cache.
    pub(crate) unified: bool,
    pub(crate) n_batch: u64,
    pub(crate) n_ubatch: u64,
    pub(crate) keys: Dtype,
    pub(crate) values: Dtype,
    pub(crate) attention: AttentionMode,
    pub(crate) swa_full: bool,
    /// Whether a quantized cache has rotation matrices.
    rotates: bool,
    /// Whether the keys of an indexer in F16 have them too.
    rotates_index: bool,
    /// Copies of each slot's states.
    snapshots: u64,
}

impl EffectiveParams {
    /// Resolves parameters and the requested workload.
    pub(crate) fn new(
        parameters: &LlamaParameters,
        asked: &AskedWorkload,
        profile: &LlamaProfile,
        architecture: &Architecture,
    ) -> Result<Self, EngineError> {
        if let (Some(slots), Some(sequences)) = (parameters.n_parallel, asked.sequences)
            && slots < sequences
        {
            return Err(bad_parameter(
                "n_parallel",
                slots,
                format!("fewer slots than the {sequences} requested sequences"),
            ));
        }

        let chosen = parameters.n_parallel.or(asked.sequences);
        let unified = parameters
            .kv_unified
            .unwrap_or(chosen.is_none() && profile.slots > 1);
        let slots = chosen.unwrap_or(profile.slots).max(1);

        // Slots with their own cache each hold a sequence. Slots that share a cache serve one whole
        // context.
        let sequences = asked
            .sequences
            .unwrap_or(if unified { 1 } else { slots })
            .max(1);
        let Some(max_context) = architecture.max_context.filter(|tokens| *tokens > 0) else {
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
                return Err(bad_parameter(
                    "n_ctx",
                    total,
                    format!("less than the requested {sequences} x {tokens} tokens"),
                ));
            }
            (_, Some(AskedContext::Tokens(tokens))) => tokens,
            // The sequences share `n_ctx`.
            (Some(total), _) => total / sequences,
            (None, _) => max_context,
        };

        let asked_type = requested_cache_type(asked)?;
        let keys = parameters.type_k.or(asked_type).unwrap_or(Dtype::F16);
        let values = parameters.type_v.or(asked_type).unwrap_or(Dtype::F16);

        let attention = AttentionMode::new(architecture, parameters, profile, [keys, values]);
        if attention == AttentionMode::Scores && values.block().0 > 1 {
            return Err(EngineError::BadParameter {
                engine: ENGINE,
                name: "type_v".to_owned(),
                value: values.to_string(),
                why: "a quantised V cache needs flash attention".to_owned(),
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
            attention,
            swa_full: parameters.swa_full,
            rotates: profile.rotates_cache,
            rotates_index: architecture.class != "hy_v4",
            snapshots: snapshots(parameters, architecture),
        })
    }

    /// Slots for `workload`.
    pub(crate) fn slots(&self, workload: Workload) -> u64 {
        self.slots.max(workload.sequences)
    }

    /// The value of `-c` for `workload`.
    pub(crate) fn total_context(&self, workload: Workload) -> u64 {
        if self.unified {
            padded_cells(workload.context.saturating_mul(workload.sequences))
        } else {
            padded_cells(workload.context).saturating_mul(self.slots(workload))
        }
    }

    /// The cache layout for `workload`.
    pub(crate) fn layout(&self, workload: Workload) -> Layout {
        let slots = self.slots(workload);
        let total = self.total_context(workload);
        let streams = if self.unified { 1 } else { slots };
        let context = total / streams.max(1);

        Layout {
            context,
            streams,
            slots,
            snapshots: self.snapshots,
            // `n_batch = min(n_ctx, n_batch)` for causal models.
            ubatch: self.n_ubatch.min(total),
            swa_full: self.swa_full,
            keys: self.keys,
            values: self.values,
            attention: self.attention,
            rotates: self.rotates,
            rotates_index: self.rotates_index,
        }
    }
}

/// `tokens` rounded up to whole blocks of cells.
fn padded_cells(tokens: u64) -> u64 {
    tokens
        .checked_next_multiple_of(CELL_PADDING)
        .unwrap_or(u64::MAX)
}

/// The requested cache type; `None` for `auto`.
fn requested_cache_type(asked: &AskedWorkload) -> Result<Option<Dtype>, EngineError> {
    let name = asked.kv_cache_dtype.as_deref();
    let Some(name) = name.filter(|name| *name != "auto") else {
        return Ok(None);
    };

    cache_type(name)
        .map(Some)
        .ok_or_else(|| EngineError::BadParameter {
            engine: ENGINE,
            name: "type_k".to_owned(),
            value: name.to_owned(),
            why: "known cache types: f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, iq4_nl"
                .to_owned(),
        })
}

fn bad_parameter(name: &str, value: u64, why: String) -> EngineError {
    EngineError::BadParameter {
        engine: ENGINE,
        name: name.to_owned(),
        value: value.to_string(),
        why,
    }
}
