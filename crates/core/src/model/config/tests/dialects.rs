//! Tests of models that are published in several dialects.
//!
//! The authors write one dialect, transformers 5 the other for the same class.

use serde_json::json;

use super::*;

/// (span, KV heads, key head) of each attention layer.
fn heads(config: &Value) -> Vec<(Span, u64, u64)> {
    let attention_layers = read(config).unwrap().layers.into_iter();
    attention_layers
        .map(|layer| match layer.mixer {
            Mixer::Attention(attention) => (attention.span, attention.kv_heads, attention.key_dim),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn gemma_4_dialects_agree() {
    let words = json!(["sliding_attention", "sliding_attention", "full_attention"]);
    let own = json!({"model_type": "gemma4_text", "num_hidden_layers": 3, "layer_types": words,
        "attention_k_eq_v": true, "global_head_dim": 512, "num_global_key_value_heads": 2,
        "sliding_window": 1024});
    let overridden = json!({"model_type": "gemma4_text", "num_hidden_layers": 3,
        "layer_types": words, "sliding_window": 1024, "per_layer_config": {"02": {"head_dim": 512,
        "num_key_value_heads": 2}}});
    assert_eq!(heads(&own), heads(&overridden));
    assert_eq!(heads(&own)[2], (Span::Full, 2, 512));

    // Without an entry in the map, no layer has the global size.
    let mut plain = overridden;
    plain["per_layer_config"] = json!({});
    assert_eq!(heads(&plain)[2], (Span::Full, 4, 256));
}

#[test]
fn layer_overrides_are_applied_or_rejected() {
    let llama_with = |map: Value| {
        json!({"model_type": "llama", "num_hidden_layers": 3, "layer_types": ["full_attention",
            "sliding_attention", "sliding_attention"], "sliding_window": 512,
            "per_layer_config": map})
    };

    let found = heads(&llama_with(
        json!({"1": {"sliding_window": 64, "num_key_value_heads": 8},
            "2": {"sliding_window": null}}),
    ));
    assert_eq!(
        found,
        [
            (Span::Full, 32, 128),
            (Span::Sliding { window: 64 }, 8, 128),
            (Span::Full, 32, 128)
        ]
    );

    for (map, named) in [
        (
            json!({"1": {"kv_lora_rank": 512}}),
            "per_layer_config[1].kv_lora_rank",
        ),
        (
            json!({"1": {"skip": ["attention"]}}),
            "per_layer_config[1].skip",
        ),
        (
            json!({"1": {"intermediate_size": 22016}}),
            "per_layer_config[1].intermediate_size",
        ),
        (json!({"7": {"head_dim": 64}}), "the model has 3 layers"),
        (json!({"one": {"head_dim": 64}}), "the index of a layer"),
        (
            json!({"1": {"num_key_value_heads": 5}}),
            "32 query heads are not divisible by it",
        ),
        (json!({"1": 5}), "an object for each layer"),
        (json!(5), "the model has 3 layers"),
    ] {
        let error = read(&llama_with(map.clone())).unwrap_err().to_string();
        assert!(error.contains(named), "{map}: {error}");
    }
    // The layers of this family are not read one by one.
    let mamba = json!({"model_type": "mamba2", "per_layer_config": {"1": {"head_dim": 64}}});

    assert!(
        read(&mamba)
            .unwrap_err()
            .to_string()
            .contains("per_layer_config")
    );
}

#[test]
fn compression_rates_equal_listed_ratios() {
    let sizes = json!({"model_type": "deepseek_v4", "num_hidden_layers": 3});
    let mut listed = sizes.clone();
    listed["compress_ratios"] = json!([0, 4, 128, 0]);
    listed["num_nextn_predict_layers"] = json!(1);
    let mut worded = sizes;
    worded["compress_rates"] =
        json!({"compressed_sparse_attention": 4, "heavily_compressed_attention": 128});

    worded["layer_types"] = json!([
        "sliding_attention",
        "compressed_sparse_attention",
        "heavily_compressed_attention"
    ]);

    let (listed, own) = (read(&listed).unwrap(), read(&worded).unwrap());
    assert_eq!((&listed.layers, &listed.rope), (&own.layers, &own.rope));
    worded["layer_types"] = json!(["sliding_attention", "full_attention", "sliding_attention"]);

    assert!(
        read(&worded)
            .unwrap_err()
            .to_string()
            .contains("layer_types[1] = full_attention")
    );
}

#[test]
fn kimi_linear_dialects_agree() {
    let words = json!([
        "linear_attention",
        "linear_attention",
        "linear_attention",
        "full_attention"
    ]);
    let worded = json!({"model_type": "kimi_linear", "num_hidden_layers": 4, "layer_types": words,
        "linear_num_heads": 32, "linear_head_dim": 128, "linear_conv_kernel_dim": 4,
        "num_experts_per_token": 8});

    let listed = json!({"model_type": "kimi_linear", "num_hidden_layers": 4,
        "num_experts_per_token": 8, "linear_attn_config": {"kda_layers": [1, 2, 3],
        "full_attn_layers": [4], "num_heads": 32, "head_dim": 128, "short_conv_kernel_size": 4}});
    assert_eq!(read(&worded).unwrap().layers, read(&listed).unwrap().layers);
}

#[test]
fn linear_attention_names_every_recurrence() {
    let granite_with = |words: [&str; 2]| {
        json!({"model_type": "granitemoehybrid", "hidden_size": 1536, "num_attention_heads": 12,
            "vocab_size": 100_352, "num_hidden_layers": 2, "layer_types": words,
            "mamba_n_heads": 48, "mamba_d_head": 64})
    };

    let (ours, theirs) = (
        granite_with(["mamba", "attention"]),
        granite_with(["linear_attention", "full_attention"]),
    );
    assert_eq!(read(&ours).unwrap().layers, read(&theirs).unwrap().layers);
    let zamba = json!({"model_type": "zamba2", "num_hidden_layers": 2,
        "layer_types": ["linear_attention", "hybrid"], "n_mamba_heads": 8});
    let zamba = read(&zamba).unwrap();
    assert!(
        zamba
            .layers
            .iter()
            .all(|layer| matches!(layer.mixer, Mixer::Recurrent(Recurrent::Mamba2 { .. })))
    );

    assert!(zamba.layers[0].second_mixer.is_none() && zamba.layers[1].second_mixer.is_some());
}

#[test]
fn bidirectional_attention_has_no_cache() {
    let llama = json!({"architectures": ["LlamaBidirectionalModel"], "model_type": "llama"});
    assert_eq!(read(&llama).unwrap().task, Task::Encode);
    let flagged =
        json!({"architectures": ["Qwen3Model"], "model_type": "qwen3", "is_causal": false});
    assert_eq!(read(&flagged).unwrap().task, Task::Encode);
    let prefix = json!({"architectures": ["PaliGemmaForConditionalGeneration"],
        "model_type": "paligemma", "text_config": {"model_type": "gemma",
        "use_bidirectional_attention": true}});
    assert_eq!(
        read(&prefix).unwrap().task,
        Task::Generate,
        "a bidirectional prefix still needs a cache"
    );
}

#[test]
fn unlisted_windows_are_rejected() {
    let mellum = json!({"model_type": "mellum", "sliding_window": 1024});
    assert!(
        read(&mellum)
            .unwrap_err()
            .to_string()
            .contains("layer_types is missing")
    );
}

#[test]
fn active_experts_default_or_are_missing() {
    let mixtral = json!({"model_type": "mixtral"});
    assert_eq!(read(&mixtral).unwrap().experts.unwrap().active, 2);
    let unsaid = json!({"model_type": "deepseek_v2"});
    assert!(
        read(&unsaid)
            .unwrap_err()
            .to_string()
            .contains("num_experts_per_tok is missing")
    );

    for active in [0, 9] {
        let error =
            read(&json!({"model_type": "mixtral", "num_experts_per_tok": active})).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with(&format!("num_experts_per_tok = {active}")),
            "{error}"
        );
    }
}

#[test]
fn nested_configurations_use_class_defaults() {
    // Wrapper, and KV heads x head size of the class that it nests by default.
    for (root, kv) in [
        ("mistral3", 8 * 128),
        ("llava", 32 * 128),
        ("internvl", 32 * 128),
        ("glm4v", 2 * 128),
        ("qwen3_vl", 32 * 128),
        ("cohere2_vision", 64 * 128),
        ("paddleocr_vl", 2 * 128),
        ("gemma3", 4 * 256),
        ("gemma4_unified", 4 * 256),
    ] {
        let read =
            read(&json!({"model_type": root, "text_config": {"vocab_size": 32000}})).unwrap();
        let Mixer::Attention(attention) = &read.layers[0].mixer else {
            panic!("{root}")
        };
        assert_eq!(attention.kv_heads * attention.key_dim, kv, "{root}");
    }
}

#[test]
fn mimo_v2_dialects_agree() {
    let own = json!({"model_type": "mimo_v2_flash", "num_hidden_layers": 2,
        "hybrid_layer_pattern": [0, 1], "swa_num_attention_heads": 64,
        "swa_num_key_value_heads": 8, "sliding_window": 129});
    let saved = json!({"model_type": "mimo_v2_flash", "num_hidden_layers": 2,
        "layer_types": ["full_attention", "sliding_attention"]});

    assert_eq!(heads(&own), heads(&saved));
    assert_eq!(heads(&saved)[1], (Span::Sliding { window: 129 }, 8, 192));
}

#[test]
fn bamba_without_indices_has_no_attention() {
    let config = json!({"model_type": "bamba", "attn_layer_indices": null, "mamba_d_head": 64});
    let layers = read(&config).unwrap().layers;
    assert_eq!(layers.len(), 32);
    assert!(
        layers
            .iter()
            .all(|layer| matches!(layer.mixer, Mixer::Recurrent(Recurrent::Mamba2 { .. })))
    );
}

#[test]
fn exaone_4_5_reads_both_text_types() {
    let nested = |model_type: &str| {
        read(
            &json!({"model_type": "exaone4_5", "text_config": {"model_type": model_type,
            "mtp_share_layers": true, "num_hidden_layers": 4}}),
        )
        .unwrap()
        .layers
    };
    assert_eq!(nested("exaone4_5_text"), nested("exaone4"));
}

#[test]
fn stated_experts_precede_class_default() {
    let experts = |config: &Value| read(config).unwrap().experts.unwrap().count;
    let stated = json!({"model_type": "qwen3_vl_moe_text", "num_local_experts": 60});
    assert_eq!(experts(&stated), 60);
    assert_eq!(experts(&json!({"model_type": "qwen3_vl_moe_text"})), 128);
}
