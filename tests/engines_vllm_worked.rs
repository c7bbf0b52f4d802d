//! Worked examples for vLLM and SGLang, to the byte.
//!
//! Cache examples are built from published configurations given here; weight examples read the
//! metadata folder `../shared/hub` beside the repository where it is there, and say so where it is
//! not.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test's helpers")]

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{DeviceFacts, DeviceKind};
use hf_mem_core::engines::sglang::Sglang;
use hf_mem_core::engines::shared::topology::vllm_stages;
use hf_mem_core::engines::vllm::{Vllm, VllmPrepared};
use hf_mem_core::engines::{
    AskedContext, AskedWorkload, ComponentName, EngineRequest, Offload, PreparedEngine as _, Split,
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

/// A model of the metadata folder; `None`, with a word, where the folder is not there.
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

/// Parameters of one question, as pairs.
fn with<T>(
    model: &Model,
    context: u64,
    parameters: &[(&str, Value)],
    then: impl FnOnce(VllmPrepared<'_>) -> T,
) -> T {
    let parameters: BTreeMap<String, Value> = parameters
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    let device = h100();

    let asked = AskedWorkload {
        context: Some(AskedContext::Tokens(context)),
        ..AskedWorkload::default()
    };

    let case = EngineRequest {
        model,
        version: None,
        parameters: &parameters,
        asked,
        devices: std::slice::from_ref(&device),
    };

    let engine = Vllm::with_profiles(Vllm::profiles().unwrap());
    then(engine.prepare(&case).unwrap())
}

fn split(model: &Model, tensor: u32) -> Split {
    Split::tensor(tensor, model.architecture.as_ref().unwrap().layer_count())
}

/// Cache of one sequence in bytes at the least (no checkpoint blocks), the null block left out.
fn need(config: &Value, context: u64, tensor: u32, parameters: &[(&str, Value)]) -> u64 {
    let model = model(config, Inventory::default());
    let split = split(&model, tensor);
    with(&model, context, parameters, |prepared| {
        prepared.needed_for_one(&split, 0).likely.get()
    })
}

/// As [`need`], with the checkpoint block that some kernels take.
fn need_with_checkpoint(config: &Value, context: u64) -> u64 {
    let model = model(config, Inventory::default());
    let split = split(&model, 1);
    with(&model, context, &[], |prepared| {
        let layers = prepared.cache_layers();
        let pages = prepared.pages(&split);
        let blocks = pages.blocks(layers, context);
        pages.bytes_per_block(layers, &(0..u32::MAX)).get() * (blocks.tokens + blocks.states_high)
    })
}

fn weights(repo: &str, tensor: u32, parameters: &[(&str, Value)]) -> Option<u64> {
    let model = hub(repo)?;
    let split = split(&model, tensor);
    let device = h100();

    Some(with(&model, 1024, parameters, |prepared| {
        prepared
            .start_up_log(&split, 0, &device)
            .weights
            .likely
            .get()
    }))
}

fn llama_8b() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256,
        "max_position_embeddings": 131_072, "tie_word_embeddings": false, "torch_dtype": "bfloat16"
    })
}

fn gemma_3_27b() -> Value {
    json!({
        "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "torch_dtype": "bfloat16",
        "text_config": { "model_type": "gemma3_text", "hidden_size": 5376, "intermediate_size": 21504, "num_hidden_layers": 62,
            "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 128, "sliding_window": 1024,
            "rope_scaling": { "factor": 8.0, "rope_type": "linear" } },
        "vision_config": { "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304,
            "num_hidden_layers": 27, "num_attention_heads": 16, "image_size": 896, "patch_size": 14 }
    })
}

fn qwen3_next() -> Value {
    json!({
        "architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next", "hidden_size": 2048, "intermediate_size": 5120,
        "num_hidden_layers": 48, "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 256, "vocab_size": 151_936,
        "linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4, "full_attention_interval": 4, "num_experts": 512, "num_experts_per_tok": 10,
        "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512, "max_position_embeddings": 262_144,
        "partial_rotary_factor": 0.25, "torch_dtype": "bfloat16", "tie_word_embeddings": false, "decoder_sparse_step": 1
    })
}

fn deepseek(model_type: &str, class: &str) -> Value {
    json!({
        "architectures": [class], "model_type": model_type, "hidden_size": 7168, "intermediate_size": 18432,
        "num_hidden_layers": 61, "num_attention_heads": 128, "num_key_value_heads": 128, "kv_lora_rank": 512,
        "q_lora_rank": 1536, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "vocab_size": 129_280,
        "n_routed_experts": 256, "num_experts_per_tok": 8, "moe_intermediate_size": 2048, "n_shared_experts": 1,
        "first_k_dense_replace": 3, "max_position_embeddings": 163_840, "torch_dtype": "bfloat16",
        "tie_word_embeddings": false
    })
}

fn gpt_oss_120b() -> Value {
    json!({
        "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "hidden_size": 2880, "intermediate_size": 2880,
        "num_hidden_layers": 36, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 201_088,
        "sliding_window": 128, "num_local_experts": 128, "num_experts_per_tok": 4, "max_position_embeddings": 131_072,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16",
        "rope_scaling": { "rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096 }
    })
}

#[test]
fn llama_8b_cache() {
    let config = llama_8b();
    assert_eq!(need(&config, 131_072, 1, &[]), 17_179_869_184);

    assert_eq!(
        need(&config, 131_072, 1, &[("kv_cache_dtype", json!("fp8"))]),
        8_589_934_592
    );
    assert_eq!(need(&config, 131_072, 2, &[]), 17_179_869_184 / 2);

    // One token more takes one block more.
    assert_eq!(
        need(&config, 1024, 1, &[]) + 16 * 131_072,
        need(&config, 1025, 1, &[])
    );
}

#[test]
fn llama_8b_cache_with_the_null_block_through_the_seam() {
    let model = model(&llama_8b(), Inventory::default());
    let split = split(&model, 1);
    with(&model, 131_072, &[], |prepared| {
        let parts = prepared
            .variable(&split, 0, &h100(), prepared.workload())
            .unwrap();
        assert_eq!(parts.len(), 2);

        // A column for each block, 4 bytes, for each of 1024 sequences.
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
fn gemma_3_27b_windows_hold_the_tokens_in_flight() {
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

    assert_eq!(need(&config, 262_144, 1, &[]), 6_524_239_872);
    assert_eq!(need_with_checkpoint(&config, 262_144), 6_564_347_904);
    let model = model(&config, Inventory::default());

    for (tensor, block, page) in [(1, 544, 1_114_112), (4, 272, 278_528)] {
        let split = split(&model, tensor);
        with(&model, 4096, &[], |prepared| {
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
fn deepseek_latents_are_on_every_rank() {
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
fn deepseek_v4_is_dominated_by_the_step() {
    let Some(model) = hub("deepseek-ai/DeepSeek-V4-Flash") else {
        return;
    };

    let split = split(&model, 1);
    for (tokens, gib) in [(2048, 5.38), (4096, 6.93), (8192, 10.02), (16_384, 16.21)] {
        with(
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
        "architectures": ["MambaForCausalLM"], "model_type": "mamba", "hidden_size": 2560, "intermediate_size": 5120,
        "state_size": 16, "conv_kernel": 4, "num_hidden_layers": 64, "vocab_size": 50280, "torch_dtype": "bfloat16",
        "expand": 2, "time_step_rank": 160
    });

    // No prefix caching without attention, and so no second state.
    assert_eq!(need(&mamba, 2048, 1, &[]), 12_451_840);
    let jamba = json!({
        "architectures": ["JambaForCausalLM"], "model_type": "jamba", "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "attn_layer_period": 8,
        "attn_layer_offset": 4, "expert_layer_period": 2, "expert_layer_offset": 1, "num_experts": 16,
        "num_experts_per_tok": 2, "mamba_d_state": 16, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_dt_rank": 256,
        "vocab_size": 65536, "max_position_embeddings": 262_144, "torch_dtype": "bfloat16", "tie_word_embeddings": false
    });

    assert_eq!(need(&jamba, 262_144, 1, &[]), 4_313_579_520);
}

#[test]
fn nemotron_h_states() {
    // 54 Mamba-2, 10 attention, 54 feed-forward layers.
    let pattern = format!("{}{}", "M-".repeat(44), "M-*".repeat(10));
    let big = json!({
        "architectures": ["NemotronHForCausalLM"], "model_type": "nemotron_h", "hidden_size": 8192,
        "intermediate_size": 32768, "num_hidden_layers": 118, "hybrid_override_pattern": pattern,
        "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128, "attention_head_dim": 128,
        "mamba_num_heads": 256, "mamba_head_dim": 64, "ssm_state_size": 256, "n_groups": 8, "conv_kernel": 4, "expand": 2,
        "vocab_size": 131_072, "max_position_embeddings": 8192, "torch_dtype": "bfloat16", "mamba_ssm_cache_dtype": "float32"
    });

    let none = &[("enable_prefix_caching", json!(false))];
    assert_eq!(need(&big, 8192, 1, none), 1_352_663_040);
    assert_eq!(need(&big, 8192, 1, &[]), 2_367_160_320);
    assert_eq!(need_with_checkpoint(&big, 8192), 3_381_657_600);
    assert_eq!(need(&big, 8192, 8, none), 1_352_663_040 / 8);
    let Some(nano) = hub("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16") else {
        return;
    };

    let split = split(&nano, 1);
    let bytes = |parameters: &[(&str, Value)]| {
        with(&nano, 262_144, parameters, |prepared| {
            prepared.needed_for_one(&split, 0).likely.get()
        })
    };

    assert_eq!(bytes(none), 1_674_117_120);
    assert_eq!(bytes(&[]), 1_725_628_416);
}

#[test]
fn qwen3_5_and_llama_4_and_minimax_cache() {
    for (repo, context, tensor, expected) in [
        ("Qwen/Qwen3.5-35B-A3B", 262_144, 1, 5_514_854_400),
        (
            "meta-llama/Llama-4-Scout-17B-16E-Instruct",
            131_072,
            4,
            6_442_450_944,
        ),
        ("MiniMaxAI/MiniMax-M2.5", 196_608, 4, 12_482_248_704),
        ("MiniMaxAI/MiniMax-M2.5", 196_608, 8, 6_241_124_352),
        ("Qwen/Qwen3-30B-A3B", 40_960, 1, 4_026_531_840),
        ("Qwen/Qwen3-30B-A3B", 40_960, 8, 24_576 * 40_960),
    ] {
        let Some(model) = hub(repo) else { return };
        let split = split(&model, tensor);
        let ours = with(&model, context, &[], |prepared| {
            prepared.needed_for_one(&split, 0).likely.get()
        });
        assert_eq!(ours, expected, "{repo} TP{tensor}");
    }
}

#[test]
fn llama_4_with_the_manager_forced_on() {
    let Some(model) = hub("meta-llama/Llama-4-Scout-17B-16E-Instruct") else {
        return;
    };

    let split = split(&model, 4);
    let on = &[(
        "VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE",
        json!(1),
    )];
    let ours = with(&model, 131_072, on, |prepared| {
        prepared.needed_for_one(&split, 0).likely.get()
    });
    assert_eq!(ours, 2_516_582_400);
}

#[test]
fn whisper_holds_its_encoder() {
    let config = json!({
        "architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper", "d_model": 1280,
        "decoder_layers": 32, "encoder_layers": 32, "decoder_attention_heads": 20, "encoder_attention_heads": 20,
        "decoder_ffn_dim": 5120, "encoder_ffn_dim": 5120, "max_source_positions": 1500, "max_target_positions": 448,
        "vocab_size": 51_866, "torch_dtype": "float16"
    });
    assert_eq!(need(&config, 448, 1, &[]), 319_815_680);
}

#[test]
fn weights_by_rank() {
    for (repo, tensor, expected) in [
        ("meta-llama/Llama-3.1-8B-Instruct", 1, 16_094_076_928),
        ("meta-llama/Llama-3.1-8B-Instruct", 2, 8_064_081_920),
        ("meta-llama/Llama-3.1-8B-Instruct", 4, 4_049_084_416),
        ("meta-llama/Llama-3.1-70B-Instruct", 4, 35_312_386_048),
        ("Qwen/Qwen3-30B-A3B", 1, 61_064_245_248 + 10_485_760),
        (
            "deepseek-ai/DeepSeek-V3",
            8,
            85_140_130_848 + 255_852_544 + 20_971_520,
        ),
        (
            "deepseek-ai/DeepSeek-V3",
            16,
            43_139_382_208 + 127_926_272 + 20_971_520,
        ),
        (
            "deepseek-ai/DeepSeek-V3",
            1,
            673_150_611_808 + 8 * 255_852_544 + 20_971_520,
        ),
        ("MiniMaxAI/MiniMax-M2.5", 1, 230_121_630_720 + 25_165_824),
        ("MiniMaxAI/MiniMax-M2.5", 4, 57_677_307_648 + 25_165_824),
        // Two bytes more for each `A_log`, `D` and `dt_bias` of 64 heads and each of 128 experts'
        // biases, kept in 32 bits.
        (
            "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
            1,
            63_155_880_576 + 23 * 2 * (3 * 64 + 128),
        ),
        ("google/gemma-3-27b-it", 1, 54_864_813_280 + 301_989_888),
    ] {
        let Some(ours) = weights(repo, tensor, &[]) else {
            return;
        };

        assert_eq!(
            ours,
            expected,
            "{repo} TP{tensor}: off by {}",
            i128::from(ours) - i128::from(expected)
        );
    }
}

#[test]
fn weights_that_are_cast_or_padded() {
    let Some(cast) = weights("google/embeddinggemma-300m", 1, &[]) else {
        return;
    };

    // Half of what is stored; the two dense heads may lie in folders of their own.
    assert!((605_726_208..=625_000_000).contains(&cast), "{cast}");
    let Some(marlin) = weights("openai/gpt-oss-120b", 1, &[]) else {
        return;
    };

    let gib = Bytes::new(marlin).as_gib();
    assert!((gib - 65.89).abs() < 0.03, "{gib}");
    let Some(scout) = weights("meta-llama/Llama-4-Scout-17B-16E-Instruct", 4, &[]) else {
        return;
    };

    let gib = Bytes::new(scout).as_gib();
    assert!((gib - 53.12).abs() < 0.01, "{gib}");
}

#[test]
fn sglang_keeps_the_full_context_in_gemmas_windows() {
    let device = h100();
    let parameters = BTreeMap::new();
    let gemma = model(&gemma_3_27b(), Inventory::default());

    let asked = AskedWorkload {
        context: Some(AskedContext::Tokens(131_072)),
        ..AskedWorkload::default()
    };

    let case = EngineRequest {
        model: &gemma,
        version: None,
        parameters: &parameters,
        asked,
        devices: std::slice::from_ref(&device),
    };

    let engine = Sglang::with_profiles(Sglang::profiles().unwrap());
    let prepared = engine.prepare(&case).unwrap();
    assert_eq!(prepared.kv_bytes_per_token(), Bytes::new(507_904));
    let split = split(&gemma, 1);
    let parts = prepared
        .variable(&split, 0, &device, prepared.workload())
        .unwrap();

    // The pool has one page more than the tokens.
    assert_eq!(parts[0].bytes.likely.get(), 66_571_993_088 + 507_904);
}

#[test]
fn sglang_gives_encoders_a_pool() {
    // BGE-M3 in a start-up log: 23.48 GiB hold 256,568 tokens.
    let bge = json!({
        "architectures": ["XLMRobertaModel"], "model_type": "xlm-roberta", "hidden_size": 1024, "intermediate_size": 4096,
        "num_hidden_layers": 24, "num_attention_heads": 16, "vocab_size": 250_002, "max_position_embeddings": 8194,
        "torch_dtype": "float32"
    });
    let (model, device, none) = (model(&bge, Inventory::default()), h100(), BTreeMap::new());

    let asked = AskedWorkload {
        dtype: Some("float16".to_owned()),
        ..AskedWorkload::default()
    };

    let devices = std::slice::from_ref(&device);
    let case = EngineRequest {
        model: &model,
        version: None,
        parameters: &none,
        asked,
        devices,
    };

    let sglang = hf_mem_core::engines::by_name("sglang").unwrap();
    let per_token = sglang.prepare(&case).unwrap().kv_bytes_per_token().get();
    assert_eq!(per_token, 24 * 2 * 1024 * 2);
    let hundredths = per_token * 256_568 * 100 / (1 << 30);
    assert!((2348..=2349).contains(&hundredths), "{hundredths}");
}

#[test]
fn stages_share_the_layers_and_the_last_one_samples() {
    let model = model(&llama_8b(), Inventory::default());
    let split = Split {
        tensor: 1,
        stages: vllm_stages(32, 2),
        expert_parallel: false,
        offload: Offload::None,
    };

    let device = h100();
    with(&model, 8192, &[], |prepared| {
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
