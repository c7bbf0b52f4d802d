//! Tests of invalid and hostile values: errors and warnings name the key, and nothing panics.

use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn invalid_values_are_named() {
    let cases = [
        ("num_hidden_layers", json!(0)),
        ("num_hidden_layers", json!(-4)),
        ("num_hidden_layers", json!("36")),
        ("num_hidden_layers", json!(1_000_000)),
        ("num_hidden_layers", json!(4.5)),
        ("num_attention_heads", json!(0)),
        ("num_key_value_heads", json!(3)),
        ("num_key_value_heads", json!(0)),
        ("hidden_size", json!(u64::MAX)),
        ("hidden_size", json!([1024])),
        ("head_dim", json!({})),
        ("vocab_size", json!(null)),
        ("layer_types", json!(["full_attention"])),
        ("layer_types", json!("full_attention")),
        ("max_position_embeddings", json!("long")),
        ("rope_scaling", json!({"type": "linear", "factor": -8.0})),
        ("rope_scaling", json!({"type": "linear", "factor": "8"})),
        ("rope_scaling", json!([])),
        ("use_sliding_window", json!("yes")),
        ("num_nextn_predict_layers", json!(100_000)),
        ("model_type", json!(7)),
    ];

    for (key, value) in cases {
        let error = read(&qwen3_with(key, value.clone())).unwrap_err();
        let named = match &error {
            Unsupported::Contradiction { key, .. } | Unsupported::Missing { key, .. } => {
                key.clone()
            }
            other => panic!("{key} = {value}: {other}"),
        };

        assert!(
            key == named || ["factor"].contains(&&*named),
            "{key} = {value}: {error}"
        );
    }
}

/// A key that decides which layers own a cache must be understood whole.
#[test]
fn unclear_cache_owners_are_named() {
    for (model_type, key, value) in [
        (
            "mistral_large4_text",
            "kv_source_layers",
            json!([0, 0, 99, 2]),
        ),
        (
            "mistral_large4_text",
            "index_topk_pattern",
            json!(["full", "full", "full", "full"]),
        ),
        ("dory", "recurrent_kv_cache_mode", json!(5)),
    ] {
        let mut config = json!({"model_type": model_type});
        if model_type != "dory" {
            config["num_hidden_layers"] = json!(4);
        }
        config[key] = value;

        let error = read(&config).unwrap_err().to_string();
        assert!(error.contains(key), "{key}: {error}");
    }
}

#[test]
fn indivisible_heads_are_named() {
    let mut config = qwen3();
    config["model_type"] = json!("llama");
    config.as_object_mut().unwrap().remove("head_dim");
    config["hidden_size"] = json!(1000);
    let error = read(&config).unwrap_err().to_string();
    assert_eq!(
        error,
        "num_attention_heads = 16: hidden size 1000 is not divisible by it, and head_dim is absent"
    );
}

#[test]
fn untyped_configurations_are_rejected() {
    assert_eq!(read(&Value::Null), Err(Unsupported::NoConfiguration));
    for config in [
        json!([]),
        json!("config"),
        json!(3),
        json!({}),
        json!({"model_type": null}),
    ] {
        read(&config).unwrap_err();
    }
}

#[test]
fn unknown_layer_words_are_named() {
    let words = json!([
        "full_attention",
        "holographic_attention",
        "full_attention",
        "full_attention"
    ]);
    let error = read(&qwen3_with("layer_types", words))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("layer_types[1] = holographic_attention"),
        "{error}"
    );
    let pattern = json!({"model_type": "nemotron_h", "hidden_size": 64, "num_attention_heads": 8,
        "vocab_size": 9, "hybrid_override_pattern": "M*X", "intermediate_size": 64});
    assert!(
        read(&pattern)
            .unwrap_err()
            .to_string()
            .contains("hybrid_override_pattern[2] = X")
    );
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0_u64..5000).prop_map(Value::from),
        "[a-z_]{0,12}".prop_map(Value::from),
    ];

    leaf.prop_recursive(2, 16, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{1,10}", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

/// Keys whose values the rules use as divisors, indices or factors.
const HOSTILE_KEYS: &[&str] = &[
    "model_type",
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
    "sliding_window",
    "layer_types",
    "rope_scaling",
    "rope_parameters",
    "quantization_config",
    "text_config",
    "vision_config",
    "num_experts",
    "compress_ratios",
    "block_configs",
    "hybrid_override_pattern",
    "attn_layer_period",
    "layer_group_size",
    "full_attention_interval",
    "mamba_step",
    "linear_attn_config",
    "num_kv_shared_layers",
    "sliding_window_pattern",
    "attn_config",
    "moe_layer_freq",
    "decoder_sparse_step",
    "interleave_moe_layer_step",
    "partial_rotary_factor",
    "attention_chunk_size",
];

const HOSTILE_TYPES: &[&str] = &[
    "llama",
    "gemma3_text",
    "gemma4_text",
    "llama4_text",
    "deepseek_v3",
    "deepseek_v4",
    "jamba",
    "nemotron_h",
    "zamba2",
    "qwen3_next",
    "kimi_linear",
    "minimax_text_01",
    "bailing_hybrid",
    "plamo2",
    "lfm2",
    "mllama_text_model",
    "nemotron-nas",
    "mimo_v2_flash",
    "step3p5",
    "falcon",
    "dbrx",
    "whisper",
    "bert",
    "granitemoehybrid",
    "falcon_h1",
    "cohere2",
    "exaone4",
];

proptest! {
    #[test]
    fn hostile_configurations_do_not_panic(
        kind in prop::sample::select(HOSTILE_TYPES),
        keys in prop::collection::vec((prop::sample::select(HOSTILE_KEYS), any_value()), 0..8),
    ) {
        let mut config = qwen3_with("model_type", json!(kind));
        for (key, value) in keys {
            config[key] = value;
        }
        let _ = read(&config);
    }
}

#[test]
fn out_of_range_values_warn() {
    let read_changed = |changes: Value| {
        let mut config =
            serde_json::json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama"});
        config
            .as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        architecture_and_warnings(&config, None, &Inventory::default())
    };

    let (read, warned) = read_changed(serde_json::json!({"max_position_embeddings": i64::MAX}));
    assert_eq!(read.unwrap().max_context, None);
    assert_eq!(warned.len(), 1, "{warned:?}");

    assert!(
        warned[0].contains("max_position_embeddings = 9223372036854775807"),
        "{warned:?}"
    );

    let (_, warned) = read_changed(serde_json::json!({"max_position_embeddings": 4096}));
    assert_eq!(warned, Vec::<String>::new());

    for (changes, named) in [
        (
            serde_json::json!({"vision_config": {"depth": 1_u64 << 40, "hidden_size": 1280}}),
            "depth",
        ),
        (
            serde_json::json!({"num_experts": 8, "num_experts_per_tok": 2, "moe_layers": [1, 99]}),
            "moe_layers = 99",
        ),
        (
            serde_json::json!({"num_experts": 8, "num_experts_per_tok": 2,
                "moe_layers_enum": "1,99"}),
            "moe_layers_enum = 99",
        ),
        (
            serde_json::json!({"num_experts": 8, "num_experts_per_tok": 2,
                "moe_layers_enum": "1,x"}),
            "moe_layers_enum = 'x'",
        ),
        (
            serde_json::json!({"num_experts": 8, "num_experts_per_tok": 2,
                "mlp_only_layers": [99]}),
            "mlp_only_layers = 99",
        ),
    ] {
        let (_, warned) = read_changed(changes.clone());
        assert!(
            warned.iter().any(|warning| warning.contains(named)),
            "{changes}: {warned:?}"
        );
    }
}
