//! `conformance/vectors.json` through vLLM and SGLang: where every layer keeps every token, their caches are the logical
//! one, rounded up to whole blocks; states are the logical ones in the engines' own dtypes.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test's helpers")]

use std::collections::BTreeMap;

use hf_mem_probe::bytes::Bytes;
use hf_mem_probe::devices::{DeviceFacts, DeviceKind};
use hf_mem_probe::engines::vllm::Vllm;
use hf_mem_probe::engines::{AskedContext, AskedWorkload, Case, Prepared as _, Split, by_name};
use hf_mem_probe::model::{Dtype, Format, Identity, Inventory, Model, config};
use serde_json::Value;

fn ampere() -> DeviceFacts {
    DeviceFacts {
        uuid: "GPU-0".to_owned(),
        index: 0,
        name: "NVIDIA A100-SXM4-80GB".to_owned(),
        kind: DeviceKind::Gpu,
        total_bytes: Bytes::mib(81_920),
        reserved_bytes: None,
        compute_capability: Some((8, 0)),
        multiprocessors: Some(108),
        parent_uuid: None,
        pci_bus_id: None,
        numa_node: None,
    }
}

#[test]
fn full_caches_are_the_logical_ones_in_whole_blocks() {
    let file: Value = serde_json::from_str(include_str!("../conformance/vectors.json")).unwrap();
    let device = ampere();
    let parameters = BTreeMap::new();
    let (mut checked, mut wrong) = (0, Vec::new());
    for vector in file["vectors"].as_array().unwrap() {
        let context = vector["context"].as_u64().unwrap();
        let logical = &vector["reference"];
        let of = |key: &str| logical[key].as_u64().unwrap();
        let (per_token, all, states) = (of("kv_bytes_per_token"), of("kv_bytes"), of("state_bytes_per_sequence"));
        let inventory = Inventory::default();
        let model = Model {
            identity: Identity::default(),
            format: Format::Safetensors,
            architecture: config::architecture(&vector["config"], None, &inventory),
            inventory,
            weight_files: 0,
            components: Vec::new(),
            parameters: None,
            adapter: None,
            variants: Vec::new(),
            proofs: Vec::new(),
            doubts: Vec::new(),
        };
        let name = vector["name"].as_str().unwrap();
        let asked = AskedWorkload { context: Some(AskedContext::Tokens(context)), ..AskedWorkload::default() };
        let case = Case {
            model: &model,
            version: None,
            parameters: &parameters,
            asked,
            devices: std::slice::from_ref(&device),
        };
        // Windows, encoders and states have their own arithmetic; the worked examples hold it.
        if all != per_token * context || all == 0 || states > 0 {
            continue;
        }
        // What is configured in 32 bits is run in 16.
        let half = model.architecture.as_ref().is_ok_and(|architecture| architecture.dtype == Some(Dtype::F32));
        let per_token = if half { per_token / 2 } else { per_token };
        let engine = Vllm::with_profiles(Vllm::profiles().unwrap());
        match engine.prepare(&case) {
            Ok(prepared) => {
                let split = Split::single(model.architecture.as_ref().unwrap().layer_count());
                let block = prepared.pages(&split).block_tokens();
                let ours = prepared.needed_for_one(&split, 0).likely.get();
                let expected = context.div_ceil(block) * block * per_token;
                checked += 1;
                if ours != expected || prepared.kv_bytes_per_token().get() != per_token {
                    wrong.push(format!("vllm {name}: {ours}, expected {expected}"));
                }
            }
            Err(why) => println!("vllm {name}: {why}"),
        }
        match by_name("sglang").unwrap().prepare(&case) {
            Ok(prepared) if prepared.kv_bytes_per_token().get() != per_token => {
                wrong.push(format!(
                    "sglang {name}: {} a token, expected {per_token}",
                    prepared.kv_bytes_per_token().get()
                ));
            }
            Ok(_) => checked += 1,
            Err(why) => println!("sglang {name}: {why}"),
        }
    }
    println!("{checked} checked");
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(checked >= 60, "{checked}");
}
