//! SGLang's start-up logs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::engines::sglang::{Sglang, SglangPrepared};
use hf_mem_core::engines::shared::topology::sglang_stages;
use hf_mem_core::engines::{
    AskedContext, AskedWorkload, EngineRequest, EngineVersion, Offload, PreparedEngine as _, Split,
};
use hf_mem_core::model::Model;
use serde_json::{Value, json};

use crate::score::{Bar, Scores};
use crate::{devices, vllm};

/// Reads the rows, prints SGLang's table, and returns whether its bars are reached.
pub(crate) fn run(rows: &Path, hub: &Path) -> Result<bool, String> {
    let text = fs::read_to_string(rows).map_err(|error| format!("{}: {error}", rows.display()))?;
    let mut scores = Scores::default();
    let engine = Sglang::with_profiles(Sglang::profiles().map_err(|error| error.to_string())?);

    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let row: Value =
            serde_json::from_str(line).map_err(|error| format!("{}: {error}", rows.display()))?;
        if row["engine"].as_str() != Some("sglang") {
            continue;
        }

        let name = row["model"].as_str().unwrap_or_default();
        let label = format!(
            "{name} {} {}",
            row["engine_version"].as_str().unwrap_or("?"),
            row["gpu_name"].as_str().unwrap_or("?")
        );

        scores.select_model(&vllm::repository(name));
        match vllm::find(hub, name) {
            Err(_) => scores.skip("model not in the folder", &label),
            Ok(model) => {
                if let Err(why) = score(&mut scores, &engine, &model, &row, &label) {
                    scores.skip(&why, &label);
                }
            }
        }
    }

    scores.print("SGLang");
    Ok(scores.bars(&[
        Bar::new("weights", None, Some(2.0), 97.0),
        Bar::new("KV bytes per token, to rounding", None, None, 98.0),
        Bar::new("pool tokens", None, None, 95.0),
    ]))
}

fn score(
    scores: &mut Scores,
    engine: &Sglang,
    model: &Model,
    row: &Value,
    label: &str,
) -> Result<(), String> {
    if row["data_parallel"]
        .as_u64()
        .is_some_and(|degree| degree > 1)
    {
        return Err("attention by data parallelism, which is not supported".to_owned());
    }

    let device = devices::named(row["gpu_name"].as_str().unwrap_or("H100"))
        .or_else(|| devices::named("H100"));
    let device = [device.ok_or("no device")?];
    let mut parameters = BTreeMap::new();

    for (key, name) in [
        ("gpu_memory_utilization", "mem_fraction_static"),
        ("max_num_batched_tokens", "chunked_prefill_size"),
    ] {
        if let Some(value) = row.get(key).filter(|value| !value.is_null()) {
            parameters.insert(name.to_owned(), value.clone());
        }
    }

    if let Some(kv) = row.get("kv_cache_dtype").filter(|kv| kv.is_string()) {
        parameters.insert("kv_cache_dtype".to_owned(), kv.clone());
    }

    // SGLang's figure includes RoBERTa's two positions for padding, ours does not.
    let max_context = model
        .architecture
        .as_ref()
        .ok()
        .and_then(|read| read.max_context)
        .unwrap_or(u64::MAX);
    let context = row["max_model_len"]
        .as_u64()
        .map(|tokens| AskedContext::Tokens(tokens.min(max_context)));
    let asked = AskedWorkload {
        context,
        dtype: row["dtype"].as_str().map(str::to_owned),
        ..AskedWorkload::default()
    };

    let version: Option<EngineVersion> = row["engine_version"]
        .as_str()
        .and_then(|version| version.parse().ok());
    // Releases before have no pages.
    let has_pages = |version: &EngineVersion| version.is_at_least(&[0, 3, 7]);
    if version.as_ref().is_none_or(has_pages) {
        parameters.insert("page_size".to_owned(), json!(1));
    }

    let request = EngineRequest {
        model,
        version: version.as_ref(),
        parameters: &parameters,
        asked,
        devices: &device,
    };

    let prepared = engine
        .prepare(&request)
        .map_err(|error| error.to_string())?;
    let tensor = u32::try_from(row["tensor_parallel"].as_u64().unwrap_or(1)).unwrap_or(1);

    let layers = model
        .architecture
        .as_ref()
        .map_err(ToString::to_string)?
        .layer_count();
    let split = Split {
        tensor,
        stages: sglang_stages(layers, 1),
        expert_parallel: false,
        offload: Offload::None,
    };

    prepared.check(&split).map_err(|error| error.to_string())?;
    let headers = !model.inventory.classes.is_empty();
    if !headers {
        scores.skip("weights only: the headers are not available", label);
    }

    if let Some(measured) = row["weights_gib_per_gpu"].as_f64().filter(|_| headers) {
        scores.gib(
            "weights",
            label,
            measured,
            prepared.weights(&split, 0),
            0.01,
        );
    }

    compare_pool(scores, &prepared, &split, row, label);
    Ok(())
}

/// Compares the token pool with ours.
fn compare_pool(
    scores: &mut Scores,
    prepared: &SglangPrepared<'_>,
    split: &Split,
    row: &Value,
    label: &str,
) {
    let Some(tokens) = row["kv_cache_tokens"].as_f64() else {
        return;
    };

    // The pool is the free memory after the load, less the fraction kept out of it.
    let notes = row["notes"].as_str().unwrap_or_default();
    let number_after = |mark: &str| {
        notes
            .split(mark)
            .nth(1)?
            .split([' ', ';', '('])
            .next()?
            .parse::<f64>()
            .ok()
    };

    let pool = match (
        row["kv_cache_gib_per_gpu"].as_f64(),
        number_after("before load "),
        number_after("after load "),
    ) {
        (Some(pool), _, _) => Some(pool),
        (None, Some(before), Some(left)) => row["gpu_memory_utilization"]
            .as_f64()
            .map(|fraction| left - before * (1.0 - fraction)),
        _ => None,
    };

    if let Some(pool) = pool {
        let ours = prepared.pool_tokens(split, 0, vllm::gib(pool)) as f64;
        scores.number(
            "pool tokens",
            label,
            tokens,
            ours,
            (ours - tokens).abs() <= 0.005 * tokens,
        );

        let rounding = prepared.pool_tokens(split, 0, Bytes::mib(12)) as f64;
        let exact = (ours - tokens).abs() <= rounding;

        scores.number(
            "KV bytes per token, to rounding",
            label,
            tokens,
            if exact { tokens } else { ours },
            exact,
        );
    }
}
