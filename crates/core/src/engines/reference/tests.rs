use serde_json::json;

use super::super::sample::{components, inventory, model, pipeline, prepare, sum, tokens};
use super::super::{ComponentName, Interval};
use super::*;
use crate::model::Inventory;

const NONE: &BTreeMap<String, Value> = &BTreeMap::new();

/// (cache of one sequence of `context` tokens, states) in `kv` for a configuration.
fn cache_and_states(config: &Value, context: u64, kv: &str) -> (u64, u64) {
    let model = model(config, Inventory::default());
    let asked = AskedWorkload {
        kv_cache_dtype: Some(kv.to_owned()),
        ..tokens(context)
    };

    let prepared = prepare(&Reference, &model, asked, (None, NONE)).unwrap();
    let split = &prepared.splits(1).unwrap()[0];
    let parts = components(prepared.as_ref(), split, 0);

    (
        sum(&parts, ComponentName::KvCache).likely.get(),
        sum(&parts, ComponentName::State).likely.get(),
    )
}

fn llama() -> Value {
    json!({"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256, "max_position_embeddings": 131_072,
        "torch_dtype": "bfloat16"})
}

#[test]
fn caches_match_published_bytes() {
    // Dry runs of llama.cpp's allocator: F16, Q8_0, Q4_0; and vLLM's fp8.
    assert_eq!(
        cache_and_states(&llama(), 131_072, "auto").0,
        17_179_869_184
    );
    assert_eq!(cache_and_states(&llama(), 131_072, "q8_0").0, 9_126_805_504);
    assert_eq!(cache_and_states(&llama(), 131_072, "q4_0").0, 4_831_838_208);
    assert_eq!(cache_and_states(&llama(), 131_072, "fp8").0, 8_589_934_592);

    // DeepSeek-V3, bf16 and fp8: 70,272 and 35,136 bytes a token.
    let v3 = json!({"model_type": "deepseek_v3", "torch_dtype": "bfloat16"});
    assert_eq!(cache_and_states(&v3, 163_840, "auto").0, 11_513_364_480);
    assert_eq!(cache_and_states(&v3, 163_840, "fp8").0, 5_756_682_240);

    // Mamba-2.8B: 64 layers of 30,720 + 163,840 bytes, whatever the context.
    let mamba = json!({"model_type": "mamba", "hidden_size": 2560, "num_hidden_layers": 64, "torch_dtype": "bfloat16"});
    assert_eq!(cache_and_states(&mamba, 100_000, "auto"), (0, 12_451_840));

    // Nemotron-H-56B: 10 attention layers, 54 states of 16,900,096 bytes in 32-bit floats.
    let nemotron = json!({"model_type": "nemotron_h", "hidden_size": 8192, "intermediate_size": 32768,
        "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 131_072,
        "mamba_num_heads": 256, "ssm_state_size": 256, "torch_dtype": "bfloat16",
        "hybrid_override_pattern": format!("{}{}", "M-".repeat(54), "*".repeat(10))});
    assert_eq!(
        cache_and_states(&nemotron, 8192, "auto"),
        (335_544_320, 54 * 16_900_096)
    );

    // Whisper-large-v3: 448 tokens and 1500 frames of 32 layers of 5120 bytes.
    let whisper = json!({"model_type": "whisper", "d_model": 1280, "encoder_layers": 32, "decoder_layers": 32,
        "encoder_attention_heads": 20, "decoder_attention_heads": 20, "vocab_size": 51866, "torch_dtype": "float16"});
    assert_eq!(
        cache_and_states(&whisper, 448, "auto").0,
        32 * 5120 * (448 + 1500)
    );
}

#[test]
fn hard_families_match_published_sizes() {
    let total_gib = |config: &Value| {
        let (cache, states) = cache_and_states(config, 32_768, "auto");
        Bytes::new(cache + states).to_string()
    };

    // Published comparisons of estimators use these as reference: 2.145, 1.129, 0.822, 2.906 GiB.
    assert_eq!(
        total_gib(&json!({"model_type": "deepseek_v3", "torch_dtype": "bfloat16"})),
        "2.14 GiB"
    );
    assert_eq!(
        total_gib(&json!({"model_type": "gpt_oss", "torch_dtype": "bfloat16"})),
        "1.13 GiB"
    );
    let next = json!({"model_type": "qwen3_next", "torch_dtype": "bfloat16"});
    assert_eq!(
        cache_and_states(&next, 32_768, "auto"),
        (12 * 2048 * 32_768, 36 * 2_146_304)
    );
    assert_eq!(total_gib(&llama()), "4.00 GiB");
}

#[test]
fn full_windows_stop_growing() {
    let gemma = json!({"model_type": "gemma3_text", "hidden_size": 5376, "num_hidden_layers": 62, "num_attention_heads": 32,
        "num_key_value_heads": 16, "head_dim": 128, "sliding_window": 1024, "torch_dtype": "bfloat16"});
    let model = model(&gemma, Inventory::default());
    let per_token = |context| {
        let prepared = prepare(&Reference, &model, tokens(context), (None, NONE)).unwrap();
        prepared.kv_bytes_per_token().get()
    };

    // 62 layers of 8,192 bytes below the window, 10 above.
    assert_eq!(per_token(1000), 507_904);
    assert_eq!(per_token(1024), 81_920);

    assert_eq!(
        cache_and_states(&gemma, 131_072, "auto").0,
        10 * 8192 * 131_072 + 52 * 8192 * 1024
    );
}

/// Windows of latents, keys of an indexer over pools of tokens, and keys of MiniMax-M3's.
#[test]
fn indexed_families_keep_least() {
    let first = |model_type: &str, layers: u64| {
        let layers = json!(layers);
        json!({"model_type": model_type, "num_hidden_layers": layers})
    };
    let cache = |config: &Value| cache_and_states(config, 5000, "bfloat16").0;

    let (indexed, windowed) = (5000 * (576 * 2 + 132), 512 * (1024 + 64) * 2);
    assert_eq!(
        cache(&first("dots3_note_text", 8)),
        3 * indexed + 5 * windowed
    );

    let pooled = 5000 * 512 * 2 + (5000 / 16) * 132;
    assert_eq!(cache(&first("glm5_next_text", 12)), 3 * pooled);

    let minimax = json!({"model_type": "minimax_m3_text", "num_hidden_layers": 2,
        "sparse_attention_config": {"sparse_attention_freq": [0, 1]}});
    assert_eq!(cache(&minimax), 5000 * (2 * 4 * 256 + 128) * 2);
}

#[test]
fn stages_add_up_to_whole() {
    let config = json!({"model_type": "qwen3", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 5,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 100, "torch_dtype": "bfloat16",
        "max_position_embeddings": 1000});
    let names: Vec<String> = (0..5)
        .map(|layer| format!("model.layers.{layer}.w"))
        .collect();

    let mut tensors: Vec<(&str, &str, Dtype, &[u64])> = vec![
        ("", "model.embed_tokens.weight", Dtype::BF16, &[100, 64]),
        ("", "lm_head.weight", Dtype::BF16, &[100, 64]),
    ];
    tensors.extend(
        names
            .iter()
            .map(|name| ("", name.as_str(), Dtype::F32, &[64_u64, 3][..])),
    );

    let mut model = model(&config, inventory(&tensors));
    model.weight_files = 2;
    let prepared = prepare(&Reference, &model, AskedWorkload::default(), (None, NONE)).unwrap();
    assert_eq!(prepared.workload().context, 1000);

    let total_bytes = |split: &Split| -> Bytes {
        let ranks = (0..split.ranks()).flat_map(|rank| components(prepared.as_ref(), split, rank));
        ranks.map(|part| part.bytes.high).sum()
    };

    let single = &prepared.splits(1).unwrap()[0];
    assert_eq!(
        total_bytes(single),
        model.inventory.bytes() + Bytes::new(1000 * 5 * 2 * 32 * 2)
    );

    for devices in 2..=5 {
        let split = &prepared.splits(devices).unwrap()[0];
        prepared.check(split).unwrap();
        assert_eq!(total_bytes(split), total_bytes(single));
    }

    prepared.splits(6).unwrap_err();
    prepared.check(&Split::tensor(2, 5)).unwrap_err();

    let gap = Split {
        stages: vec![0..2, 3..5],
        ..Split::single(5)
    };

    assert_eq!(
        prepared.check(&gap).unwrap_err().to_string(),
        "stage 3..5 does not follow layer 2"
    );
}

#[test]
fn pipelines_count_weights_only() {
    let flux = pipeline(&[], inventory(&[("vae", "w", Dtype::BF16, &[10])]));
    let prepared = prepare(&Reference, &flux, AskedWorkload::default(), (None, NONE)).unwrap();
    let parts = components(prepared.as_ref(), &prepared.splits(1).unwrap()[0], 0);
    assert_eq!(
        (parts.len(), sum(&parts, ComponentName::Weights)),
        (1, Interval::exact(Bytes::new(20)))
    );

    let unknown = model(
        &json!({"model_type": "brandnew", "hidden_size": 8}),
        Inventory::default(),
    );
    let error = prepare(&Reference, &unknown, AskedWorkload::default(), (None, NONE))
        .err()
        .unwrap();
    assert!(error.to_string().contains("brandnew"), "{error}");
}

#[test]
fn sizes_beyond_64_bits_fail() {
    let mut config = llama();
    config["head_dim"] = json!(1_u64 << 32);
    let model = model(&config, Inventory::default());
    let prepared = prepare(&Reference, &model, tokens(u64::MAX / 2), (None, NONE)).unwrap();
    let split = &prepared.splits(1).unwrap()[0];
    let error = prepared
        .variable(
            split,
            0,
            &super::super::sample::device(),
            prepared.workload(),
        )
        .unwrap_err();

    assert!(matches!(error, EngineError::Overflow { .. }), "{error}");
}

#[test]
fn unknown_parameters_and_dtypes_fail() {
    let model = model(&llama(), Inventory::default());
    let given = BTreeMap::from([("max_num_seqs".to_owned(), json!(4))]);
    assert!(prepare(&Reference, &model, tokens(1), (None, &given)).is_err());

    let asked = AskedWorkload {
        kv_cache_dtype: Some("fp7".to_owned()),
        ..tokens(1)
    };

    assert!(prepare(&Reference, &model, asked, (None, NONE)).is_err());
}

#[test]
fn looped_layers_count_each_pass() {
    // 3 layers in each of two stacks: the inner one runs four times, the outer one twice.
    let hrm = json!({"model_type": "hrm_text", "num_attention_heads": 4, "head_dim": 24,
        "num_hidden_layers": 3, "H_cycles": 2, "L_cycles": 2, "torch_dtype": "bfloat16"});
    let runs = 3 * (4 + 2);
    assert_eq!(
        cache_and_states(&hrm, 100, "auto"),
        (runs * 100 * 2 * 4 * 24 * 2, 0)
    );

    // The planner of vLLM 0.33 keeps these in 16 bits, transformers in 32.
    let inkling = json!({"model_type": "inkling_text", "num_hidden_layers": 6, "hidden_size": 160,
        "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 24,
        "swa_num_attention_heads": 8, "swa_num_key_value_heads": 4, "swa_head_dim": 16,
        "sliding_window_size": 48, "torch_dtype": "bfloat16"});
    let (windows, full) = (5 * 48 * 2 * 4 * 16, 1000 * 2 * 2 * 24);
    let rows = 3 * 2 * (5 * (4 * 16 + 160) + 2 * 24 + 160);
    assert_eq!(
        cache_and_states(&inkling, 1000, "auto"),
        ((windows + full) * 2, rows * 2)
    );
}
