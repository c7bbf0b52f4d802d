//! Rows of measured llama.cpp start-up logs.

use std::collections::BTreeMap;

use serde_json::Value;

/// A measured row.
pub(super) struct LlamaLogRow(pub(super) Value);

impl LlamaLogRow {
    pub(super) fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_default()
    }

    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.0[key].as_u64()
    }

    /// Buffers by device, in MiB.
    pub(super) fn buffers(&self, key: &str) -> Vec<(&str, f64)> {
        let by = self.0[key].as_object().into_iter().flatten();
        by.filter_map(|(device, mib)| Some((device.as_str(), mib.as_f64()?)))
            .collect()
    }

    pub(super) fn sum(&self, key: &str) -> Option<f64> {
        let all = self.buffers(key);
        (!all.is_empty()).then(|| all.iter().map(|(_, mib)| mib).sum())
    }

    pub(super) fn label(&self) -> String {
        let file = self.0["model_file"].as_str().unwrap_or(self.text("model"));
        let file = file.rsplit('/').next().unwrap_or(file);

        format!(
            "{} {} {}",
            self.text("id"),
            self.text("engine"),
            file.get(..40).unwrap_or(file)
        )
    }

    /// The model's name without case and separators.
    pub(super) fn model_name(&self) -> String {
        self.text("model")
            .to_lowercase()
            .replace([' ', '-', '_'], "")
    }

    fn has_metadata(&self) -> bool {
        self.0["gguf_metadata"]["block_count"].is_u64()
    }

    pub(super) fn notes(&self) -> &str {
        self.text("notes")
    }

    /// llama.cpp's build number, if the row has one.
    pub(super) fn build(&self) -> Option<u64> {
        let text = self.text("engine_version").trim_start_matches('b');
        let end = text
            .find(|letter: char| !letter.is_ascii_digit())
            .unwrap_or(text.len());
        text[..end].parse().ok().filter(|build| *build < 100_000)
    }
}

/// Copies metadata into rows without it from another log of the same model.
///
/// A row that names no model neither lends nor borrows.
pub(super) fn lend_metadata(rows: &mut [LlamaLogRow]) {
    let known: BTreeMap<String, Value> = rows
        .iter()
        .rev()
        .filter(|row| row.has_metadata() && !row.model_name().is_empty())
        .map(|row| (row.model_name(), row.0["gguf_metadata"].clone()))
        .collect();

    for row in rows {
        if !row.has_metadata()
            && row.text("engine") == "llama.cpp"
            && let Some(metadata) = known.get(&row.model_name())
        {
            row.0["gguf_metadata"] = metadata.clone();
            row.0["lent"] = Value::Bool(true);
        }
    }
}
