//! vLLM's start-up logs.

mod exceptions;
mod rows;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::engines::shared::topology::vllm_stages;
use hf_mem_core::engines::vllm::{StartUpLog, Vllm, VllmPrepared};
use hf_mem_core::engines::{
    AskedContext, AskedWorkload, EngineRequest, Offload, PreparedEngine as _, Split,
};
use hf_mem_core::model::Model;
use serde_json::Value;

use self::exceptions::{FAULTS, misleading, stand_in};
use self::rows::{LogRow, label, modern, parameters, version};

use crate::score::{Bar, Scores};
use crate::{devices, facts, generated, hub};

/// The repository that supplies the metadata of a row's model.
pub(crate) fn repository(name: &str) -> String {
    stand_in(name).map_or_else(|| name.to_owned(), |(repo, _)| repo.to_owned())
}

/// The model of a row: described, or from the folder, under its own or another name.
pub(crate) fn find(hub: &Path, name: &str) -> Result<Model, String> {
    if let Some((repo, patch)) = stand_in(name) {
        return hub::load(hub, repo, &patch);
    }

    let full = if name == "Qwen3-235B-A22B-FP8" {
        "Qwen/Qwen3-235B-A22B-FP8"
    } else {
        name
    };

    let described = generated::described(full).or_else(|| facts::known(full));
    described.map_or_else(|| hub::load(hub, full, &Value::Null), Ok)
}

/// The accuracy that each component must reach.
const BARS: &[Bar] = &[
    Bar::new("weights, text", Some(0.1), Some(0.5), 97.0),
    Bar::new("weights, multimodal or FP4", None, Some(2.0), 97.0),
    Bar::new("KV bytes per token, to rounding", None, None, 98.0),
    Bar::new("token capacity", None, None, 95.0),
    Bar::new("activations, text, >= 0.17", Some(5.0), None, 90.0),
    Bar::new("activations, text, older", None, None, 90.0),
    Bar::new("activations, multimodal or FP4, >= 0.17", None, None, 90.0),
    Bar::new("activations, multimodal or FP4, older", None, None, 90.0),
    Bar::new("graphs", None, None, 90.0),
    Bar::new("non-torch", None, None, 90.0),
    Bar::new("KV needed for one sequence", None, None, 90.0),
];

/// Reads the rows, prints vLLM's table, and returns whether its bars are reached.
pub(crate) fn run(rows: &Path, hub: &Path) -> Result<bool, String> {
    let text = fs::read_to_string(rows).map_err(|error| format!("{}: {error}", rows.display()))?;
    let mut scores = Scores::default();
    let mut models: BTreeMap<String, Result<Model, String>> = BTreeMap::new();
    let engine = Vllm::with_profiles(Vllm::profiles().map_err(|error| error.to_string())?);

    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let value: Value =
            serde_json::from_str(line).map_err(|error| format!("{}: {error}", rows.display()))?;
        let row = LogRow(&value);
        if row.text("engine") != Some("vllm") {
            continue;
        }

        let name = row.text("model").unwrap_or_default().to_owned();
        let label = label(&row, &name);
        if let Some((_, why)) = FAULTS.iter().find(|(part, _)| name.contains(part)) {
            scores.skip(&format!("the row's figures are wrong: {why}"), &label);
            continue;
        }

        scores.select_model(&repository(&name));
        let model = models
            .entry(name.clone())
            .or_insert_with(|| find(hub, &name));

        match model {
            Err(_) => scores.skip("model not in the folder", &label),
            Ok(model) => {
                if let Err(why) = score(&mut scores, &engine, model, &row, &label) {
                    scores.skip(&why, &label);
                }
            }
        }
    }

    scores.print("vLLM");
    Ok(scores.bars(BARS))
}

fn score(
    scores: &mut Scores,
    engine: &Vllm,
    model: &Model,
    row: &LogRow<'_>,
    label: &str,
) -> Result<(), String> {
    if row.text("quantization") == Some("bitsandbytes") {
        return Err("quantized at load by bitsandbytes, which is a plugin".to_owned());
    }

    let gpu = row.text("gpu_name").unwrap_or_default();
    let known = devices::named(gpu);
    let device = known
        .clone()
        .or_else(|| devices::named("H100"))
        .ok_or("no device")?;
    let prepared_for = std::slice::from_ref(&device);
    let parameters = parameters(row);
    let context = row.count("max_model_len").map(AskedContext::Tokens);
    let asked = AskedWorkload {
        context,
        dtype: row.text("dtype").map(str::to_owned),
        ..AskedWorkload::default()
    };

    let version = version(row);
    let request = EngineRequest {
        model,
        version: version.as_ref(),
        parameters: &parameters,
        asked,
        devices: prepared_for,
    };

    let prepared = engine
        .prepare(&request)
        .map_err(|error| error.to_string())?;
    let layers = model
        .architecture
        .as_ref()
        .map_err(ToString::to_string)?
        .layer_count();

    let degree_of = |key| u32::try_from(row.count(key).unwrap_or(1)).unwrap_or(1);
    let (tensor, stages) = (degree_of("tensor_parallel"), degree_of("pipeline_parallel"));
    let split = Split {
        tensor,
        stages: vllm_stages(layers, stages),
        expert_parallel: false,
        offload: Offload::None,
    };

    prepared.check(&split).map_err(|error| error.to_string())?;
    let log = prepared.start_up_log(&split, 0, &device);

    compare_memory(scores, model, row, label, &log, known.is_some());
    cache(scores, &prepared, &split, row, label);
    Ok(())
}

/// Compares the start-up figures other than the cache with ours.
fn compare_memory(
    scores: &mut Scores,
    model: &Model,
    row: &LogRow<'_>,
    label: &str,
    log: &StartUpLog,
    device_known: bool,
) {
    let soft = model.architecture.as_ref().is_ok_and(|a| {
        a.vision.is_some()
            || a.quantization.as_ref().is_some_and(|q| {
                q.method.contains("fp4") || q.format.as_deref().is_some_and(|f| f.contains("FP4"))
            })
    });

    for figure in ["weights", "non-torch", "needed", "capacity"] {
        if let Some(why) = misleading(label, figure) {
            scores.skip(&format!("{figure} only: {why}"), label);
        }
    }

    let headers = !model.inventory.classes.is_empty();
    if !headers {
        scores.skip("weights only: the headers are not available", label);
    }

    let weights = row
        .number("weights_gib_per_gpu")
        .filter(|_| headers && misleading(label, "weights").is_none());
    if let Some(measured) = weights {
        let component = if soft {
            "weights, multimodal or FP4"
        } else {
            "weights, text"
        };
        scores.gib(component, label, measured, log.weights, 0.005);
    }
    // Two rows give torch's peak with the weights included.
    let peak = row.number("activation_peak_gib").or_else(|| {
        let notes = row.text("notes")?.split("peak_torch_memory ").nth(1)?;
        Some(notes.split(' ').next()?.parse::<f64>().ok()? - row.number("weights_gib_per_gpu")?)
    });

    if let Some(measured) = peak.filter(|_| device_known) {
        let text = if soft { "multimodal or FP4" } else { "text" };
        let component = if modern(row) {
            format!("activations, {text}, >= 0.17")
        } else {
            format!("activations, {text}, older")
        };
        scores.gib(&component, label, measured, log.activations, 0.005);
    }

    let non_torch = row
        .number("non_torch_gib")
        .filter(|_| device_known && misleading(label, "non-torch").is_none());
    if let Some(measured) = non_torch {
        scores.gib("non-torch", label, measured, log.non_torch, 0.005);
    }

    let graphs = row
        .number("cuda_graph_gib")
        .filter(|gib| device_known && *gib > 0.0);
    if let Some(measured) = graphs {
        scores.gib("graphs", label, measured, log.graphs, 0.005);
    }
}

/// A logged figure in GiB as bytes.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped first"
)]
pub(crate) fn gib(gib: f64) -> Bytes {
    Bytes::mib(1).scale(
        (gib * 1024.0 * 1000.0).round().clamp(0.0, 1e12) as u64,
        1000,
    )
}

fn cache(
    scores: &mut Scores,
    prepared: &VllmPrepared<'_>,
    split: &Split,
    row: &LogRow<'_>,
    label: &str,
) {
    let Some(kv) = row.number("kv_cache_gib_per_gpu") else {
        return;
    };

    let pages = prepared.pages(split);
    let blocks_in = |gib: f64| prepared.blocks_in(split, self::gib(gib));
    if split.stages.len() > 1 {
        scores.skip(
            "capacity only: rank 0's bytes, but the sampling last stage has the fewest blocks",
            label,
        );
    } else if let Some(tokens) = row
        .count("kv_cache_tokens")
        .filter(|_| misleading(label, "capacity").is_none())
    {
        let ours = prepared.logged_tokens(split, blocks_in(kv)) as f64;
        let measured = tokens as f64;

        scores.number(
            "token capacity",
            label,
            measured,
            ours,
            (ours - measured).abs() <= 0.005 * measured,
        );

        if pages.groups() == 1 {
            let (low, high) = (
                prepared.logged_tokens(split, blocks_in(kv - 0.006)),
                prepared.logged_tokens(split, blocks_in(kv + 0.006)),
            );
            let block = pages.block_tokens() * 2;
            let exact = tokens + block >= low && tokens <= high + block;

            scores.number(
                "KV bytes per token, to rounding",
                label,
                measured,
                if exact { measured } else { ours },
                exact,
            );
        }
    }

    if let Some(measured) = row
        .number("kv_needed_gib_for_max_len")
        .filter(|_| misleading(label, "needed").is_none())
    {
        scores.gib(
            "KV needed for one sequence",
            label,
            measured,
            prepared.needed_for_one(split, 0),
            0.005,
        );
    }
}
