//! Rows of measured vLLM start-up logs, and the settings that they state.

use std::collections::BTreeMap;

use hf_mem_core::engines::EngineVersion;
use serde_json::{Value, json};

use super::exceptions::RELEASES;

/// A measured row.
pub(super) struct LogRow<'v>(pub(super) &'v Value);

impl LogRow<'_> {
    pub(super) fn number(&self, key: &str) -> Option<f64> {
        self.0.get(key).and_then(Value::as_f64)
    }

    pub(super) fn count(&self, key: &str) -> Option<u64> {
        self.0.get(key).and_then(Value::as_u64)
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(Value::as_str)
    }
}

pub(super) fn label(row: &LogRow<'_>, name: &str) -> String {
    let tensor = row.count("tensor_parallel").unwrap_or(1);
    let stages = row.count("pipeline_parallel").unwrap_or(1);
    let version = row.text("engine_version").unwrap_or("?");
    format!(
        "{name} {version} {} TP{tensor} PP{stages}",
        row.text("gpu_name").unwrap_or("?")
    )
}

/// The row's release, or the release by other evidence.
pub(super) fn version(row: &LogRow<'_>) -> Option<EngineVersion> {
    let model = row
        .0
        .get("model")
        .and_then(Value::as_str)
        .unwrap_or_default();

    if row
        .0
        .get("notes")
        .and_then(Value::as_str)
        .is_some_and(|notes| notes.contains("Marlin"))
    {
        return None;
    }

    let by_evidence = RELEASES
        .iter()
        .find(|(name, _, _)| *name == model)
        .map(|(_, version, _)| *version);

    row.0
        .get("engine_version")
        .and_then(Value::as_str)
        .or(by_evidence)?
        .parse()
        .ok()
}

pub(super) fn modern(row: &LogRow<'_>) -> bool {
    version(row).is_none_or(|version| version.is_at_least(&[0, 17]))
}

pub(super) fn parameters(row: &LogRow<'_>) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for key in [
        "max_num_seqs",
        "max_num_batched_tokens",
        "kv_cache_dtype",
        "block_size",
    ] {
        if let Some(value) = row.0.get(key).filter(|value| !value.is_null()) {
            all.insert(key.to_owned(), value.clone());
        }
    }

    if row.0.get("enforce_eager") == Some(&Value::Bool(true)) {
        all.insert("enforce_eager".to_owned(), json!(true));
    }

    let model = row.text("model").unwrap_or_default();
    if model.contains("w8a8") {
        all.insert(
            "quantization".to_owned(),
            json!("int8_per_channel_weight_only"),
        );
    } else if row.text("quantization") == Some("fp8") && !model.contains("Qwen3") {
        all.insert("quantization".to_owned(), json!("fp8"));
    }

    let notes = row.text("notes").unwrap_or_default();
    if notes.contains("MTP n=3") {
        all.insert("num_speculative_tokens".to_owned(), json!(3));
    }

    if notes.contains("MTP on") {
        all.insert("num_speculative_tokens".to_owned(), json!(1));
    }

    if model == "Qwen/Qwen3.6-35B-A3B" {
        // Its 64.69 GiB equal the text model's to the log's rounding, so the tower was not loaded.
        all.insert("language_model_only".to_owned(), json!(true));
    }

    if let Some(degree) = notes
        .split("decode_context_parallel_size=")
        .nth(1)
        .and_then(|rest| rest.get(..1))
    {
        all.extend(
            degree
                .parse::<u64>()
                .ok()
                .map(|degree| ("decode_context_parallel_size".to_owned(), json!(degree))),
        );
    }

    all
}
