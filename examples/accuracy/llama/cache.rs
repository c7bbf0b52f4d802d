//! Caches and states of measured rows.

use hf_mem_core::bytes::Bytes;
use hf_mem_core::engines::{Component, ComponentName};

use super::rows::LlamaLogRow;
use super::{MIB, total};
use crate::score::Scores;

/// Why a cache differs from today's llama.cpp: a known layout that gives the measured MiB.
fn known_layout(
    row: &LlamaLogRow,
    parts: &[Component],
    ours: f64,
    measured: f64,
) -> Option<&'static str> {
    let meta = &row.0["gguf_metadata"];
    let cells = row.number("n_ctx").unwrap_or(0);
    let matches_measured = |mib: f64| (mib - measured).abs() <= (0.001 * measured).max(0.02);

    if row.text("engine") == "ik_llama.cpp" && row.text("arch").starts_with("deepseek2") {
        return Some("ik_llama.cpp has its own latent layouts (mla_attn 1 to 3)");
    }

    let next_token = meta["nextn_predict_layers"].as_u64().unwrap_or(0);
    if row.text("engine") == "ik_llama.cpp"
        && let Some(layers) = meta["block_count"]
            .as_u64()
            .filter(|layers| *layers > next_token)
        && matches_measured(ours * layers as f64 / (layers - next_token) as f64)
    {
        return Some("ik_llama.cpp keeps a cache for next-token layers");
    }

    let padded = cells.next_multiple_of(256) as f64;
    if matches_measured(ours * cells as f64 / padded) {
        return Some("older builds padded cells to 32");
    }

    let kinds = row.text("kv_type_k") == "f16" && row.text("kv_type_v") == "f16";
    let metadata_number = |key: &str| meta[key].as_u64().unwrap_or(0) as f64;
    let rank = metadata_number("attention.kv_lora_rank");
    let layers = metadata_number("block_count");
    if kinds
        && rank > 0.0
        && matches_measured(
            cells as f64 * layers * 2.0 * (2.0 * rank + metadata_number("rope.dimension_count"))
                / MIB,
        )
    {
        return Some("builds of 2025 kept a value row in addition to the latent");
    }

    let full = cells as f64 * layers * metadata_number("attention.head_count_kv") * 2.0 / MIB
        * (metadata_number("attention.key_length") + metadata_number("attention.value_length"));
    if kinds && !meta["attention.sliding_window"].is_null() && matches_measured(full) {
        return Some("builds before the windowed cache (May 2025) kept all layers whole");
    }

    if total(parts, ComponentName::KvCache).likely == Bytes::ZERO
        && row.build().is_none_or(|build| build < 5700)
    {
        return Some("builds of early 2025 reserved a cache for encoders");
    }

    None
}

/// Compares the measured cache with ours.
pub(super) fn cache(row: &LlamaLogRow, label: &str, parts: &[Component], scores: &mut Scores) {
    let Some(measured) = row.sum("kv_buffer_mib") else {
        return;
    };

    let ours = total(parts, ComponentName::KvCache);
    let mib = ours.likely.get() as f64 / MIB;
    let exact = (mib - measured).abs() <= (0.001 * measured).max(0.02);

    // The fork prints states inside the cache's buffer.
    let with_states = mib + total(parts, ComponentName::State).likely.get() as f64 / MIB;
    if !exact
        && row.text("engine") == "ik_llama.cpp"
        && (with_states - measured).abs() <= (0.001 * measured).max(0.02)
    {
        return scores.number(
            "cache, MiB (exact to 0.1 %)",
            label,
            measured,
            with_states,
            true,
        );
    }

    if !exact && let Some(why) = known_layout(row, parts, mib, measured) {
        return scores.skip(&format!("cache: {why}"), label);
    }

    scores.number("cache, MiB (exact to 0.1 %)", label, measured, mib, exact);
}

/// Compares the measured states with ours.
pub(super) fn states(row: &LlamaLogRow, label: &str, parts: &[Component], scores: &mut Scores) {
    let Some(measured) = row.sum("recurrent_buffer_mib") else {
        return;
    };

    let mib = total(parts, ComponentName::State).likely.get() as f64 / MIB;
    let rounding = if measured.fract() == 0.0 { 0.5 } else { 0.02 };
    let exact = (mib - measured).abs() <= (0.001 * measured).max(rounding);
    scores.number("states, MiB (exact to 0.1 %)", label, measured, mib, exact);
}
