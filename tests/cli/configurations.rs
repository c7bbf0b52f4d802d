//! Contradictory model configurations: "unknown" with the field's name, exit code 3, no total.

use std::fs;

use serde_json::{Value, json};

use super::run::run;

/// Writes a model with one tensor that no rule knows, so that only the configuration matters.
fn folder(directory: &std::path::Path, name: &str, config: &Value) -> String {
    let header = r#"{"x.weight":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}  "#;
    let file = [
        &(header.len() as u64).to_le_bytes()[..],
        header.as_bytes(),
        &[0; 16],
    ]
    .concat();

    let folder = directory.join(name);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("model.safetensors"), file).unwrap();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();

    folder.display().to_string()
}

fn llama() -> Value {
    json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256,
        "max_position_embeddings": 8192, "torch_dtype": "bfloat16"})
}

#[test]
fn contradiction_is_unknown_with_field() {
    let directory = tempfile::tempdir().unwrap();
    let cases = [
        (
            "num_attention_heads",
            json!({"num_attention_heads": 30, "num_key_value_heads": 30}),
        ),
        ("num_key_value_heads", json!({"num_key_value_heads": 7})),
        ("num_hidden_layers", json!({"num_hidden_layers": 0})),
        ("num_hidden_layers", json!({"num_hidden_layers": -3})),
        (
            "num_hidden_layers",
            json!({"num_hidden_layers": 2_147_483_648_u64}),
        ),
        ("hidden_size", json!({"hidden_size": u64::MAX})),
        ("vocab_size", json!({"vocab_size": "many"})),
        ("head_dim", json!({"head_dim": [128]})),
        ("intermediate_size", json!({"intermediate_size": -1})),
        (
            "layer_types",
            json!({"layer_types": ["full_attention", "full_attention"]}),
        ),
        ("layer_types", json!({"layer_types": "full_attention"})),
        ("torch_dtype", json!({"torch_dtype": 7})),
        ("torch_dtype", json!({"torch_dtype": "float3"})),
        (
            "factor",
            json!({"rope_scaling": {"rope_type": "yarn", "factor": -4}}),
        ),
        (
            "max_position_embeddings",
            json!({"max_position_embeddings": -1}),
        ),
        ("tie_word_embeddings", json!({"tie_word_embeddings": "no"})),
        (
            "num_experts_per_tok",
            json!({"num_experts": 8, "num_experts_per_tok": 9}),
        ),
        ("num_experts_per_tok", json!({"num_experts": 8})),
        ("quantization_config", json!({"quantization_config": []})),
        (
            "quant_method",
            json!({"quantization_config": {"quant_method": 5}}),
        ),
        (
            "quant_method",
            json!({"quantization_config": {"scheme": "of its own"}}),
        ),
        (
            "bits",
            json!({"quantization_config": {"quant_method": "gptq", "bits": 0}}),
        ),
        (
            "weight_block_size",
            json!({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128]}}),
        ),
        (
            "architectures",
            json!({"architectures": "LlamaForCausalLM"}),
        ),
        ("model_type", json!({"model_type": ["llama"]})),
        ("text_config", json!({"text_config": []})),
        (
            "per_layer_config",
            json!({"per_layer_config": {"99": {"head_dim": 64}}}),
        ),
    ];

    for (index, (named, change)) in cases.iter().enumerate() {
        let mut config = llama();
        config
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        let folder = folder(directory.path(), &index.to_string(), &config);

        for engine in ["vllm", "reference"] {
            let outcome = run(&format!(
                "fits {folder} --gpus 24GiB --engine {engine} --json"
            ));
            let answer = outcome.json();
            let found = (
                outcome.code,
                answer["verdict"].as_str(),
                answer["reason"].as_str(),
            );

            assert_eq!(
                found,
                (3, Some("unknown"), Some("unsupported_architecture")),
                "{change}: {}",
                outcome.out
            );

            assert!(
                answer["message"].as_str().unwrap().contains(named),
                "{change}: {}",
                answer["message"]
            );

            assert_eq!(answer["requirement"]["total"], Value::Null, "{change}");
        }
    }
}

#[test]
fn overflowing_sizes_are_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = llama();
    config["head_dim"] = json!(2_147_483_648_u64);
    let folder = folder(directory.path(), "giant", &config);
    let outcome = run(&format!("fits {folder} --gpus 24GiB --json"));
    let answer = outcome.json();
    assert_eq!(
        (outcome.code, answer["reason"].as_str()),
        (3, Some("missing_metadata")),
        "{}",
        outcome.out
    );

    assert!(
        answer["detail"]
            .as_str()
            .unwrap()
            .contains("larger than 2^64 bytes"),
        "{}",
        outcome.out
    );
}
