//! Pools of families against SGLang 0.5.23's own code: H100, tensor parallel 1.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::engines::sample;
use crate::model::Inventory;

/// Bytes of a token and of a state slot.
fn pools(config: &Value) -> Result<(u64, u64), EngineError> {
    let model = sample::model(config, Inventory::default());
    let devices = [sample::device()];
    let parameters = BTreeMap::new();
    let engine = Sglang::with_profiles(Sglang::profiles().unwrap());
    let prepared = engine.prepare(&EngineRequest {
        model: &model,
        version: None,
        parameters: &parameters,
        asked: sample::tokens(1024),
        devices: &devices,
    })?;

    let split = Split::single(model.architecture.as_ref().unwrap().layer_count());
    let (full, window) = prepared.cell(&split, 0);
    assert_eq!(window, Bytes::ZERO);
    Ok((full.get(), prepared.state_slot(&split, 0).get()))
}

#[test]
fn delta_families_match_engine() {
    let (kda, full): (Vec<u64>, Vec<u64>) = (1..=12).partition(|layer| layer % 4 != 0);
    let kimi = json!({"architectures": ["KimiK3ForConditionalGeneration"], "model_type": "kimi_k3",
        "text_config": {"num_hidden_layers": 12, "hidden_size": 7168, "num_attention_heads": 64,
            "num_key_value_heads": 64, "intermediate_size": 18432, "vocab_size": 163_840,
            "max_position_embeddings": 262_144, "kv_lora_rank": 512, "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64, "v_head_dim": 128, "num_experts": 16, "dtype": "bfloat16",
            "num_experts_per_token": 8, "moe_intermediate_size": 2048, "linear_attn_config": {
                "num_heads": 64, "head_dim": 128, "short_conv_kernel_size": 4,
                "kda_layers": kda, "full_attn_layers": full}}});
    let bailing = json!({"architectures": ["BailingMoeV3ForCausalLM"],
        "model_type": "bailing_moe_v3",
        "num_hidden_layers": 12, "layer_group_size": 6, "hidden_size": 2560, "dtype": "bfloat16",
        "num_attention_heads": 32, "head_dim": 64, "intermediate_size": 6144, "kv_lora_rank": 512,
        "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
        "short_conv_kernel_size": 4, "vocab_size": 157_184, "max_position_embeddings": 262_144});

    assert_eq!(pools(&kimi).unwrap(), (3456, 39_075_840));
    assert_eq!(pools(&bailing).unwrap(), (2304, 5_611_520));
}

#[test]
fn plain_families_match_engine() {
    let sarvam = json!({"architectures": ["SarvamMoEForCausalLM"], "model_type": "sarvam_moe",
        "num_hidden_layers": 19, "hidden_size": 4096, "num_attention_heads": 64,
        "num_key_value_heads": 4, "head_dim": 64, "intermediate_size": 8192, "vocab_size": 1024,
        "max_position_embeddings": 131_072, "dtype": "bfloat16"});
    assert_eq!(pools(&sarvam).unwrap(), (19_456, 0));
}

#[test]
fn unread_indexers_name_reason() {
    for model_type in ["hy_v4", "minimax_m3_text", "glm5_next_text", "axk2"] {
        let why = pools(&json!({"model_type": model_type})).unwrap_err();
        assert!(why.to_string().contains("indexer"), "{why}");
    }
}
