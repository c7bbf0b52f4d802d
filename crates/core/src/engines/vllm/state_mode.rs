//! How vLLM's prefix caching keeps recurrent states, by release.

use super::constants::Constants;
use super::refusal::ENGINE;
use crate::engines::EngineError;
use crate::engines::shared::parameters::Parameters;
use crate::model::Architecture;
use crate::model::architecture::{Mixer, Recurrent};

/// How recurrent states take part in prefix caching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateMode {
    /// They do not: one state a sequence.
    None,
    /// vLLM keeps states at block boundaries: one more state a sequence.
    Align,
}

impl StateMode {
    /// vLLM's name for the mode.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Align => "align",
        }
    }
}

/// Whether prefix caching keeps states.
///
/// vLLM turns prefix caching on unless the model has no attention (`config/model.py`,
/// `is_prefix_caching_supported`); before 0.28 hybrids had to opt in. The mode follows from it,
/// whatever `mamba_cache_mode` says (`models/config.py`, `MambaModelConfig`).
///
/// Before 0.32 the mode `all` keeps a state at every block, which is not counted. Before 0.28 it is
/// the default of Mamba layers with prefix caching.
pub(super) fn state_mode(
    given: &Parameters,
    architecture: &Architecture,
    constants: &Constants,
) -> Result<StateMode, EngineError> {
    let prefix_caching = given
        .flag("enable_prefix_caching")?
        .unwrap_or_else(|| constants.hybrid_prefix_caching && !is_attention_free(architecture));

    let mode = given.word("mamba_cache_mode")?;
    if mode.is_some_and(|mode| !["none", "align", "all"].contains(&mode)) {
        return Err(given.bad("mamba_cache_mode", "known: none, align, all"));
    }

    let all_states = match mode {
        Some(mode) => mode == "all",
        None => !constants.hybrid_prefix_caching && has_mamba_states(architecture),
    };
    if prefix_caching && constants.keeps_all_states && all_states && has_states(architecture) {
        return Err(EngineError::UnsupportedParameter {
            engine: ENGINE,
            name: "mamba_cache_mode".to_owned(),
            value: "all".to_owned(),
            why: "not counted yet (a state at every block of a prompt); set it to align, or turn \
                  prefix caching off"
                .to_owned(),
        });
    }

    Ok(if prefix_caching {
        StateMode::Align
    } else {
        StateMode::None
    })
}

/// Whether a layer has a recurrent state.
fn has_states(architecture: &Architecture) -> bool {
    architecture
        .mixers(0..architecture.layer_count())
        .any(|mixer| matches!(mixer, Mixer::Recurrent(_)))
}

/// Whether a layer has a state of Mamba or Mamba-2.
fn has_mamba_states(architecture: &Architecture) -> bool {
    architecture
        .mixers(0..architecture.layer_count())
        .any(|mixer| {
            matches!(
                mixer,
                Mixer::Recurrent(Recurrent::Mamba1 { .. } | Recurrent::Mamba2 { .. })
            )
        })
}

/// Whether no layer has attention of any kind.
fn is_attention_free(architecture: &Architecture) -> bool {
    architecture
        .mixers(0..architecture.layer_count())
        .all(|mixer| matches!(mixer, Mixer::Recurrent(_) | Mixer::None))
}
