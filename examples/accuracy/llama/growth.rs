//! Growth of a process's total with the context.

use std::collections::BTreeMap;

use hf_mem_core::engines::llama_cpp::LlamaCpp;
use hf_mem_core::engines::{AskedWorkload, Engine, EngineRequest};
use hf_mem_core::model::Inventory;

use super::MIB;
use super::models::model;
use super::parameters::{device, parameters};
use super::rows::LlamaLogRow;
use crate::score::Scores;

/// Compares the growth of two totals that differ only in the context.
///
/// Both are of one process on one device.
pub(super) fn growth(
    rows: &[LlamaLogRow],
    corpus: &BTreeMap<String, Inventory>,
    scores: &mut Scores,
) {
    for (index, small) in rows.iter().enumerate() {
        for large in rows
            .iter()
            .skip(index + 1)
            .filter(|large| comparable_key(large) == comparable_key(small))
        {
            let (Some(less), Some(more)) = (total_mib(small), total_mib(large)) else {
                continue;
            };

            // Speculation has its own context, without figures here.
            if small.number("n_ctx") >= large.number("n_ctx")
                || small.notes().contains("with built-in MTP")
            {
                continue;
            }

            if let (Some(first), Some(second)) =
                (variable_mib(small, corpus), variable_mib(large, corpus))
            {
                let (measured, ours) = (more - less, second - first);
                let label = format!("{} and {}", small.label(), large.text("id"));

                // nvidia-smi counts in MiB, twice.
                scores.number(
                    "total's growth with context, MiB",
                    &label,
                    measured,
                    ours,
                    (measured - ours).abs() <= 2.0,
                );
            }
        }
    }
}

/// A key of the settings that two comparable rows share.
fn comparable_key(row: &LlamaLogRow) -> String {
    let settings = [
        "engine_version",
        "model",
        "file_type",
        "gpu_names",
        "kv_type_k",
        "flash_attn",
    ];

    settings.map(|key| row.0[key].to_string()).join("|")
        + row.notes().split('.').next().unwrap_or_default()
}

fn total_mib(row: &LlamaLogRow) -> Option<f64> {
    row.0["total_used_mib"]["GPU0"].as_f64()
}

/// Our memory that depends on the context, in MiB.
fn variable_mib(row: &LlamaLogRow, corpus: &BTreeMap<String, Inventory>) -> Option<f64> {
    let (model, _) = model(row, corpus).ok()?;
    let (devices, parameters) = ([device()], parameters(row));
    let request = EngineRequest {
        model: &model,
        version: None,
        parameters: &parameters,
        asked: AskedWorkload::default(),
        devices: &devices,
    };

    let prepared = LlamaCpp.prepare(&request).ok()?;
    let split = prepared.splits(1).ok()?.remove(0);
    let parts = prepared
        .variable(&split, 0, &devices[0], prepared.workload())
        .ok()?;
    let bytes: u64 = parts.iter().map(|part| part.bytes.likely.get()).sum();

    Some(bytes as f64 / MIB)
}
