//! Weights of measured rows.

use hf_mem_core::engines::{ComponentName, PreparedEngine, Split};

use super::parameters::device;
use super::rows::LlamaLogRow;
use super::{MIB, total};
use crate::score::Scores;

/// Compares the measured weights on the devices with ours.
pub(super) fn weights(
    row: &LlamaLogRow,
    label: &str,
    prepared: &dyn PreparedEngine,
    split: &Split,
    scores: &mut Scores,
) {
    let buffers = row.buffers("model_buffer_mib");
    let on_gpus: f64 = buffers
        .iter()
        .filter(|(name, _)| !name.contains("CPU"))
        .map(|(_, mib)| mib)
        .sum();

    let whole = row.number("layers_offloaded").is_some()
        && row.number("layers_offloaded") == row.number("layers_total");
    if !whole || on_gpus == 0.0 {
        return scores.skip("weights: only part of the layers on devices", label);
    }

    let Ok(parts) = prepared.fixed(split, 0, &device()) else {
        return;
    };

    let mib = total(&parts, ComponentName::Weights).likely.get() as f64 / MIB;
    scores.number(
        "weights on devices, MiB (0.1 %)",
        label,
        on_gpus,
        mib,
        (mib - on_gpus).abs() <= 0.001 * on_gpus,
    );
}
