//! Models whose layers run several times, and variants that llama.cpp runs without a cache.
//!
//! Each time has a cache of its own; the tensors exist once (llama.cpp `src/models/nanbeige.cpp`,
//! `src/models/hrm-text.cpp`).

use super::keys::Keys;
use crate::model::architecture::{Layer, Unsupported};

/// `LLAMA_MAX_LAYERS`.
const MAX_LAYERS: u64 = 512;

/// Checks the keys that the families' loaders check, or that change what a model remembers.
pub(super) fn check(keys: &Keys<'_>) -> Result<(), Unsupported> {
    if keys.family == "lfm3" && keys.flag("attention.causal") == Some(false) {
        let why = "a decision model without a cache, whose buffers are unknown";
        return Err(keys.contradiction("attention.causal", "false".to_owned(), why));
    }

    if keys.family == "granite_swa" && keys.has("deepstack_mapping") {
        let why = "its inputs for images are unknown";
        return Err(keys.contradiction("deepstack_mapping", "a list".to_owned(), why));
    }

    if keys.family != "hrm_text" {
        return Ok(());
    }

    let stack = keys.positive("hrm.layers_per_stack")?;
    let (high, low) = (
        keys.positive("hrm.h_cycles")?,
        keys.positive("hrm.l_cycles")?,
    );
    let slots = stack
        .saturating_mul(high)
        .saturating_mul(low.saturating_add(1));
    let stated = keys.positive("block_count")?;
    if slots == stated {
        return Ok(());
    }

    let why = format!("the cycles take {slots}");
    Err(keys.contradiction("block_count", stated.to_string(), &why))
}

/// Returns whether the model runs its layers more than once.
pub(super) fn runs_layers_again(keys: &Keys<'_>) -> Result<bool, Unsupported> {
    Ok(match keys.family {
        "nanbeige" => keys.optional("num_loops")?.unwrap_or(1) > 1,
        "hrm_text" => true,
        _ => false,
    })
}

/// Repeats all `layers` as often as the model runs them.
pub(super) fn repeat(keys: &Keys<'_>, layers: &mut Vec<Layer>) -> Result<(), Unsupported> {
    if keys.family != "nanbeige" {
        return Ok(());
    }

    let loops = keys.optional("num_loops")?.unwrap_or(1);
    let all = loops.saturating_mul(layers.len() as u64);
    if loops == 0 || all > MAX_LAYERS {
        let why = "not between 1 and what llama.cpp can hold";
        return Err(keys.contradiction("num_loops", loops.to_string(), why));
    }

    let once = layers.clone();
    for _ in 1..loops {
        layers.extend(once.iter().cloned());
    }

    Ok(())
}
