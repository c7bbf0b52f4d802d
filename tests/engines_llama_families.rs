//! Figures of small made models of llama.cpp's newer architectures, against b12032's own dry run.
//!
//! `fixtures/llama_families.jsonl` holds a model a line: its keys, its tensors, and for each
//! setting the bytes of weights, caches and buffers that `referees/llama_cpp` printed.
#![allow(clippy::unwrap_used, reason = "test helpers")]

use std::collections::BTreeSet;

use hf_mem_core::device::DeviceFacts;
use hf_mem_core::engines::llama_cpp::LlamaCpp;
use hf_mem_core::engines::{Engine, EngineError};
use hf_mem_core::model::Dtype;
use hf_mem_core::model::Model;
use serde_json::{Value, json};
use support::dry_run::{Figure, card, figures, question, settings};
use support::gguf_corpus::{model, parsed};
use support::gguf_writer::{Header, Kv};

mod support {
    pub mod dry_run;
    pub mod gguf_corpus;
    pub mod gguf_writer;
}

/// The models and their rows.
const MODELS: &str = include_str!("fixtures/llama_families.jsonl");

fn described() -> Vec<Value> {
    let lines = MODELS.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn number(value: &Value) -> i32 {
    i32::try_from(value.as_i64().unwrap()).unwrap()
}

fn kv(value: &Value) -> Kv {
    match value {
        Value::Bool(flag) => Kv::Bool(*flag),
        Value::Number(_) => Kv::I32(number(value)),
        Value::Array(items) if items[0].is_boolean() => {
            Kv::Bools(items.iter().map(|item| item.as_bool().unwrap()).collect())
        }
        Value::Array(items) => Kv::I32s(items.iter().map(number).collect()),
        other => panic!("{other}"),
    }
}

/// Adds the tensors of a line: name, layers (`0-3,5-5`), type and dimensions.
fn with_tensors(header: Header, line: &str) -> Header {
    let words: Vec<&str> = line.split(' ').collect();
    let (name, layers, dtype) = (words[0], words[1], words[2]);
    let dimensions: Vec<u64> = words[3..]
        .iter()
        .map(|side| side.parse().unwrap())
        .collect();
    let dtype = Dtype::ALL
        .iter()
        .find(|known| known.name() == dtype)
        .unwrap();
    let bytes = dtype.stored(dimensions.iter().product()).unwrap().get();

    let names = match layers {
        "-" => vec![name.to_owned()],
        runs => runs
            .split(',')
            .flat_map(|run| {
                let (first, last) = run.split_once('-').unwrap();
                first.parse::<u32>().unwrap()..=last.parse().unwrap()
            })
            .map(|layer| name.replace('*', &layer.to_string()))
            .collect(),
    };
    names.iter().fold(header, |header, name| {
        header.tensor(name, &dimensions, dtype.ggml_id().unwrap(), bytes)
    })
}

fn made_model(described: &Value) -> Model {
    let family = described["family"].as_str().unwrap();
    let mut header = Header::default().with("general.architecture", Kv::Text(family.into()));
    for (key, value) in described["keys"].as_object().unwrap() {
        header = header.with(&format!("{family}.{key}"), kv(value));
    }

    for line in described["tensors"].as_array().unwrap() {
        header = with_tensors(header, line.as_str().unwrap());
    }

    model(parsed(&header))
}

/// A row in the form of `referees/llama_cpp`.
fn whole_row(row: &Value) -> Value {
    let named = |bytes: &Value| {
        let [model, context, compute] = [&bytes[0], &bytes[1], &bytes[2]];
        json!({"model_bytes": model, "context_bytes": context, "compute_bytes": compute})
    };
    let devices: Vec<Value> = row["devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(named)
        .collect();

    json!({"settings": row["settings"], "devices": devices, "host": named(&row["host"])})
}

#[test]
fn new_families_match_dry_run() {
    let mut families = BTreeSet::new();
    let mut wrong = Vec::new();
    let mut rows = 0;
    for described in described() {
        let family = described["family"].as_str().unwrap().to_owned();
        let model = made_model(&described);
        for row in described["rows"].as_array().unwrap() {
            rows += 1;
            let figures = figures(&whole_row(row), &model);
            let contradicted = figures.into_iter().filter(Figure::is_wrong);
            wrong.extend(
                contradicted.map(|figure| (family.clone(), row["settings"].clone(), figure)),
            );
        }

        families.insert(family);
    }

    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!((families.len(), rows), (30, 162));
}

fn described_family(family: &str) -> Value {
    let mut all = described().into_iter();
    all.find(|model| model["family"] == family).unwrap()
}

/// The answer for `model` of build `version` on `devices` cards.
fn refusal(model: &Model, version: &str, given: &Value, devices: u32) -> String {
    let cards: Vec<DeviceFacts> = (0..devices).map(card).collect();
    let (version, given) = (
        version.parse().unwrap(),
        settings(&json!({"settings": given})),
    );
    let question = question(model, &version, &given, &cards);
    match LlamaCpp.prepare(&question) {
        Ok(prepared) => prepared.splits(devices).unwrap_err().0,
        Err(EngineError::Unsupported { why, .. }) => why,
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn repeated_layers_stay_whole() {
    for family in ["nanbeige", "hrm_text"] {
        let model = made_model(&described_family(family));
        for (given, devices) in [(json!({}), 2), (json!({"n_gpu_layers": "3"}), 1)] {
            let why = refusal(&model, "b12032", &given, devices);
            assert!(
                why.contains("runs its layers several times"),
                "{family}: {why}"
            );
        }
    }
}

#[test]
fn shared_latents_stay_whole() {
    let mut all = described().into_iter();
    let shared = all
        .find(|model| !model["keys"]["attention.kv_source_map"].is_null())
        .unwrap();

    let why = refusal(&made_model(&shared), "b12032", &json!({}), 2);
    assert!(why.contains("shares latents between layers"), "{why}");
}

#[test]
fn indexer_without_kernel_is_refused() {
    for family in ["deepseek4", "glm5-next", "hy_v4"] {
        let mut described = described_family(family);
        described["keys"]["attention.indexer.head_count"] = json!(16);
        let why = refusal(&made_model(&described), "b12032", &json!({}), 1);
        assert!(
            why.contains("no kernel for an indexer with 16 heads"),
            "{family}: {why}"
        );
    }
}

#[test]
fn early_build_refuses_new_family() {
    let model = made_model(&described_family("beam"));
    let why = refusal(&model, "b10450", &json!({}), 1);
    assert!(why.contains("whether builds before b12000 do"), "{why}");
}
