//! `conformance/vectors.json` for each engine: each column holds the result of the engine's own
//! arithmetic, to the byte.

#![allow(clippy::unwrap_used, reason = "test helpers")]

use std::collections::{BTreeMap, BTreeSet};

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{DeviceFacts, DeviceKind};
use hf_mem_core::engines::vllm::Vllm;
use hf_mem_core::engines::{
    AskedContext, AskedWorkload, ComponentName, EngineRequest, PreparedEngine, Split, by_name,
};
use hf_mem_core::model::{Format, Inventory, Model, config};
use serde_json::{Value, json};

/// The card of the vLLM column.
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

/// A model with only a configuration.
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
    let bytes_of = |name| {
        parts
            .iter()
            .find(|part| part.name == name)
            .map_or(0, |part| part.bytes.likely.get())
    };

    Ok((
        bytes_of(ComponentName::KvCache),
        bytes_of(ComponentName::State),
    ))
}

/// The figures of `engine` for a vector, by its column's keys.
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

    let request = EngineRequest {
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
            let prepared = vllm.prepare(&request).map_err(|why| why.to_string())?;
            let split = Split::single(layers);
            let needed = prepared.needed_for_one(&split, 0).likely.get();
            // The null block is one more block.
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
            let prepared = sglang.prepare(&request).map_err(|why| why.to_string())?;
            Ok(json!({"bytes_per_token": prepared.kv_bytes_per_token().get()}))
        }
        "transformers" => {
            let transformers = by_name("transformers").unwrap();
            let prepared = transformers
                .prepare(&request)
                .map_err(|why| why.to_string())?;
            let (kv, states) = variable(&*prepared, layers, &device)?;
            Ok(json!({"cache_bytes": kv + states}))
        }
        _ => {
            let llama = by_name("llama.cpp").unwrap();
            let prepared = llama.prepare(&request).map_err(|why| why.to_string())?;
            let (kv, states) = variable(&*prepared, layers, &device)?;
            Ok(json!({"kv_bytes": kv, "state_bytes": states}))
        }
    }
}

#[test]
fn columns_match_to_the_byte() {
    let file: Value = serde_json::from_str(include_str!("../conformance/vectors.json")).unwrap();
    let mut wrong = Vec::new();

    for (engine, minimum, minimum_types) in [
        ("vllm", 180, 60),
        ("sglang", 175, 60),
        ("llama_cpp", 140, 60),
        ("transformers", 40, 40),
    ] {
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
            met >= minimum && types.len() >= minimum_types,
            "{engine}: {met} columns, {} model types",
            types.len()
        );
    }
}

#[test]
fn confirmed_columns_also_exist() {
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
