//! llama.cpp, its forks and Ollama: buffers as the start-up log prints them, in MiB by device.

mod cache;
mod compute;
mod growth;
mod models;
mod parameters;
mod rows;
mod weights;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use hf_mem_core::engines::llama_cpp::LlamaCpp;
use hf_mem_core::engines::{
    AskedWorkload, Component, ComponentName, Engine, EngineRequest, Interval,
};
use hf_mem_core::model::Inventory;

use self::cache::{cache, states};
use self::compute::compute;
use self::growth::growth;
use self::models::{described, model};
use self::parameters::{device, parameters};
use self::rows::{LlamaLogRow, lend_metadata};
use self::weights::weights;
use crate::score::Scores;

const MIB: f64 = 1_048_576.0;

/// Prints the table.
pub(crate) fn run(measured: &Path, hub: &Path) -> Result<(), Box<dyn Error>> {
    let corpus = described(&hub.join("gguf/described"))?;
    let mut scores = Scores::default();
    let text = std::fs::read_to_string(measured)?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let mut rows = lines
        .map(|line| serde_json::from_str(line).map(LlamaLogRow))
        .collect::<Result<Vec<LlamaLogRow>, _>>()?;
    lend_metadata(&mut rows);

    for row in &rows {
        score(row, &corpus, &mut scores);
    }

    growth(&rows, &corpus, &mut scores);
    scores.print("llama.cpp");

    Ok(())
}

/// Why a row cannot be compared.
fn skip_reason(row: &LlamaLogRow) -> Option<&'static str> {
    let buffers = [
        "kv_buffer_mib",
        "recurrent_buffer_mib",
        "compute_buffer_mib",
        "model_buffer_mib",
    ];

    if buffers.iter().all(|key| row.0[*key].is_null()) {
        return Some("no buffers: only a total of the whole process");
    }

    if row.text("engine") == "koboldcpp" {
        return Some("koboldcpp of 2023: sums in MB with scratch");
    }

    if row.number("n_ctx").is_none() {
        return Some("the log does not give n_ctx");
    }

    if row.notes().contains("with MTP") {
        return Some("with a context for multi-token prediction");
    }

    if row.text("engine_version").starts_with("fork") {
        return Some("a fork's llama-bench, whose settings the row does not give");
    }

    None
}

/// Compares all figures of a row.
fn score(row: &LlamaLogRow, corpus: &BTreeMap<String, Inventory>, scores: &mut Scores) {
    let label = row.label();
    scores.select_model(&row.model_name());
    if let Some(why) = skip_reason(row) {
        return scores.skip(why, &label);
    }

    let (model, in_corpus) = match model(row, corpus) {
        Ok(model) => model,
        Err(why) => return scores.skip(&why, &label),
    };

    let (devices, given) = ([device()], parameters(row));

    // Rows without a build number and a header are of 2026.
    let recent = row
        .build()
        .map_or(row.0["lent"] == serde_json::Value::Bool(true), |build| {
            build >= 10_450
        });
    let Ok(version) = (if recent { "b10450" } else { "b4000" }).parse() else {
        return;
    };

    let request = EngineRequest {
        model: &model,
        version: Some(&version),
        parameters: &given,
        asked: AskedWorkload::default(),
        devices: &devices,
    };

    let prepared = match LlamaCpp.prepare(&request) {
        Ok(prepared) => prepared,
        Err(why) => return scores.skip(&why.to_string(), &label),
    };

    let Ok(mut splits) = prepared.splits(1) else {
        return scores.skip("no split", &label);
    };

    let split = splits.remove(0);
    let parts = prepared.variable(&split, 0, &devices[0], prepared.workload());
    let host = prepared.host(&split, prepared.workload());
    let (mut parts, host) = match (parts, host) {
        (Ok(parts), Ok(host)) => (parts, host),
        (Err(why), _) | (_, Err(why)) => return scores.skip(&why.to_string(), &label),
    };

    // A cache on the host counts as well.
    parts.extend(
        host.into_iter()
            .filter(|part| part.detail.contains("cache"))
            .map(|part| Component {
                name: ComponentName::KvCache,
                ..part
            }),
    );

    cache(row, &label, &parts, scores);
    states(row, &label, &parts, scores);
    compute(row, &label, &model, &*prepared, &split, scores);

    if in_corpus {
        weights(row, &label, &*prepared, &split, scores);
    } else if row.sum("model_buffer_mib").is_some() {
        scores.skip("weights: the file's tensors are not in the corpus", &label);
    }
}

fn total(parts: &[Component], name: ComponentName) -> Interval {
    parts
        .iter()
        .filter(|part| part.name == name)
        .map(|part| part.bytes)
        .sum()
}
