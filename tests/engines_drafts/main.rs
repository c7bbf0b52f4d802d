//! Drafts against the figures of the engines' own planners (`referees/vllm`, `referees/sglang`).
//!
//! Models come from the metadata folder `../shared/hub`; without it, a test prints that it skips.
#![expect(clippy::unwrap_used, reason = "the helpers of tests may fail them")]
#![allow(clippy::print_stdout, reason = "prints what it skips")]

mod sglang;
mod vllm;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{DeviceFacts, DeviceKind};
use hf_mem_core::engines::{
    AskedContext, AskedWorkload, Component, ComponentName, EngineRequest, EngineVersion, by_name,
    companions,
};
use hf_mem_core::model::tensors::InventoryBuilder;
use hf_mem_core::model::{Dtype, Format, Inventory, Model, Storage, config};
use serde_json::{Value, json};

fn h100() -> DeviceFacts {
    DeviceFacts {
        uuid: "GPU-0".to_owned(),
        index: 0,
        name: "NVIDIA H100 80GB HBM3".to_owned(),
        kind: DeviceKind::Gpu,
        total_bytes: Bytes::new(85_520_809_984),
        reserved_bytes: None,
        compute_capability: Some((9, 0)),
        multiprocessors: Some(132),
        parent_uuid: None,
        pci_bus_id: None,
        numa_node: None,
    }
}

fn model(repo: &str, settings: &Value, inventory: Inventory) -> Model {
    let architecture = config::architecture(settings, None, &inventory);
    Model::bare(repo, Format::Safetensors, architecture, inventory)
}

fn hub_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/hub/models")
}

/// Returns a model of the metadata folder; `None` without the folder.
fn hub_model(repo: &str) -> Option<Model> {
    let folder = hub_folder().join(repo);
    let Ok(settings) = std::fs::read(folder.join("config.json")) else {
        println!("skipped: no metadata of {repo}");
        return None;
    };

    let mut text = String::new();
    let file = std::fs::File::open(folder.join("tensors.json.gz")).unwrap();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .unwrap();

    let rows: Vec<(String, String, String, Vec<u64>)> = serde_json::from_str(&text).unwrap();
    let mut builder = InventoryBuilder::default();
    for (_, name, dtype, shape) in &rows {
        let dtype = Dtype::from_safetensors(dtype).unwrap();
        let bytes = dtype.stored(shape.iter().product()).unwrap();
        builder.add("", name, Storage::Known(dtype), shape, bytes);
    }

    let settings = serde_json::from_slice(&settings).unwrap();
    Some(model(repo, &settings, builder.finish()))
}

/// An EAGLE-3 head for Llama 3.1 8B, with a head of its own for `draft_vocabulary` tokens and, if
/// `embeds`, an embedding.
fn eagle3(draft_vocabulary: u64, embeds: bool) -> Model {
    let settings = json!({
        "architectures": ["LlamaForCausalLMEagle3"], "model_type": "llama", "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 1, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128_256,
        "draft_vocab_size": draft_vocabulary, "max_position_embeddings": 2048,
        "rope_theta": 500_000.0, "torch_dtype": "bfloat16", "tie_word_embeddings": false
    });

    let mut tensors: Vec<(&str, Dtype, Vec<u64>)> = vec![
        (
            "midlayer.self_attn.q_proj.weight",
            Dtype::BF16,
            vec![4096, 8192],
        ),
        (
            "midlayer.self_attn.k_proj.weight",
            Dtype::BF16,
            vec![1024, 8192],
        ),
        (
            "midlayer.self_attn.v_proj.weight",
            Dtype::BF16,
            vec![1024, 8192],
        ),
        (
            "midlayer.self_attn.o_proj.weight",
            Dtype::BF16,
            vec![4096, 4096],
        ),
        (
            "midlayer.mlp.gate_proj.weight",
            Dtype::BF16,
            vec![14_336, 4096],
        ),
        (
            "midlayer.mlp.up_proj.weight",
            Dtype::BF16,
            vec![14_336, 4096],
        ),
        (
            "midlayer.mlp.down_proj.weight",
            Dtype::BF16,
            vec![4096, 14_336],
        ),
        ("midlayer.hidden_norm.weight", Dtype::BF16, vec![4096]),
        ("midlayer.input_layernorm.weight", Dtype::BF16, vec![4096]),
        (
            "midlayer.post_attention_layernorm.weight",
            Dtype::BF16,
            vec![4096],
        ),
        ("norm.weight", Dtype::BF16, vec![4096]),
        ("fc.weight", Dtype::BF16, vec![4096, 12_288]),
        ("d2t", Dtype::I64, vec![draft_vocabulary]),
        ("t2d", Dtype::Bool, vec![128_256]),
        ("lm_head.weight", Dtype::BF16, vec![draft_vocabulary, 4096]),
    ];
    if embeds {
        tensors.push(("embed_tokens.weight", Dtype::BF16, vec![128_256, 4096]));
    }

    let mut builder = InventoryBuilder::default();
    for (name, dtype, shape) in &tensors {
        let bytes = dtype.stored(shape.iter().product()).unwrap();
        builder.add("", name, Storage::Known(*dtype), shape, bytes);
    }

    model(
        "yuhuili/EAGLE3-LLaMA3.1-Instruct-8B",
        &settings,
        builder.finish(),
    )
}

fn request<'a>(
    model: &'a Model,
    parameters: &'a BTreeMap<String, Value>,
    devices: &'a [DeviceFacts],
) -> EngineRequest<'a> {
    EngineRequest {
        model,
        version: None,
        parameters,
        asked: AskedWorkload {
            context: Some(AskedContext::Tokens(8192)),
            ..AskedWorkload::default()
        },
        devices,
    }
}

/// All components of `model` on one device at a context of 8192.
fn components(engine: &str, model: &Model, parameters: &BTreeMap<String, Value>) -> Vec<Component> {
    split_components(engine, model, parameters, 1)
}

/// All components of the first of `tensor` ranks at a context of 8192.
fn split_components(
    engine: &str,
    model: &Model,
    parameters: &BTreeMap<String, Value>,
    tensor: u32,
) -> Vec<Component> {
    let devices = [h100()];
    let engine = by_name(engine).unwrap();
    let prepared = companions::prepare(engine, &request(model, parameters, &devices)).unwrap();

    let splits = prepared.splits(tensor).unwrap();
    let split = splits
        .into_iter()
        .find(|split| split.tensor == tensor)
        .unwrap();
    let mut parts = prepared.fixed(&split, 0, &devices[0]).unwrap();
    let workload = prepared.workload();
    parts.extend(prepared.variable(&split, 0, &devices[0], workload).unwrap());

    parts
}

/// Why `engine` at `version` refuses `model` with `parameters`.
fn refusal(
    engine: &str,
    model: &Model,
    parameters: &BTreeMap<String, Value>,
    version: Option<&str>,
) -> String {
    let devices = [h100()];
    let version: Option<EngineVersion> = version.map(|text| text.parse().unwrap());
    let request = EngineRequest {
        version: version.as_ref(),
        ..request(model, parameters, &devices)
    };

    match companions::prepare(by_name(engine).unwrap(), &request) {
        Ok(_) => "prepared".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn sum_of(parts: &[Component], name: ComponentName) -> (u64, u64, u64) {
    let sum = parts
        .iter()
        .filter(|part| part.name == name)
        .map(|part| part.bytes)
        .sum::<hf_mem_core::engines::Interval>();

    (sum.low.get(), sum.likely.get(), sum.high.get())
}

/// The weights of the draft, low, likely and high.
fn draft_weights(parts: &[Component]) -> (u64, u64, u64) {
    let own: Vec<Component> = parts
        .iter()
        .filter(|part| part.detail.starts_with("the draft "))
        .cloned()
        .collect();
    assert_eq!(own.len(), 1, "{parts:?}");

    sum_of(&own, ComponentName::Weights)
}

/// A Llama of two layers and 128,256 tokens.
fn small_target() -> Model {
    let settings = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 2, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128_256, "max_position_embeddings": 8192,
        "torch_dtype": "bfloat16"
    });

    let mut builder = InventoryBuilder::default();
    for layer in 0..2 {
        let name = format!("model.layers.{layer}.mlp.up_proj.weight");
        let shape = [14_336, 4096];
        let bytes = Dtype::BF16.stored(shape.iter().product()).unwrap();
        builder.add("", &name, Storage::Known(Dtype::BF16), &shape, bytes);
    }

    model("owner/target", &settings, builder.finish())
}
