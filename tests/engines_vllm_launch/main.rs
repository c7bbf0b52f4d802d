//! vLLM's [`PreparedEngine`]: launch lines, shares, legal splits, device support and refusals.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "these are test helpers"
)]

mod launch_lines;
mod parameters;
mod splits;

use std::collections::BTreeMap;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{DeviceFacts, DeviceKind};
use hf_mem_core::engines::component::device_sum;
use hf_mem_core::engines::{
    AskedContext, AskedWorkload, EngineError, EngineRequest, Engines, Launch, LaunchDevice,
    LaunchPlan, PreparedEngine, Split,
};
use hf_mem_core::model::tensors::InventoryBuilder;
use hf_mem_core::model::{Dtype, Format, Inventory, Model, Storage, config};
use serde_json::{Value, json};

fn device(name: &str, mib: u64, capability: (u32, u32), multiprocessors: u32) -> DeviceFacts {
    DeviceFacts {
        uuid: format!("GPU-{name}"),
        index: 0,
        name: name.to_owned(),
        kind: DeviceKind::Gpu,
        total_bytes: Bytes::mib(mib),
        reserved_bytes: Some(Bytes::mib(400)),
        compute_capability: Some(capability),
        multiprocessors: Some(multiprocessors),
        parent_uuid: None,
        pci_bus_id: None,
        numa_node: None,
    }
}

fn h100() -> DeviceFacts {
    device("NVIDIA H100 80GB HBM3", 81_559, (9, 0), 132)
}

fn t4() -> DeviceFacts {
    device("Tesla T4", 15_360, (7, 5), 40)
}

/// The tensors of Llama 3.1 8B.
fn llama_inventory() -> Inventory {
    const LAYER: [(&str, &[u64]); 9] = [
        ("input_layernorm", &[4096]),
        ("post_attention_layernorm", &[4096]),
        ("self_attn.q_proj", &[4096, 4096]),
        ("self_attn.k_proj", &[1024, 4096]),
        ("self_attn.v_proj", &[1024, 4096]),
        ("self_attn.o_proj", &[4096, 4096]),
        ("mlp.gate_proj", &[14_336, 4096]),
        ("mlp.up_proj", &[14_336, 4096]),
        ("mlp.down_proj", &[4096, 14_336]),
    ];

    let mut builder = InventoryBuilder::default();
    add_tensor(&mut builder, "model.embed_tokens.weight", &[128_256, 4096]);
    add_tensor(&mut builder, "lm_head.weight", &[128_256, 4096]);
    add_tensor(&mut builder, "model.norm.weight", &[4096]);

    for layer in 0..32 {
        for (name, shape) in LAYER {
            let name = format!("model.layers.{layer}.{name}.weight");
            add_tensor(&mut builder, &name, shape);
        }
    }

    builder.finish()
}

fn add_tensor(builder: &mut InventoryBuilder, name: &str, shape: &[u64]) {
    let bytes = Dtype::BF16.stored(shape.iter().product()).unwrap();
    builder.add("", name, Storage::Known(Dtype::BF16), shape, bytes);
}

/// Llama 3.1 8B whose configuration `changes` replaces in part.
fn llama(changes: &Value) -> Model {
    let mut settings = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128_256, "max_position_embeddings": 131_072,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16"
    });
    for (key, value) in changes.as_object().unwrap() {
        settings[key] = value.clone();
    }

    let inventory = llama_inventory();
    Model {
        weight_files: 4,
        ..Model::bare(
            "meta-llama/Llama-3.1-8B-Instruct",
            Format::Safetensors,
            config::architecture(&settings, None, &inventory),
            inventory,
        )
    }
}

fn prepare<'a>(request: &EngineRequest<'a>) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
    static ENGINES: std::sync::LazyLock<Engines> =
        std::sync::LazyLock::new(|| Engines::embedded().unwrap());
    ENGINES.by_name("vllm").unwrap().prepare(request)
}

fn asked(context: u64, sequences: u64) -> AskedWorkload {
    AskedWorkload {
        context: Some(AskedContext::Tokens(context)),
        sequences: Some(sequences),
        ..AskedWorkload::default()
    }
}

/// The launch line on devices with `available` bytes each, and the bytes required on each.
fn launch(
    parameters: &BTreeMap<String, Value>,
    devices: &[DeviceFacts],
    split: &Split,
    available: Bytes,
) -> (Launch, Vec<Bytes>) {
    let model = llama(&json!({}));
    let request = EngineRequest {
        model: &model,
        version: None,
        parameters,
        asked: asked(8192, 4),
        devices,
    };

    let prepared = prepare(&request).unwrap();
    let workload = prepared.workload();

    let required: Vec<Bytes> = devices
        .iter()
        .enumerate()
        .map(|(rank, device)| {
            let mut parts = prepared.fixed(split, rank, device).unwrap();
            parts.extend(prepared.variable(split, rank, device, workload).unwrap());
            device_sum(&parts).high
        })
        .collect();
    let devices: Vec<LaunchDevice<'_>> = devices
        .iter()
        .zip(&required)
        .map(|(facts, required)| LaunchDevice {
            facts,
            available,
            required: *required,
            free: Some(available),
        })
        .collect();

    (
        prepared.launch(&LaunchPlan {
            split,
            workload,
            devices: &devices,
        }),
        required,
    )
}
