//! vLLM's start-up logs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::engines::shared::topology::vllm_stages;
use hf_mem_core::engines::vllm::{Vllm, VllmPrepared};
use hf_mem_core::engines::{
    AskedContext, AskedWorkload, EngineRequest, EngineVersion, Offload, PreparedEngine as _, Split,
};
use hf_mem_core::model::Model;
use serde_json::{Value, json};

use crate::score::{Bar, Scores};
use crate::{devices, facts, generated, hub};

/// Rows whose own figures are at fault, by a part of their id or model, and the reason.
const FAULTS: &[(&str, &str)] = &[
    (
        "zephyr-7b-alpha.Q8_0.gguf",
        "GGUF weights materialise after the line is printed",
    ),
    (
        "composed granite 4.2-3b",
        "loads 1.87 times its bytes on disk, unexplained in its source",
    ),
];

/// Rows of a model that the folder has under another name: (row's name, folder's name, changes to
/// config.json).
fn stand_in(name: &str) -> Option<(&'static str, Value)> {
    Some(match name {
        "meta-llama/Meta-Llama-3-8B-Instruct"
        | "meta-llama/Meta-Llama-3-8B"
        | "neuralmagic/Meta-Llama-3-8B-Instruct-FP8" => (
            "meta-llama/Llama-3.1-8B-Instruct",
            json!({"max_position_embeddings": 8192, "rope_scaling": null}),
        ),
        "deepseek-ai/DeepSeek-V2-Lite-Chat" => ("deepseek-ai/DeepSeek-V2-Lite", json!({})),
        "deepseek-ai/DeepSeek-V3-0324" => ("deepseek-ai/DeepSeek-V3", json!({})),
        "google/gemma-2-9b-it" => ("google/gemma-2-9b", json!({})),
        "meta-llama/Llama-2-7b-chat-hf" | "Llama-2-7B" => ("meta-llama/Llama-2-7b-hf", json!({})),
        "Qwen/Qwen2.5-7B" => ("Qwen/Qwen2.5-7B-Instruct", json!({})),
        "Qwen/Qwen3.6-35B-A3B" => ("Qwen/Qwen3.5-35B-A3B", json!({})),
        "mistralai/Mistral-7B-Instruct-v0.1"
        | "meetkai/functionary-small-v2.4"
        | "castorini/rank_zephyr_7b_v1_full" => ("mistralai/Mistral-7B-Instruct-v0.2", json!({})),
        "lukealonso/GLM-5.1-NVFP4-MTP" => ("nvidia/GLM-5-NVFP4", json!({})),
        "Qwen/Qwen3-Coder-30B-A3B-Instruct-FP8" => (
            "Qwen/Qwen3-30B-A3B-FP8",
            json!({"max_position_embeddings": 262_144}),
        ),
        "glm4-chat (GLM-4-9B-Chat)" => ("zai-org/glm-4-9b", json!({"seq_length": 131_072})),
        "minimax-m2.7-awq" => ("MiniMaxAI/MiniMax-M2.5", json!({})),
        "Qwen3.6-27B-AutoRound"
        | "Qwen/Qwen3.6-27B-FP8"
        | "qwen3.6-27b-autoround (Qwen3.6-27B AutoRound INT4)" => ("Qwen/Qwen3.5-27B", json!({})),
        "DeepSeek-V4-Flash" => ("deepseek-ai/DeepSeek-V4-Flash", json!({})),
        "redhatai/Llama-3.3-70B-Instruct-quantized.w8a8" => {
            ("meta-llama/Llama-3.1-70B-Instruct", json!({}))
        }
        "RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w8a8" => {
            ("meta-llama/Llama-3.1-8B-Instruct", json!({}))
        }
        _ => return None,
    })
}

/// Rows that name no release, and what tells it.
const RELEASES: &[(&str, &str, &str)] = &[
    (
        "meta-llama/Llama-3.1-8B-Instruct",
        "0.6",
        "whole-length prefill in the profile by its notes: before 0.8",
    ),
    (
        "meta-llama/Meta-Llama-3-8B",
        "0.6",
        "a development build of December 2024 by its source",
    ),
    (
        "openai/gpt-oss-120b",
        "0.13",
        "4.54 GiB needed at 1024 tokens a step: synchronous scheduling, before 0.14",
    ),
];

/// Figures of rows that are not what they seem: (part of the model, figure, reason).
const MISLEADING: &[(&str, &str, &str)] = &[
    (
        "meta-llama/Meta-Llama-3-8B ",
        "non-torch",
        "that build counted the CUDA context",
    ),
    (
        "Qwen3-Coder-30B",
        "needed",
        "24 GiB is quoted for all 48 layers, each stage holds a part",
    ),
    (
        "Qwen3-235B-A22B-FP8",
        "capacity",
        "SGLang's row of these GPUs gives our 48,128 bytes a token: bytes of one rank, blocks of the fullest",
    ),
    (
        "cyankiwi/Kimi-Linear",
        "capacity",
        "no release is named: the rule before 0.21 gives the logged tokens within 0.5 %, today's 3.8 times as many",
    ),
    (
        "minimax-m2.7",
        "capacity",
        "bytes of one of two hosts with unified memory, blocks of the fuller one",
    ),
    (
        "Maverick",
        "weights",
        "ROCm pads expert weights by 128 columns; AMD is not covered",
    ),
    (
        "lukealonso/GLM-5.1",
        "weights",
        "another checkpoint of the same architecture stands in",
    ),
    (
        "minimax-m2.7",
        "weights",
        "another checkpoint of the same architecture stands in",
    ),
    (
        "Qwen3.6-27B",
        "weights",
        "another checkpoint of the same architecture stands in",
    ),
];

fn misleading(label: &str, figure: &str) -> Option<&'static str> {
    MISLEADING
        .iter()
        .find(|(part, of, _)| label.contains(part) && *of == figure)
        .map(|(_, _, why)| *why)
}

/// The model of a row: described, or of the folder, under its own name or another's.
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

/// One row's settings.
struct Row<'v>(&'v Value);

impl Row<'_> {
    fn number(&self, key: &str) -> Option<f64> {
        self.0.get(key).and_then(Value::as_f64)
    }

    fn count(&self, key: &str) -> Option<u64> {
        self.0.get(key).and_then(Value::as_u64)
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(Value::as_str)
    }
}

/// Reads the rows and prints vLLM's table.
pub(crate) fn run(rows: &Path, hub: &Path) -> Result<(), String> {
    let text = fs::read_to_string(rows).map_err(|error| format!("{}: {error}", rows.display()))?;
    let mut scores = Scores::default();
    let mut models: BTreeMap<String, Result<Model, String>> = BTreeMap::new();
    let engine = Vllm::with_profiles(Vllm::profiles().map_err(|error| error.to_string())?);

    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let value: Value =
            serde_json::from_str(line).map_err(|error| format!("{}: {error}", rows.display()))?;
        let row = Row(&value);
        if row.text("engine") != Some("vllm") {
            continue;
        }

        let name = row.text("model").unwrap_or_default().to_owned();
        let label = label(&row, &name);
        if let Some((_, why)) = FAULTS.iter().find(|(part, _)| name.contains(part)) {
            scores.skip(&format!("the row is at fault: {why}"), &label);
            continue;
        }

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
    scores.bars(&[
        Bar {
            component: "weights, text",
            median: Some(0.1),
            p95: Some(0.5),
            inside: 90.0,
        },
        Bar {
            component: "weights, multimodal or FP4",
            median: None,
            p95: Some(2.0),
            inside: 90.0,
        },
        Bar {
            component: "KV bytes per token, to rounding",
            median: None,
            p95: None,
            inside: 98.0,
        },
        Bar {
            component: "token capacity",
            median: None,
            p95: None,
            inside: 95.0,
        },
        Bar {
            component: "activations, text, >= 0.17",
            median: Some(5.0),
            p95: None,
            inside: 90.0,
        },
        Bar {
            component: "activations, text, older",
            median: None,
            p95: None,
            inside: 90.0,
        },
        Bar {
            component: "activations, multimodal or FP4, >= 0.17",
            median: None,
            p95: None,
            inside: 90.0,
        },
        Bar {
            component: "activations, multimodal or FP4, older",
            median: None,
            p95: None,
            inside: 90.0,
        },
        Bar {
            component: "graphs",
            median: None,
            p95: None,
            inside: 90.0,
        },
        Bar {
            component: "non-torch",
            median: None,
            p95: None,
            inside: 90.0,
        },
        Bar {
            component: "KV needed for one sequence",
            median: None,
            p95: None,
            inside: 90.0,
        },
    ]);

    Ok(())
}

fn label(row: &Row<'_>, name: &str) -> String {
    let tensor = row.count("tensor_parallel").unwrap_or(1);
    let stages = row.count("pipeline_parallel").unwrap_or(1);
    let version = row.text("engine_version").unwrap_or("?");
    format!(
        "{name} {version} {} TP{tensor} PP{stages}",
        row.text("gpu_name").unwrap_or("?")
    )
}

fn score(
    scores: &mut Scores,
    engine: &Vllm,
    model: &Model,
    row: &Row<'_>,
    label: &str,
) -> Result<(), String> {
    if row.text("quantization") == Some("bitsandbytes") {
        return Err("quantised at load by bitsandbytes, which is a plugin".to_owned());
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
    let case = EngineRequest {
        model,
        version: version.as_ref(),
        parameters: &parameters,
        asked,
        devices: prepared_for,
    };

    let prepared = engine.prepare(&case).map_err(|error| error.to_string())?;
    let layers = model
        .architecture
        .as_ref()
        .map_err(ToString::to_string)?
        .layer_count();

    let part = |key| u32::try_from(row.count(key).unwrap_or(1)).unwrap_or(1);
    let (tensor, stages) = (part("tensor_parallel"), part("pipeline_parallel"));
    let split = Split {
        tensor,
        stages: vllm_stages(layers, stages),
        expert_parallel: false,
        offload: Offload::None,
    };

    prepared.check(&split).map_err(|error| error.to_string())?;
    let log = prepared.start_up_log(&split, 0, &device);

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
        scores.skip(
            "weights only: the configuration's facts are at hand, the headers are not",
            label,
        );
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
    // Two rows give torch's peak with the weights in it.
    let peak = row.number("activation_peak_gib").or_else(|| {
        let notes = row.text("notes")?.split("peak_torch_memory ").nth(1)?;
        Some(notes.split(' ').next()?.parse::<f64>().ok()? - row.number("weights_gib_per_gpu")?)
    });

    if let (Some(measured), Some(_)) = (peak, &known) {
        let text = if soft { "multimodal or FP4" } else { "text" };
        let component = if modern(row) {
            format!("activations, {text}, >= 0.17")
        } else {
            format!("activations, {text}, older")
        };
        scores.gib(&component, label, measured, log.activations, 0.005);
    }

    if let (Some(measured), Some(_)) = (
        row.number("non_torch_gib")
            .filter(|_| misleading(label, "non-torch").is_none()),
        &known,
    ) {
        scores.gib("non-torch", label, measured, log.non_torch, 0.005);
    }

    if let (Some(measured), Some(_)) = (
        row.number("cuda_graph_gib").filter(|gib| *gib > 0.0),
        &known,
    ) {
        scores.gib("graphs", label, measured, log.graphs, 0.005);
    }

    cache(scores, &prepared, &split, row, label);
    Ok(())
}

/// A logged figure in GiB as bytes.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped before"
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
    row: &Row<'_>,
    label: &str,
) {
    let Some(kv) = row.number("kv_cache_gib_per_gpu") else {
        return;
    };

    let pages = prepared.pages(split);
    let blocks = |gib: f64| prepared.blocks_in(split, self::gib(gib));
    if split.stages.len() > 1 {
        scores.skip("capacity only: rank 0's bytes, but the last stage, which samples, has the fewest blocks", label);
    } else if let Some(tokens) = row
        .count("kv_cache_tokens")
        .filter(|_| misleading(label, "capacity").is_none())
    {
        let ours = prepared.logged_tokens(split, blocks(kv)) as f64;
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
                prepared.logged_tokens(split, blocks(kv - 0.006)),
                prepared.logged_tokens(split, blocks(kv + 0.006)),
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

/// The row's release, or what tells it.
fn version(row: &Row<'_>) -> Option<EngineVersion> {
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

    let told = RELEASES
        .iter()
        .find(|(name, _, _)| *name == model)
        .map(|(_, version, _)| *version);

    row.0
        .get("engine_version")
        .and_then(Value::as_str)
        .or(told)?
        .parse()
        .ok()
}

fn modern(row: &Row<'_>) -> bool {
    version(row).is_none_or(|version| version.is_at_least(&[0, 17]))
}

fn parameters(row: &Row<'_>) -> BTreeMap<String, Value> {
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
        // Its 64.69 GiB are the text model's to the log's rounding: the tower was not loaded.
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
