//! Checks `conformance/vectors.json`, which maps configuration facts to bytes for at least 60 model
//! types.
//!
//! Any estimator can use the vectors; this test runs them on ours.

use std::collections::{BTreeMap, BTreeSet};

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{DeviceFacts, DeviceKind};
use hf_mem_core::engines::reference::Reference;
use hf_mem_core::engines::{
    AskedContext, AskedWorkload, ComponentName, Engine, EngineRequest, Split,
};
use hf_mem_core::model::config::architecture;
use hf_mem_core::model::{Format, Inventory, Model};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Vectors {
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    source: String,
    config: Value,
    context: u64,
    /// Absent in vectors that hold only an engine's own figure.
    reference: Option<Expected>,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Expected {
    kv_bytes_per_token: u64,
    kv_bytes: u64,
    state_bytes_per_sequence: u64,
}

fn device() -> DeviceFacts {
    DeviceFacts {
        uuid: "declared-0".to_owned(),
        index: 0,
        name: "any".to_owned(),
        kind: DeviceKind::Gpu,
        total_bytes: Bytes::gib(80),
        reserved_bytes: None,
        compute_capability: None,
        multiprocessors: None,
        parent_uuid: None,
        pci_bus_id: None,
        numa_node: None,
    }
}

/// Returns what the reference engine computes for a configuration without weights.
fn answer(config: &Value, context: u64) -> Result<(String, Expected), String> {
    let architecture =
        architecture(config, None, &Inventory::default()).map_err(|why| why.to_string())?;
    let model_type = architecture.model_type.clone();
    let layers = architecture.layer_count();

    let model = Model::bare(
        "",
        Format::Safetensors,
        Ok(architecture),
        Inventory::default(),
    );

    let devices = [device()];
    let case = EngineRequest {
        model: &model,
        version: None,
        parameters: &BTreeMap::new(),
        asked: AskedWorkload {
            context: Some(AskedContext::Tokens(context)),
            ..AskedWorkload::default()
        },
        devices: &devices,
    };

    let prepared = Reference.prepare(&case).map_err(|why| why.to_string())?;
    let components = prepared
        .variable(&Split::single(layers), 0, &devices[0], prepared.workload())
        .map_err(|why| why.to_string())?;
    let likely_bytes = |name| {
        components
            .iter()
            .find(|part| part.name == name)
            .map_or(0, |part| part.bytes.likely.get())
    };

    Ok((
        model_type,
        Expected {
            kv_bytes_per_token: prepared.kv_bytes_per_token().get(),
            kv_bytes: likely_bytes(ComponentName::KvCache),
            state_bytes_per_sequence: likely_bytes(ComponentName::State),
        },
    ))
}

#[test]
fn vectors_match_to_the_byte() {
    let vectors: Vectors =
        serde_json::from_str(include_str!("../conformance/vectors.json")).unwrap();
    let mut types = BTreeSet::new();
    let mut wrong = Vec::new();

    for vector in &vectors.vectors {
        assert!(!vector.source.is_empty());
        let Some(reference) = &vector.reference else {
            continue;
        };

        match answer(&vector.config, vector.context) {
            Ok((model_type, found)) if found == *reference => {
                types.insert(model_type);
            }
            Ok((_, found)) => wrong.push(format!(
                "{}: expected {:?}, found {found:?}",
                vector.name, reference
            )),
            Err(why) => wrong.push(format!("{}: {why}", vector.name)),
        }
    }

    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(types.len() >= 60, "{} model types", types.len());
}
