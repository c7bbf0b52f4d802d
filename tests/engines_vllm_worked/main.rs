//! Worked examples for vLLM and SGLang, to the byte.
//!
//! Cache examples use published configurations, which this file contains. Weight examples read the
//! metadata folder `../shared/hub` next to the repository, and are skipped without it.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "these are test helpers"
)]

mod caches;
mod planner;
mod sglang;
mod weights;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{DeviceFacts, DeviceKind};
use hf_mem_core::engines::vllm::{Vllm, VllmPrepared};
use hf_mem_core::engines::{AskedContext, AskedWorkload, EngineError, EngineRequest, Split};
use hf_mem_core::model::tensors::InventoryBuilder;
use hf_mem_core::model::{Dtype, Format, Inventory, Model, Storage, config};
use serde_json::{Value, json};

fn h100() -> DeviceFacts {
    DeviceFacts {
        uuid: "GPU-0".to_owned(),
        index: 0,
        name: "NVIDIA H100 80GB HBM3".to_owned(),
        kind: DeviceKind::Gpu,
        total_bytes: Bytes::mib(81_559),
        reserved_bytes: Some(Bytes::mib(469)),
        compute_capability: Some((9, 0)),
        multiprocessors: Some(132),
        parent_uuid: None,
        pci_bus_id: None,
        numa_node: None,
    }
}

fn model(config: &Value, inventory: Inventory) -> Model {
    Model::bare(
        "owner/name",
        Format::Safetensors,
        config::architecture(config, None, &inventory),
        inventory,
    )
}

/// A model of the metadata folder; `None`, with a printed line, without the folder.
fn hub(repo: &str) -> Option<Model> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../shared/hub/models")
        .join(repo);
    if !folder.exists() {
        println!("skipped: no metadata of {repo}");
        return None;
    }

    let settings: Value =
        serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
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

    Some(model(&settings, builder.finish()))
}

/// Calls `inspect` with the newest vLLM prepared for one question, its parameters as pairs.
fn with_prepared<T>(
    model: &Model,
    context: u64,
    parameters: &[(&str, Value)],
    inspect: impl FnOnce(VllmPrepared<'_>) -> T,
) -> T {
    with_version(None, model, context, parameters, inspect)
}

/// Calls `inspect` with vLLM at `version` prepared for one question.
fn with_version<T>(
    version: Option<&str>,
    model: &Model,
    context: u64,
    parameters: &[(&str, Value)],
    inspect: impl FnOnce(VllmPrepared<'_>) -> T,
) -> T {
    with_result(version, model, context, parameters, |prepared| {
        inspect(prepared.unwrap())
    })
}

/// Calls `inspect` with the result of preparing vLLM at `version` for one question.
fn with_result<T>(
    version: Option<&str>,
    model: &Model,
    context: u64,
    parameters: &[(&str, Value)],
    inspect: impl FnOnce(Result<VllmPrepared<'_>, EngineError>) -> T,
) -> T {
    let parameters: BTreeMap<String, Value> = parameters
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    let device = h100();
    let version = version.map(|text| text.parse().unwrap());

    let asked = AskedWorkload {
        context: Some(AskedContext::Tokens(context)),
        ..AskedWorkload::default()
    };

    let request = EngineRequest {
        model,
        version: version.as_ref(),
        parameters: &parameters,
        asked,
        devices: std::slice::from_ref(&device),
    };

    let engine = Vllm::with_profiles(Vllm::profiles().unwrap());
    inspect(engine.prepare(&request))
}

fn split(model: &Model, tensor: u32) -> Split {
    Split::tensor(tensor, model.architecture.as_ref().unwrap().layer_count())
}

/// Minimum cache of one sequence in bytes, without checkpoint blocks and the null block.
fn need(config: &Value, context: u64, tensor: u32, parameters: &[(&str, Value)]) -> u64 {
    let model = model(config, Inventory::default());
    let split = split(&model, tensor);
    with_prepared(&model, context, parameters, |prepared| {
        prepared.needed_for_one(&split, 0).likely.get()
    })
}

/// [`need`] on one device at a release.
fn need_at(version: &str, config: &Value, context: u64) -> u64 {
    let model = model(config, Inventory::default());
    let split = split(&model, 1);
    with_version(Some(version), &model, context, &[], |prepared| {
        prepared.needed_for_one(&split, 0).likely.get()
    })
}

/// Weights on the first rank of a model of the metadata folder, in bytes.
fn weight_bytes(repo: &str, tensor: u32, parameters: &[(&str, Value)]) -> Option<u64> {
    let model = hub(repo)?;
    let split = split(&model, tensor);
    let device = h100();

    Some(with_prepared(&model, 1024, parameters, |prepared| {
        prepared
            .start_up_log(&split, 0, &device)
            .weights
            .likely
            .get()
    }))
}

fn llama_8b() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128_256, "max_position_embeddings": 131_072,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16"
    })
}

fn gemma_3_27b() -> Value {
    json!({
        "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
        "torch_dtype": "bfloat16",
        "text_config": {
            "model_type": "gemma3_text", "hidden_size": 5376, "intermediate_size": 21504,
            "num_hidden_layers": 62, "num_attention_heads": 32, "num_key_value_heads": 16,
            "head_dim": 128, "sliding_window": 1024,
            "rope_scaling": { "factor": 8.0, "rope_type": "linear" }
        },
        "vision_config": {
            "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304,
            "num_hidden_layers": 27, "num_attention_heads": 16, "image_size": 896,
            "patch_size": 14
        }
    })
}

fn qwen3_next() -> Value {
    json!({
        "architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next", "hidden_size": 2048,
        "intermediate_size": 5120, "num_hidden_layers": 48, "num_attention_heads": 16,
        "num_key_value_heads": 2, "head_dim": 256, "vocab_size": 151_936,
        "linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_key_head_dim": 128,
        "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4, "full_attention_interval": 4,
        "num_experts": 512, "num_experts_per_tok": 10, "moe_intermediate_size": 512,
        "shared_expert_intermediate_size": 512, "max_position_embeddings": 262_144,
        "partial_rotary_factor": 0.25, "torch_dtype": "bfloat16", "tie_word_embeddings": false,
        "decoder_sparse_step": 1
    })
}

fn deepseek(model_type: &str, class: &str) -> Value {
    json!({
        "architectures": [class], "model_type": model_type, "hidden_size": 7168,
        "intermediate_size": 18432, "num_hidden_layers": 61, "num_attention_heads": 128,
        "num_key_value_heads": 128, "kv_lora_rank": 512, "q_lora_rank": 1536,
        "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "vocab_size": 129_280,
        "n_routed_experts": 256, "num_experts_per_tok": 8, "moe_intermediate_size": 2048,
        "n_shared_experts": 1, "first_k_dense_replace": 3, "max_position_embeddings": 163_840,
        "torch_dtype": "bfloat16", "tie_word_embeddings": false
    })
}

fn gpt_oss_120b() -> Value {
    json!({
        "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "hidden_size": 2880,
        "intermediate_size": 2880, "num_hidden_layers": 36, "num_attention_heads": 64,
        "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 201_088, "sliding_window": 128,
        "num_local_experts": 128, "num_experts_per_tok": 4, "max_position_embeddings": 131_072,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16",
        "rope_scaling": { "rope_type": "yarn", "factor": 32.0,
        "original_max_position_embeddings": 4096 }
    })
}
