//! vLLM's caches, and the layers of a pipeline stage.

use hf_mem_core::bytes::Bytes;
use hf_mem_core::engines::shared::topology::vllm_stages;
use hf_mem_core::engines::{ComponentName, Offload, PreparedEngine as _, Split};
use hf_mem_core::model::Inventory;
use serde_json::{Value, json};

use super::{
    deepseek, gemma_3_27b, gpt_oss_120b, h100, hub, llama_8b, model, need, need_at, qwen3_next,
    split, with_prepared, with_version,
};

#[test]
fn llama_8b_cache() {
    let config = llama_8b();
    assert_eq!(need(&config, 131_072, 1, &[]), 17_179_869_184);

    assert_eq!(
        need(&config, 131_072, 1, &[("kv_cache_dtype", json!("fp8"))]),
        8_589_934_592
    );
    assert_eq!(need(&config, 131_072, 2, &[]), 17_179_869_184 / 2);

    // A token beyond a full block takes another block.
    assert_eq!(
        need(&config, 1024, 1, &[]) + 16 * 131_072,
        need(&config, 1025, 1, &[])
    );
}

#[test]
fn llama_8b_component_has_null_block() {
    let model = model(&llama_8b(), Inventory::default());
    let split = split(&model, 1);
    with_prepared(&model, 131_072, &[], |prepared| {
        let parts = prepared
            .variable(&split, 0, &h100(), prepared.workload())
            .unwrap();
        assert_eq!(parts.len(), 2);

        // The table has a 4-byte column for each block, and 1024 sequences.
        assert_eq!(
            (parts[1].name, parts[1].bytes.likely),
            (ComponentName::Runtime, Bytes::new(8192 * 4 * 1024))
        );
        assert_eq!(parts[0].name, ComponentName::KvCache);
        assert_eq!(parts[0].bytes.likely.get(), 17_179_869_184 + 16 * 131_072);
        assert_eq!(prepared.kv_bytes_per_token(), Bytes::new(131_072));
    });
}

#[test]
fn gemma_windows_hold_tokens_in_flight() {
    let config = gemma_3_27b();
    assert_eq!(need(&config, 131_072, 1, &[]), 19_301_662_720);

    assert_eq!(
        need(&config, 131_072, 1, &[("async_scheduling", json!(false))]),
        15_275_130_880
    );
    assert_eq!(
        need(
            &config,
            131_072,
            1,
            &[("max_num_batched_tokens", json!(2048))]
        ),
        13_261_864_960
    );

    let off = &[("disable_hybrid_kv_cache_manager", json!(true))];
    assert_eq!(need(&config, 131_072, 1, off), 66_571_993_088);
}

#[test]
fn gpt_oss_120b_cache() {
    assert_eq!(need(&gpt_oss_120b(), 131_072, 1, &[]), 5_441_126_400);
}

#[test]
fn qwen3_next_pages_are_aligned() {
    let config = qwen3_next();
    assert_eq!(
        need(
            &config,
            262_144,
            1,
            &[("enable_prefix_caching", json!(false))]
        ),
        6_484_131_840
    );

    // Before 0.28 without prefix caching, then 2 states a group, since 0.33 3 of them and blocks
    // of 576 tokens.
    assert_eq!(need_at("0.27", &config, 262_144), 6_484_131_840);
    assert_eq!(need_at("0.32", &config, 262_144), 6_524_239_872);
    assert_eq!(need(&config, 262_144, 1, &[]), 6_582_435_840);
    let model = model(&config, Inventory::default());

    for (tensor, block, page) in [(1, 576, 1_179_648), (4, 320, 327_680)] {
        let split = split(&model, tensor);
        with_prepared(&model, 4096, &[], |prepared| {
            let pages = prepared.pages(&split);
            assert_eq!(pages.block_tokens(), block);
            assert_eq!(
                pages
                    .bytes_per_block(prepared.cache_layers(), &(0..u32::MAX))
                    .get(),
                12 * page
            );
        });
    }
}

#[test]
fn deepseek_latents_replicate_on_ranks() {
    let v3 = deepseek("deepseek_v3", "DeepseekV3ForCausalLM");
    let fp8 = &[("kv_cache_dtype", json!("fp8"))];
    for tensor in [1, 8, 16] {
        assert_eq!(need(&v3, 163_840, tensor, &[]), 11_513_364_480);
        assert_eq!(need(&v3, 163_840, tensor, fp8), 5_756_682_240);
    }

    let mut v32 = deepseek("deepseek_v32", "DeepseekV32ForCausalLM");
    for (key, value) in [
        ("index_head_dim", 128),
        ("index_n_heads", 64),
        ("index_topk", 2048),
    ] {
        v32[key] = json!(value);
    }

    assert_eq!(need(&v32, 163_840, 8, fp8), 7_875_461_120);
    assert_eq!(need(&v32, 163_840, 8, &[]), 12_832_604_160);
}

#[test]
fn kimi_k2_cache() {
    let mut config = deepseek("kimi_k2", "DeepseekV3ForCausalLM");
    config["num_attention_heads"] = json!(64);
    config["num_key_value_heads"] = json!(64);
    config["n_routed_experts"] = json!(384);
    assert_eq!(need(&config, 131_072, 8, &[]), 9_210_691_584);
}

#[test]
fn deepseek_v4_cache_grows_with_step() {
    let Some(model) = hub("deepseek-ai/DeepSeek-V4-Flash") else {
        return;
    };

    let split = split(&model, 1);
    for (tokens, gib) in [(2048, 5.38), (4096, 6.93), (8192, 10.02), (16_384, 16.21)] {
        with_prepared(
            &model,
            1_048_576,
            &[("max_num_batched_tokens", json!(tokens))],
            |prepared| {
                let pages = prepared.pages(&split);
                assert_eq!(
                    pages
                        .bytes_per_block(prepared.cache_layers(), &(0..43))
                        .get(),
                    998_208
                );

                let ours = prepared.needed_for_one(&split, 0).likely.as_gib();
                assert!((ours - gib).abs() < 0.006, "{tokens}: {ours} GiB");
            },
        );
    }
}

#[test]
fn attention_free_and_hybrid_states() {
    let mamba = json!({
        "architectures": ["MambaForCausalLM"], "model_type": "mamba", "hidden_size": 2560,
        "intermediate_size": 5120, "state_size": 16, "conv_kernel": 4, "num_hidden_layers": 64,
        "vocab_size": 50280, "torch_dtype": "bfloat16", "expand": 2, "time_step_rank": 160
    });

    // Without attention there is no prefix caching, and so no second state.
    assert_eq!(need(&mamba, 2048, 1, &[]), 12_451_840);
    let jamba = json!({
        "architectures": ["JambaForCausalLM"], "model_type": "jamba", "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "attn_layer_period": 8, "attn_layer_offset": 4,
        "expert_layer_period": 2, "expert_layer_offset": 1, "num_experts": 16,
        "num_experts_per_tok": 2, "mamba_d_state": 16, "mamba_d_conv": 4, "mamba_expand": 2,
        "mamba_dt_rank": 256, "vocab_size": 65536, "max_position_embeddings": 262_144,
        "torch_dtype": "bfloat16", "tie_word_embeddings": false
    });

    assert_eq!(need(&jamba, 262_144, 1, &[]), 4_313_579_520);
}

#[test]
fn nemotron_h_states() {
    // 54 Mamba-2, 10 attention and 54 feed-forward layers.
    let pattern = format!("{}{}", "M-".repeat(44), "M-*".repeat(10));
    let big = json!({
        "architectures": ["NemotronHForCausalLM"], "model_type": "nemotron_h", "hidden_size": 8192,
        "intermediate_size": 32768, "num_hidden_layers": 118, "hybrid_override_pattern": pattern,
        "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128,
        "attention_head_dim": 128, "mamba_num_heads": 256, "mamba_head_dim": 64,
        "ssm_state_size": 256, "n_groups": 8, "conv_kernel": 4, "expand": 2, "vocab_size": 131_072,
        "max_position_embeddings": 8192, "torch_dtype": "bfloat16",
        "mamba_ssm_cache_dtype": "float32"
    });

    let none = &[("enable_prefix_caching", json!(false))];
    assert_eq!(need(&big, 8192, 1, none), 1_352_663_040);
    assert_eq!(need_at("0.27", &big, 8192), 1_352_663_040);
    assert_eq!(need_at("0.31", &big, 8192), 2_367_160_320);
    assert_eq!(need(&big, 8192, 1, &[]), 3_381_657_600);
    assert_eq!(need(&big, 8192, 8, none), 1_352_663_040 / 8);
    let Some(nano) = hub("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16") else {
        return;
    };

    let split = split(&nano, 1);
    let needed = |parameters: &[(&str, Value)]| {
        with_prepared(&nano, 262_144, parameters, |prepared| {
            prepared.needed_for_one(&split, 0).likely.get()
        })
    };

    assert_eq!(needed(none), 1_674_117_120);
    assert_eq!(needed(&[]), 1_777_139_712);
}

#[test]
fn hub_models_cache() {
    for (repo, context, tensor, expected) in [
        ("Qwen/Qwen3.5-35B-A3B", 262_144, 1, 5_570_560_000),
        (
            "meta-llama/Llama-4-Scout-17B-16E-Instruct",
            131_072,
            4,
            2_516_582_400,
        ),
        ("MiniMaxAI/MiniMax-M2.5", 196_608, 4, 12_482_248_704),
        ("MiniMaxAI/MiniMax-M2.5", 196_608, 8, 6_241_124_352),
        ("Qwen/Qwen3-30B-A3B", 40_960, 1, 4_026_531_840),
        ("Qwen/Qwen3-30B-A3B", 40_960, 8, 24_576 * 40_960),
    ] {
        let Some(model) = hub(repo) else { return };
        let split = split(&model, tensor);
        let ours = with_prepared(&model, context, &[], |prepared| {
            prepared.needed_for_one(&split, 0).likely.get()
        });
        assert_eq!(ours, expected, "{repo} TP{tensor}");
    }
}

#[test]
fn llama_4_chunks_can_be_off() {
    let Some(model) = hub("meta-llama/Llama-4-Scout-17B-16E-Instruct") else {
        return;
    };

    let split = split(&model, 4);
    let off = &[(
        "VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE",
        json!(0),
    )];
    let ours = with_prepared(&model, 131_072, off, |prepared| {
        prepared.needed_for_one(&split, 0).likely.get()
    });
    assert_eq!(ours, 6_442_450_944);

    let early = with_version(Some("0.12"), &model, 131_072, &[], |prepared| {
        prepared.needed_for_one(&split, 0).likely.get()
    });
    assert_eq!(early, 6_442_450_944, "off by default");

    // Chunks are full: one more token is kept by the 12 full layers of 8 KV heads alone.
    let token_rate = |parameters: &[(&str, Value)]| {
        with_prepared(&model, 131_072, parameters, |prepared| {
            prepared.kv_bytes_per_token().get()
        })
    };
    assert_eq!(token_rate(&[]), 12 * 8 * 2 * 128 * 2);
    assert_eq!(token_rate(off), 48 * 8 * 2 * 128 * 2);
}

#[test]
fn whisper_holds_its_encoder() {
    let config = json!({
        "architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper",
        "d_model": 1280, "decoder_layers": 32, "encoder_layers": 32, "decoder_attention_heads": 20,
        "encoder_attention_heads": 20, "decoder_ffn_dim": 5120, "encoder_ffn_dim": 5120,
        "max_source_positions": 1500, "max_target_positions": 448, "vocab_size": 51_866,
        "torch_dtype": "float16"
    });
    assert_eq!(need(&config, 448, 1, &[]), 319_815_680);
}

#[test]
fn last_stage_samples() {
    let model = model(&llama_8b(), Inventory::default());
    let split = Split {
        tensor: 1,
        stages: vllm_stages(32, 2),
        expert_parallel: false,
        offload: Offload::None,
    };

    let device = h100();
    with_prepared(&model, 8192, &[], |prepared| {
        let first = prepared
            .start_up_log(&split, 0, &device)
            .activations
            .likely
            .as_gib();

        let last = prepared
            .start_up_log(&split, 1, &device)
            .activations
            .likely
            .as_gib();
        assert!(
            (first - 0.96).abs() < 0.01 && (last - 1.90).abs() < 0.01,
            "{first} {last}"
        );

        assert_eq!(
            prepared.needed_for_one(&split, 0).likely.get(),
            8192 * 65_536
        );
    });
}
