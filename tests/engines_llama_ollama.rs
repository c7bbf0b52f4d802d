//! Ollama's own settings over llama.cpp's arithmetic.
#![allow(clippy::unwrap_used, reason = "test helpers")]

use std::collections::BTreeMap;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{DeviceFacts, DeviceKind};
use hf_mem_core::engines::ollama::Ollama;
use hf_mem_core::engines::{
    AskedContext, AskedWorkload, ComponentName, DeviceSupport, Engine, EngineError, EngineRequest,
    LaunchDevice, LaunchPlan, Offload, Split, Workload,
};
use hf_mem_core::model::Model;
use serde_json::{Value, json};
use support::gguf_corpus::{model, parsed};
use support::gguf_writer::{Header, Kv};

mod support {
    pub mod gguf_corpus;
    pub mod gguf_writer;
}

fn llama_8b() -> Model {
    let keys = [
        ("block_count", 32),
        ("embedding_length", 4096),
        ("feed_forward_length", 14_336),
        ("attention.head_count", 32),
        ("attention.head_count_kv", 8),
        ("vocab_size", 128_256),
        ("context_length", 131_072),
    ];

    let mut header = Header::default()
        .with("general.architecture", Kv::Text("llama".into()))
        .tensor("output.weight", &[256, 4], 0, 4096);
    for (key, value) in keys {
        header = header.with(&format!("llama.{key}"), Kv::U32(value));
    }

    model(parsed(&header))
}

fn card(gib: u64) -> DeviceFacts {
    DeviceFacts {
        uuid: format!("GPU-{gib}"),
        index: 0,
        name: "NVIDIA GeForce RTX 4090".into(),
        kind: DeviceKind::Gpu,
        total_bytes: Bytes::gib(gib),
        reserved_bytes: None,
        compute_capability: Some((8, 9)),
        multiprocessors: Some(128),
        parent_uuid: None,
        pci_bus_id: None,
        numa_node: None,
    }
}

fn workload(
    model: &Model,
    devices: &[DeviceFacts],
    parameters: &[(&str, Value)],
    asked: AskedWorkload,
) -> Workload {
    let parameters: BTreeMap<String, Value> = parameters
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    let request = EngineRequest {
        model,
        version: None,
        parameters: &parameters,
        asked,
        devices,
    };

    Ollama.prepare(&request).unwrap().workload()
}

#[test]
fn default_context_follows_total_memory() {
    let model = llama_8b();
    let context_on =
        |devices: &[DeviceFacts]| workload(&model, devices, &[], AskedWorkload::default()).context;
    assert_eq!(context_on(&[card(8)]), 4096);
    assert_eq!(context_on(&[card(24)]), 32_768);

    assert_eq!(
        context_on(&[card(24), card(24)]),
        131_072,
        "262,144 capped by the model"
    );

    let option = [("num_ctx", json!(9000))];
    assert_eq!(
        workload(&model, &[card(8)], &option, AskedWorkload::default()).context,
        9000
    );

    let asked = AskedWorkload {
        context: Some(AskedContext::Max),
        ..AskedWorkload::default()
    };

    assert_eq!(workload(&model, &[card(8)], &[], asked).context, 131_072);
    let two = [("OLLAMA_NUM_PARALLEL", json!(2))];
    assert_eq!(
        workload(&model, &[card(8)], &two, AskedWorkload::default()),
        Workload {
            context: 4096,
            sequences: 2
        }
    );
}

#[test]
fn each_slot_has_own_cache() {
    let (model, devices) = (llama_8b(), [card(24)]);
    let cache_bytes = |slots: u64| {
        let parameters = BTreeMap::from([("num_parallel".to_owned(), json!(slots))]);
        let request = EngineRequest {
            model: &model,
            version: None,
            parameters: &parameters,
            asked: AskedWorkload::default(),
            devices: &devices,
        };

        let prepared = Ollama.prepare(&request).unwrap();
        let split = prepared.splits(1).unwrap().remove(0);
        let parts = prepared
            .variable(&split, 0, &devices[0], prepared.workload())
            .unwrap();

        parts
            .iter()
            .find(|part| part.name == ComponentName::KvCache)
            .unwrap()
            .bytes
            .likely
            .get()
    };

    assert_eq!(cache_bytes(1), 32_768 * 131_072);
    assert_eq!(cache_bytes(3), 3 * 32_768 * 131_072);
}

#[test]
fn errors_use_ollama_names() {
    let (model, devices) = (llama_8b(), [card(24)]);
    let reject_parameter = |name: &str, value: Value| {
        let parameters = BTreeMap::from([(name.to_owned(), value)]);
        let request = EngineRequest {
            model: &model,
            version: None,
            parameters: &parameters,
            asked: AskedWorkload::default(),
            devices: &devices,
        };

        Ollama.prepare(&request).err().unwrap()
    };

    let unknown = reject_parameter("num_ctxs", json!(1)).to_string();
    assert_eq!(
        unknown,
        "ollama has no parameter 'num_ctxs'; did you mean 'num_ctx'?"
    );
    assert!(matches!(
        reject_parameter("kv_cache_type", json!("fp8")),
        EngineError::BadParameter { name, engine: "ollama", .. } if name == "kv_cache_type"
    ));

    assert!(matches!(
        reject_parameter("num_batch", json!("many")),
        EngineError::BadParameter { .. }
    ));
}

#[test]
fn small_devices_and_expert_offload_fail() {
    let (model, devices, parameters) = (llama_8b(), [card(24)], BTreeMap::new());
    let request = EngineRequest {
        model: &model,
        version: None,
        parameters: &parameters,
        asked: AskedWorkload::default(),
        devices: &devices,
    };

    let prepared = Ollama.prepare(&request).unwrap();
    let tiny = DeviceFacts {
        total_bytes: Bytes::mib(400),
        ..card(1)
    };

    assert!(matches!(
        prepared.device_fitness(&tiny),
        DeviceSupport::Unable(_)
    ));
    assert_eq!(prepared.device_fitness(&devices[0]), DeviceSupport::Able);

    let split = Split {
        offload: Offload::Experts { layers: 1 },
        ..prepared.splits(1).unwrap().remove(0)
    };

    assert!(prepared.check(&split).is_err());
}

#[test]
fn launch_line_names_hub_file() {
    let (model, devices, parameters) = (llama_8b(), [card(24)], BTreeMap::new());
    let asked = AskedWorkload {
        kv_cache_dtype: Some("q8_0".into()),
        ..AskedWorkload::default()
    };

    let request = EngineRequest {
        model: &model,
        version: None,
        parameters: &parameters,
        asked,
        devices: &devices,
    };

    let prepared = Ollama.prepare(&request).unwrap();
    let split = prepared.splits(1).unwrap().remove(0);

    let device = LaunchDevice {
        facts: &devices[0],
        available: Bytes::ZERO,
        required: Bytes::ZERO,
        free: None,
    };

    let launch = prepared.launch(&LaunchPlan {
        split: &split,
        workload: prepared.workload(),
        devices: &[device],
    });
    assert_eq!(launch.args, ["ollama", "run", "hf.co/owner/name-GGUF:Q8_0"]);
    assert_eq!(launch.env["OLLAMA_CONTEXT_LENGTH"], "32768");
    assert_eq!(launch.env["OLLAMA_KV_CACHE_TYPE"], "q8_0");
    assert_eq!(launch.env["CUDA_VISIBLE_DEVICES"], "GPU-24");
}
