//! `conformance/vectors.json` through the engines: each column is what the engine's own arithmetic
//! must give, to the byte.

#![allow(clippy::unwrap_used, reason = "a test's helpers")]

use std::collections::{BTreeMap, BTreeSet};

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{DeviceFacts, DeviceKind};
use hf_mem_core::engines::vllm::Vllm;
use hf_mem_core::engines::{
    AskedContext, AskedWorkload, ComponentName, EngineRequest, PreparedEngine, Split, by_name,
};
use hf_mem_core::model::{Format, Inventory, Model, config};
use serde_json::{Value, json};

/// The card that the vLLM column is for.
fn h100() -> DeviceFacts {
    DeviceFacts {
        uuid: "GPU-0".to_owned(),
        index: 0,
        name: "NVIDIA H100 80GB HBM3".to_owned(),
        kind: DeviceKind::Gpu,
        total_bytes: Bytes::mib(81_559),
        reserved_bytes: None,
        compute_capability: Some((9, 0)),
        multiprocessors: Some(132),
        parent_uuid: None,
        pci_bus_id: None,
        numa_node: None,
    }
}

/// A model of which nothing is known but its configuration.
fn model(config: &Value, format: Format) -> Model {
    let inventory = Inventory::default();
    Model::bare(
        "",
        format,
        config::architecture(config, None, &inventory),
        inventory,
    )
}

/// Cache and states of one sequence.
fn variable(
    prepared: &dyn PreparedEngine,
    layers: u32,
    device: &DeviceFacts,
) -> Result<(u64, u64), String> {
    let parts = prepared.variable(&Split::single(layers), 0, device, prepared.workload());
    let parts = parts.map_err(|why| why.to_string())?;
    let of = |name| {
        parts
            .iter()
            .find(|part| part.name == name)
            .map_or(0, |part| part.bytes.likely.get())
    };

    Ok((of(ComponentName::KvCache), of(ComponentName::State)))
}

/// What `engine` makes of a vector, in the words of its column.
fn column(engine: &str, vector: &Value, expected: &Value) -> Result<Value, String> {
    let device = h100();
    let format = if engine == "llama_cpp" {
        Format::Gguf
    } else {
        Format::Safetensors
    };

    let model = model(&vector["config"], format);
    let layers = model
        .architecture
        .as_ref()
        .map_err(ToString::to_string)?
        .layer_count();

    let slots = BTreeMap::from([("parallel".to_owned(), json!(1))]);
    let none = BTreeMap::new();
    let context = vector["context"].as_u64();

    let case = EngineRequest {
        model: &model,
        version: None,
        parameters: if engine == "llama_cpp" { &slots } else { &none },
        asked: AskedWorkload {
            context: context.map(AskedContext::Tokens),
            ..AskedWorkload::default()
        },
        devices: std::slice::from_ref(&device),
    };

    match engine {
        "vllm" => {
            let vllm = Vllm::with_profiles(Vllm::profiles().unwrap());
            let prepared = vllm.prepare(&case).map_err(|why| why.to_string())?;
            let split = Split::single(layers);
            let needed = prepared.needed_for_one(&split, 0).likely.get();
            // One more block is the null block.
            let (tokens, states) = variable(&prepared, layers, &device)?;
            let mut found =
                json!({"bytes_per_block": tokens + states - needed, "kv_bytes": needed});
            if expected.get("block_tokens").is_some() {
                found["block_tokens"] = json!(prepared.pages(&split).block_tokens());
            }
            Ok(found)
        }
        "sglang" => {
            let sglang = by_name("sglang").unwrap();
            let prepared = sglang.prepare(&case).map_err(|why| why.to_string())?;
            Ok(json!({"bytes_per_token": prepared.kv_bytes_per_token().get()}))
        }
        _ => {
            let llama = by_name("llama.cpp").unwrap();
            let prepared = llama.prepare(&case).map_err(|why| why.to_string())?;
            let (kv, states) = variable(&*prepared, layers, &device)?;
            Ok(json!({"kv_bytes": kv, "state_bytes": states}))
        }
    }
}

#[test]
fn every_column_is_met_to_the_byte() {
    let file: Value = serde_json::from_str(include_str!("../conformance/vectors.json")).unwrap();
    let mut wrong = Vec::new();

    for (engine, fewest) in [("vllm", 180), ("sglang", 175), ("llama_cpp", 140)] {
        let (mut met, mut types) = (0, BTreeSet::new());
        for vector in file["vectors"].as_array().unwrap() {
            let Some(expected) = vector.get(engine) else {
                continue;
            };

            match column(engine, vector, expected) {
                Ok(found) if found == *expected => {
                    met += 1;
                    types.insert(vector["config"]["model_type"].to_string());
                }
                Ok(found) => wrong.push(format!(
                    "{engine} {}: {found}, expected {expected}",
                    vector["name"]
                )),
                Err(why) => wrong.push(format!("{engine} {}: {why}", vector["name"])),
            }
        }

        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(
            met >= fewest && types.len() >= 60,
            "{engine}: {met} columns, {} model types",
            types.len()
        );
    }
}

#[test]
fn confirmed_columns_stand_beside_derived_ones() {
    let file: Value = serde_json::from_str(include_str!("../conformance/vectors.json")).unwrap();
    let mut confirmed = 0;
    for vector in file["vectors"].as_array().unwrap() {
        let Some(by) = vector.get("confirmed").and_then(Value::as_object) else {
            continue;
        };

        for engine in by.keys() {
            assert!(
                vector.get(engine).is_some(),
                "{} confirms {engine}, which it lacks",
                vector["name"]
            );
            confirmed += 1;
        }
    }

    assert!(confirmed >= 30, "{confirmed}");
}
