//! Checkpoints of recurrent states that kernels export during prefill.
//!
//! With prefix caching, vLLM keeps the state at a block boundary. A kernel that exports the state
//! from inside a prefill saves a split of the prompt, and vLLM reserves a block for the export.
//!
//! Sources: vLLM 0.33 `v1/kv_cache_interface.py` (`MambaSpec.max_memory_usage_bytes`),
//! `layers/mamba/mamba_mixer2.py` and `layers/mamba/gdn/qwen_gdn_linear_attn.py`
//! (`_resolve_gdn_prefill_backend`, `get_kv_cache_spec`).

use std::num::NonZero;

use super::constants::Constants;
use crate::model::architecture::Recurrent;

/// The head width that FlashInfer's kernels of gated delta nets take beyond compute capability 9.0.
const BLACKWELL_KEY_DIM: u64 = 128;

/// The family whose gated delta nets never run on FlashInfer (`olmo_gdn_linear_attn.py`).
const NEVER_FLASHINFER: &str = "olmo_hybrid";

/// The blocks that one state's checkpoints take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checkpoints {
    /// Blocks of one sequence.
    pub blocks: u64,
    /// Whether every CUDA runtime has the kernel.
    pub certain: bool,
    /// The kernel exports states at multiples of this number of tokens; vLLM's blocks become
    /// multiples of it. `None` if the kernel states none.
    pub tokens: Option<NonZero<u64>>,
}

/// The rules of checkpoints for one release and device.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckpointRules {
    /// Blocks of a Mamba-2 state.
    pub mamba2_blocks: u64,
    /// Blocks of a gated delta net's state.
    pub gated_delta_blocks: u64,
    /// Tokens between two exports of a gated delta net.
    pub gated_delta_tokens: u64,
    /// Compute capability of the device, as 90 for 9.0.
    pub capability: Option<u32>,
}

impl CheckpointRules {
    /// The rules of a release for a family on a device of `capability`.
    pub(super) fn new(constants: &Constants, family: &str, capability: Option<u32>) -> Self {
        let gated_delta_blocks = if family == NEVER_FLASHINFER {
            0
        } else {
            constants.gated_delta_checkpoint_blocks
        };

        Self {
            mamba2_blocks: constants.mamba2_checkpoint_blocks,
            gated_delta_blocks,
            gated_delta_tokens: constants.gated_delta_checkpoint_tokens,
            capability,
        }
    }

    /// The checkpoints of `state`.
    pub(super) const fn of(self, state: &Recurrent) -> Checkpoints {
        match *state {
            Recurrent::Mamba2 { .. } => Checkpoints {
                blocks: self.mamba2_blocks,
                certain: true,
                tokens: None,
            },
            Recurrent::GatedDelta { key_dim, .. } => self.gated_delta(key_dim),
            _ => Checkpoints {
                blocks: 0,
                certain: true,
                tokens: None,
            },
        }
    }

    /// The checkpoints of a gated delta net, which FlashInfer's kernel alone exports.
    ///
    /// On Hopper it runs with every CUDA runtime, on Blackwell since 13, which the wheels have.
    const fn gated_delta(self, key_dim: u64) -> Checkpoints {
        let (runs, certain) = match self.capability {
            Some(90) => (true, true),
            Some(100..110 | 120..130) => (key_dim == BLACKWELL_KEY_DIM, false),
            // A device of unknown capability may be any of these.
            None => (true, false),
            Some(_) => (false, true),
        };

        if runs && self.gated_delta_blocks > 0 {
            Checkpoints {
                blocks: self.gated_delta_blocks,
                certain,
                tokens: NonZero::new(self.gated_delta_tokens),
            }
        } else {
            Checkpoints {
                blocks: 0,
                certain: true,
                tokens: None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATED_DELTA: Recurrent = Recurrent::GatedDelta {
        key_heads: 16,
        value_heads: 32,
        key_dim: 128,
        value_dim: 128,
        conv: 4,
    };

    fn rules(capability: Option<u32>) -> CheckpointRules {
        CheckpointRules {
            mamba2_blocks: 1,
            gated_delta_blocks: 1,
            gated_delta_tokens: 64,
            capability,
        }
    }

    #[test]
    fn gated_delta_exports_need_flashinfer() {
        for (capability, blocks, certain) in [
            (Some(80), 0, true),
            (Some(89), 0, true),
            (Some(90), 1, true),
            (Some(100), 1, false),
            (Some(110), 0, true),
            (Some(120), 1, false),
            (None, 1, false),
        ] {
            let found = rules(capability).of(&GATED_DELTA);
            assert_eq!(
                (found.blocks, found.certain),
                (blocks, certain),
                "{capability:?}"
            );
            assert_eq!(found.tokens.is_some(), blocks > 0, "{capability:?}");
        }
    }

    #[test]
    fn short_convolutions_export_nothing() {
        let state = Recurrent::ShortConv {
            width: 2048,
            conv: 3,
        };
        assert_eq!(rules(Some(90)).of(&state).blocks, 0);
    }
}
