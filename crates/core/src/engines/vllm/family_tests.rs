//! Caches of families against vLLM 0.33.0's own planner: H100, tensor parallel 1.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::bytes::Bytes;
use crate::engines::{AskedWorkload, EngineRequest, PreparedEngine, Split, Workload, sample};
use crate::model::Inventory;

/// A row of the planner: a model, its tokens, and the cache that they need.
struct Planned {
    config: Value,
    context: u64,
    block_tokens: u64,
    block_bytes: u64,
    needed_bytes: u64,
}

fn check(row: &Planned) {
    let model = sample::model(&row.config, Inventory::default());
    let devices = [sample::device()];
    let parameters = BTreeMap::new();
    let engine = Vllm::with_profiles(Vllm::profiles().unwrap());
    let prepared = engine
        .prepare(&EngineRequest {
            model: &model,
            version: None,
            parameters: &parameters,
            asked: AskedWorkload {
                dtype: Some("bfloat16".to_owned()),
                ..sample::tokens(row.context)
            },
            devices: &devices,
        })
        .unwrap();

    let layers = model.architecture.as_ref().unwrap().layer_count();
    let split = Split::single(layers);
    let pages = prepared.pages(&split);
    let block = pages.bytes_per_block(prepared.cache_layers(), &(0..layers));
    assert_eq!(block, Bytes::new(row.block_bytes), "{}", row.config);
    assert_eq!(pages.block_tokens(), row.block_tokens, "{}", row.config);

    let workload = Workload {
        context: row.context,
        sequences: 1,
    };
    let (tokens, states) = prepared.cache(&split, 0, workload);
    // The planner leaves the null block out.
    let needed = tokens.likely + states.likely;
    assert_eq!(
        needed,
        Bytes::new(row.needed_bytes) + block,
        "{}",
        row.config
    );
}

#[test]
fn indexed_families_match_planner() {
    let flags: Vec<u64> = (0..60).map(|layer| u64::from(layer >= 3)).collect();
    let minimax = json!({"architectures": ["MiniMaxM3SparseForConditionalGeneration"],
        "model_type": "minimax_m3_vl", "text_config": {"model_type": "minimax_m3_text",
            "num_hidden_layers": 60, "num_attention_heads": 64,
            "sparse_attention_config": {"sparse_index_dim": 128, "sparse_attention_freq": flags}}});
    let hy = json!({"architectures": ["HYV4ForCausalLM"], "model_type": "hy_v4",
        "num_hidden_layers": 12});

    check(&Planned {
        config: minimax,
        context: 8192,
        block_tokens: 128,
        block_bytes: 17_596_416,
        needed_bytes: 1_126_170_624,
    });
    // Four of twelve layers have an indexer.
    check(&Planned {
        config: hy,
        context: 8192,
        block_tokens: 64,
        block_bytes: 918_528,
        needed_bytes: 117_571_584,
    });
}

#[test]
fn windowed_families_match_planner() {
    let kolibri = json!({"architectures": ["Kolibri1ForCausalLM"], "model_type": "kolibri1"});
    let exaone = json!({"architectures": ["Exaone4_5_ForConditionalGeneration"],
        "model_type": "exaone4_5", "mtp_share_layers": true, "text_config": {
            "model_type": "exaone4", "num_hidden_layers": 12, "hidden_size": 4096,
            "num_attention_heads": 32, "num_key_value_heads": 32, "intermediate_size": 16384,
            "vocab_size": 102_400, "max_position_embeddings": 2048, "sliding_window": 4096,
            "mtp_share_layers": true}});

    check(&Planned {
        config: kolibri,
        context: 8192,
        block_tokens: 16,
        block_bytes: 327_680,
        needed_bytes: 840_171_520,
    });
    check(&Planned {
        config: exaone,
        context: 2048,
        block_tokens: 16,
        block_bytes: 786_432,
        needed_bytes: 405_012_480,
    });
}

#[test]
fn wrapped_families_match_planner() {
    let words: Vec<&str> = (0..12)
        .map(|layer| {
            if layer % 3 == 0 {
                "full_attention"
            } else {
                "sliding_attention"
            }
        })
        .collect();
    let modernbert = json!({"architectures": ["ModernBertDecoderForCausalLM"],
        "model_type": "modernbert-decoder", "num_hidden_layers": 12, "hidden_size": 768,
        "num_attention_heads": 12, "intermediate_size": 1152, "vocab_size": 50_368,
        "max_position_embeddings": 8192, "sliding_window": 64, "layer_types": words});
    let ctrl = json!({"architectures": ["CTRLLMHeadModel"], "model_type": "ctrl", "n_layer": 9,
        "n_embd": 1280, "n_head": 16, "dff": 8192, "n_positions": 256, "vocab_size": 246_534});

    check(&Planned {
        config: modernbert,
        context: 2048,
        block_tokens: 16,
        block_bytes: 196_608,
        needed_bytes: 75_890_688,
    });
    check(&Planned {
        config: ctrl,
        context: 256,
        block_tokens: 16,
        block_bytes: 737_280,
        needed_bytes: 11_796_480,
    });
}

#[test]
fn sarvam_latents_match_planner() {
    let config = json!({"architectures": ["SarvamMLAForCausalLM"], "model_type": "sarvam_mla",
        "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 64,
        "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128,
        "vocab_size": 262_144, "intermediate_size": 16384, "max_position_embeddings": 4096});
    check(&Planned {
        config,
        context: 4096,
        block_tokens: 16,
        block_bytes: 589_824,
        needed_bytes: 150_994_944,
    });
}

#[test]
fn double_latents_match_planner() {
    let longcat = json!({"architectures": ["LongcatFlashForCausalLM"],
        "model_type": "longcat_flash",
        "num_layers": 6, "hidden_size": 6144, "num_attention_heads": 64, "ffn_hidden_size": 12288,
        "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128,
        "v_head_dim": 128, "n_routed_experts": 512, "zero_expert_num": 256, "moe_topk": 12,
        "expert_ffn_hidden_size": 2048, "vocab_size": 131_072, "max_position_embeddings": 131_072});
    check(&Planned {
        config: longcat,
        context: 8192,
        block_tokens: 16,
        block_bytes: 221_184,
        needed_bytes: 113_246_208,
    });
}

/// vLLM keeps the keys of MiniMax-M3's indexer in 16 bits next to a cache of 8 bits.
#[test]
fn index_keys_stay_wide() {
    let config = json!({"architectures": ["MiniMaxM3SparseForCausalLM"], "model_type": "minimax_m3",
        "num_hidden_layers": 1, "sparse_attention_config": {"sparse_attention_freq": [1]}});
    let model = sample::model(&config, Inventory::default());
    let parameters = BTreeMap::from([("kv_cache_dtype".to_owned(), json!("fp8"))]);
    let devices = [sample::device()];
    let request = EngineRequest {
        model: &model,
        version: None,
        parameters: &parameters,
        asked: sample::tokens(128),
        devices: &devices,
    };
    let engine = Vllm::with_profiles(Vllm::profiles().unwrap());
    let prepared = engine.prepare(&request).unwrap();
    let rate = prepared.kv_bytes_per_token();
    assert_eq!(rate, Bytes::new(4 * 256 + 128 * 2));
}

#[test]
fn unread_families_name_reason() {
    for (config, reason) in [
        (json!({"model_type": "axk2"}), "no class of its own"),
        (json!({"model_type": "glm5_next_text"}), "ring"),
        (json!({"model_type": "dots3_note"}), "padded"),
    ] {
        let model = sample::model(&config, Inventory::default());
        let devices = [sample::device()];
        let request = EngineRequest {
            model: &model,
            version: None,
            parameters: &BTreeMap::new(),
            asked: sample::tokens(1024),
            devices: &devices,
        };
        let engine = Vllm::with_profiles(Vllm::profiles().unwrap());
        let why = engine.prepare(&request).err().unwrap().to_string();
        assert!(why.contains(reason), "{why}");
    }
}

/// The model of three groups: nine layers of Kimi delta attention, three with latents.
#[test]
fn delta_families_match_planner() {
    let (kda, full): (Vec<u64>, Vec<u64>) = (1..=12).partition(|layer| layer % 4 != 0);
    let kimi = json!({"architectures": ["KimiK3ForConditionalGeneration"], "model_type": "kimi_k3",
        "vision_config": {"model_type": "kimi_k3_vision"}, "text_config": {"num_hidden_layers": 12,
            "hidden_size": 7168, "num_attention_heads": 64, "num_key_value_heads": 64,
            "intermediate_size": 18432, "vocab_size": 163_840, "max_position_embeddings": 262_144,
            "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "num_experts": 16,
            "num_experts_per_token": 8, "moe_intermediate_size": 2048,
            "qk_rope_head_dim": 64, "v_head_dim": 128, "linear_attn_config": {"num_heads": 64,
                "head_dim": 128, "short_conv_kernel_size": 4, "gate_lower_bound": -5.0,
                "kda_layers": kda, "full_attn_layers": full}}});
    let bailing = json!({"architectures": ["BailingMoeV3ForCausalLM"],
        "model_type": "bailing_moe_v3",
        "num_hidden_layers": 12, "layer_group_size": 6, "hidden_size": 2560,
        "num_attention_heads": 32, "head_dim": 64, "intermediate_size": 6144, "kv_lora_rank": 512,
        "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
        "short_conv_kernel_size": 4, "vocab_size": 157_184, "max_position_embeddings": 262_144});

    check(&Planned {
        config: kimi,
        context: 8192,
        block_tokens: 3840,
        block_bytes: 13_271_040,
        needed_bytes: 119_439_360,
    });
    check(&Planned {
        config: bailing,
        context: 8192,
        block_tokens: 512,
        block_bytes: 1_179_648,
        needed_bytes: 30_670_848,
    });
}
