use proptest::prelude::*;
use serde_json::json;

use super::super::architecture::{Attention, Recurrent};
use super::super::tensors::{InventoryBuilder, Storage};
use super::*;
use crate::bytes::Bytes;

fn read(config: &Value) -> Result<Architecture, Unsupported> {
    architecture(config, None, &Inventory::default())
}

fn qwen3() -> Value {
    json!({
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072,
        "num_hidden_layers": 4, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
        "vocab_size": 151_936, "max_position_embeddings": 40960, "torch_dtype": "bfloat16", "tie_word_embeddings": true
    })
}

/// Qwen3 with one key replaced.
fn with(key: &str, value: Value) -> Value {
    let mut config = qwen3();
    config[key] = value;
    config
}

fn attention(mixer: &Mixer) -> &Attention {
    match mixer {
        Mixer::Attention(attention) => attention,
        other => panic!("{other:?}"),
    }
}

#[test]
fn head_dim_is_read_and_not_divided_out() {
    let qwen = read(&qwen3()).unwrap();
    assert_eq!(attention(&qwen.layers[0].mixer).key_dim, 128);

    assert_eq!(
        (qwen.layers.len(), qwen.max_context, qwen.dtype),
        (4, Some(40960), Some(Dtype::BF16))
    );
    assert_eq!(
        (qwen.class.as_str(), qwen.task, qwen.tied_embeddings),
        ("Qwen3ForCausalLM", Task::Generate, Some(true))
    );
}

#[test]
fn values_that_cannot_be_meant_are_refused_by_name() {
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
        let error = read(&with(key, value.clone())).unwrap_err();
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

#[test]
fn heads_that_do_not_divide_are_named() {
    let mut config = qwen3();
    config["model_type"] = json!("llama");
    config.as_object_mut().unwrap().remove("head_dim");
    config["hidden_size"] = json!(1000);
    let error = read(&config).unwrap_err().to_string();
    assert_eq!(
        error,
        "num_attention_heads = 16: hidden size 1000 does not divide by it, and no head_dim is given"
    );
}

#[test]
fn what_is_not_an_object_or_has_no_type_is_refused() {
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
fn unknown_words_in_layer_lists_are_named() {
    let words = json!([
        "full_attention",
        "holographic_attention",
        "full_attention",
        "full_attention"
    ]);
    let error = read(&with("layer_types", words)).unwrap_err().to_string();
    assert!(
        error.contains("layer_types[1] = holographic_attention"),
        "{error}"
    );
    let pattern = json!({"model_type": "nemotron_h", "hidden_size": 64, "num_attention_heads": 8, "vocab_size": 9,
        "hybrid_override_pattern": "M*X", "intermediate_size": 64});
    assert!(
        read(&pattern)
            .unwrap_err()
            .to_string()
            .contains("hybrid_override_pattern[2] = X")
    );
}

#[test]
fn an_absent_window_takes_the_default_and_a_null_one_does_not() {
    let mistral = json!({"model_type": "mistral", "torch_dtype": "bfloat16"});
    let read_default = read(&mistral).unwrap();
    assert_eq!(
        attention(&read_default.layers[31].mixer).span,
        Span::Sliding { window: 4096 }
    );
    let null = json!({"model_type": "mistral", "sliding_window": null});
    assert_eq!(
        attention(&read(&null).unwrap().layers[31].mixer).span,
        Span::Full
    );
}

#[test]
fn gemma_4_has_two_sizes_of_heads() {
    let config = json!({"model_type": "gemma4", "text_config": {"model_type": "gemma4_text", "num_attention_heads": 16,
        "num_key_value_heads": 8, "num_global_key_value_heads": 2, "attention_k_eq_v": true, "hidden_size": 2816,
        "use_bidirectional_attention": "vision", "sliding_window": 1024, "num_hidden_layers": 12,
        "max_position_embeddings": 262_144}});
    let gemma = read(&config).unwrap();
    let (sliding, full) = (
        attention(&gemma.layers[0].mixer),
        attention(&gemma.layers[5].mixer),
    );
    assert_eq!(
        (sliding.kv_heads, sliding.key_dim, sliding.span),
        (8, 256, Span::Sliding { window: 1024 })
    );

    assert_eq!(
        (full.kv_heads, full.key_dim, full.span),
        (2, 512, Span::Full)
    );
    assert_eq!(
        (gemma.root_model_type.as_str(), gemma.model_type.as_str()),
        ("gemma4", "gemma4_text")
    );
}

#[test]
fn shared_layers_own_no_cache() {
    let config = json!({"model_type": "gemma3n", "text_config": {"model_type": "gemma3n_text"}});
    let gemma = read(&config).unwrap();
    let shared = gemma
        .layers
        .iter()
        .filter(|layer| attention(&layer.mixer).shares_cache)
        .count();

    assert_eq!((gemma.layers.len(), shared), (35, 15));
}

#[test]
fn deepseek_v4_reads_a_ratio_for_each_layer() {
    let config = json!({"model_type": "deepseek_v4", "hidden_size": 4096, "num_hidden_layers": 3, "num_attention_heads": 64,
        "num_key_value_heads": 1, "head_dim": 512, "qk_rope_head_dim": 64, "q_lora_rank": 1024, "sliding_window": 128,
        "index_head_dim": 128, "index_n_heads": 64, "index_topk": 512, "vocab_size": 129_280, "num_nextn_predict_layers": 1,
        "moe_intermediate_size": 2048, "n_routed_experts": 256, "num_experts_per_tok": 6, "compress_ratios": [0, 4, 128, 4]});
    let v4 = read(&config).unwrap();
    let ratios = v4.layers.iter().map(|layer| match &layer.mixer {
        Mixer::Latent(latent) => (
            latent.compress_ratio,
            latent.indexer.is_some(),
            latent.kv_lora_rank,
        ),
        other => panic!("{other:?}"),
    });

    let ratios: Vec<_> = ratios.collect();
    assert_eq!(
        ratios,
        [
            (Some(0), false, 448),
            (Some(4), true, 448),
            (Some(128), false, 448)
        ]
    );

    let mut other = config;
    other["compress_ratios"] = json!([0, 4, 64, 4]);

    assert!(
        read(&other)
            .unwrap_err()
            .to_string()
            .contains("compress_ratios[2] = 64")
    );
}

#[test]
fn an_unknown_switch_of_the_indexer_is_named() {
    let mut config = json!({"model_type": "deepseek_v3", "index_head_dim": 128, "index_n_heads": 64, "index_topk": 2048});
    read(&config).unwrap();
    config["index_kpool_size"] = json!(4);

    assert!(
        read(&config)
            .unwrap_err()
            .to_string()
            .contains("index_kpool_size = 4")
    );
}

#[test]
fn rope_tables_have_the_lengths_that_engines_compute() {
    let table = |config: &Value| read(config).unwrap().rope;

    // vLLM: 131072 x 128 x 2 B = 33,554,432 B for Llama-3.1-8B whatever max_model_len is.
    let llama = json!({"model_type": "llama", "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128_256,
        "max_position_embeddings": 131_072, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}});
    let plain = |positions, rotary_dim| super::super::architecture::RopeTable {
        positions,
        rotary_dim,
        float32: false,
    };

    assert_eq!(table(&llama), [plain(131_072, 128)]);
    let gemma = json!({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "num_hidden_layers": 34,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0}}});
    assert_eq!(table(&gemma), [plain(1_048_576, 256), plain(131_072, 256)]);
    assert_eq!(read(&gemma).unwrap().max_context, Some(131_072));

    let yarn = with(
        "rope_scaling",
        json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}),
    );
    assert_eq!(table(&yarn), [plain(131_072, 128)]);
    let long = json!({"model_type": "phi3", "max_position_embeddings": 131_072, "original_max_position_embeddings": 4096,
        "rope_scaling": {"type": "longrope"}});
    assert_eq!(table(&long), [plain(135_168, 96)]);

    assert!(
        read(&long)
            .unwrap()
            .notes
            .contains(&"original_max_position_embeddings=4096".to_owned())
    );

    let dynamic = with("rope_scaling", json!({"type": "dynamic", "factor": 2.0}));
    assert_eq!(read(&dynamic).unwrap().max_context, Some(81_920));
}

#[test]
fn experts_and_the_layers_that_have_them() {
    let config = json!({"model_type": "glm4_moe", "hidden_size": 4096, "intermediate_size": 10944, "num_hidden_layers": 5,
        "num_attention_heads": 96, "num_key_value_heads": 8, "head_dim": 128, "n_routed_experts": 128, "n_shared_experts": 1,
        "num_experts_per_tok": 8, "moe_intermediate_size": 1408, "first_k_dense_replace": 1, "vocab_size": 151_552,
        "num_nextn_predict_layers": 1});
    let glm = read(&config).unwrap();
    let experts = glm.experts.unwrap();
    assert_eq!(
        (
            experts.count,
            experts.active,
            experts.width,
            experts.shared_width
        ),
        (128, 8, 1408, 1408)
    );

    assert_eq!(
        glm.layers[0].feed_forward,
        FeedForward::Dense { width: 10944 }
    );
    assert_eq!(glm.layers[1].feed_forward, FeedForward::Experts);
    assert_eq!(glm.mtp_layers, 1);
    let llama = json!({"model_type": "llama4", "text_config": {"model_type": "llama4_text", "interleave_moe_layer_step": 2,
        "num_local_experts": 128}});
    let llama = read(&llama).unwrap();
    assert_eq!(
        llama.layers[0].feed_forward,
        FeedForward::Dense { width: 16384 }
    );
    assert_eq!(llama.layers[1].feed_forward, FeedForward::Experts);
    assert_eq!(llama.experts.unwrap().width, 8192);

    assert_eq!(
        attention(&llama.layers[2].mixer).span,
        Span::Chunked { chunk: 8192 }
    );
    assert_eq!(attention(&llama.layers[3].mixer).span, Span::Full);
}

#[test]
fn states_demand_their_own_dtype() {
    let nemotron = json!({"model_type": "nemotron_h", "hidden_size": 2688, "num_attention_heads": 32, "num_key_value_heads": 2,
        "head_dim": 128, "vocab_size": 131_072, "hybrid_override_pattern": "ME*-", "intermediate_size": 1856,
        "n_routed_experts": 128, "num_experts_per_tok": 6, "mamba_num_heads": 64});
    let nemotron = read(&nemotron).unwrap();
    assert_eq!(nemotron.state_dtype, Some(Dtype::F32));

    assert!(matches!(
        nemotron.layers[0].mixer,
        Mixer::Recurrent(Recurrent::Mamba2 {
            inner: 4096,
            heads: 64,
            head_dim: 64,
            state: 128,
            groups: 8,
            conv: 4
        })
    ));

    assert_eq!(nemotron.layers[1].feed_forward, FeedForward::Experts);
    assert_eq!(
        (&nemotron.layers[3].mixer, nemotron.layers[2].feed_forward),
        (&Mixer::None, FeedForward::None)
    );
}

#[test]
fn quantisation_is_normalised() {
    let read_with = |quantization: Value| {
        let quantization = read(&with("quantization_config", quantization))
            .unwrap()
            .quantization
            .unwrap();
        (
            quantization.method.clone(),
            quantization.bits,
            quantization.group_size,
            quantization,
        )
    };

    let (method, bits, group, gptq) =
        read_with(json!({"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": true}));
    assert_eq!(
        (method.as_str(), bits, group, gptq.desc_act),
        ("gptq", Some(4), Some(128), true)
    );
    let (method, bits, _, fp8) =
        read_with(json!({"quant_method": "fp8", "weight_block_size": [128, 128], "fmt": "e4m3"}));
    assert_eq!(
        (method.as_str(), bits, fp8.block, fp8.float),
        ("fp8", Some(8), Some((128, 128)), true)
    );

    let (_, bits, _, tensors) = read_with(
        json!({"quant_method": "compressed-tensors", "format": "float-quantized",
        "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float", "strategy": "channel"},
        "input_activations": {"num_bits": 8}}}, "ignore": ["lm_head"],
        "kv_cache_scheme": {"num_bits": 8, "type": "float", "strategy": "tensor"}}),
    );
    assert_eq!(
        (bits, tensors.activations, tensors.activation_bits),
        (Some(8), true, Some(8))
    );

    assert_eq!(
        (
            tensors.kv_cache_dtype.as_deref(),
            tensors.skipped.as_slice()
        ),
        (Some("fp8"), &["lm_head".to_owned()][..])
    );

    // vLLM and SGLang look for the field under compressed-tensors and ModelOpt alone.
    let (.., plain) = read_with(
        json!({"quant_method": "fp8", "kv_cache_scheme": {"num_bits": 8, "type": "float"}}),
    );
    assert_eq!(plain.kv_cache_dtype, None);
    let (_, bits, _, quark) = read_with(json!({"quant_method": "quark", "global_quant_config":
        {"weight": {"dtype": "fp8_e4m3"}, "input_tensors": {"dtype": "fp8_e4m3"}}}));
    assert_eq!(
        (bits, quark.float, quark.activations),
        (Some(8), true, true)
    );
    let (_, bits, group, _) = read_with(json!({"quant_method": "mxfp4"}));
    assert_eq!((bits, group), (Some(4), Some(32)));
    let (method, bits, ..) = read_with(json!({"load_in_4bit": true, "bnb_4bit_quant_type": "nf4"}));
    assert_eq!((method.as_str(), bits), ("bitsandbytes", Some(4)));
    let file = json!({"quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8", "group_size": 16,
        "exclude_modules": ["lm_head"]}});
    let nvfp4 = architecture(&qwen3(), Some(&file), &Inventory::default())
        .unwrap()
        .quantization
        .unwrap();
    assert_eq!(
        (nvfp4.method.as_str(), nvfp4.bits, nvfp4.group_size),
        ("modelopt", Some(4), Some(16))
    );

    assert_eq!(
        (nvfp4.kv_cache_dtype.as_deref(), nvfp4.skipped.len()),
        (Some("fp8"), 1)
    );
}

/// An inventory of plain layers with KV projections of `rows` rows.
fn plain_layers(layers: u32, rows: u64, extra: &[&str]) -> Inventory {
    let mut builder = InventoryBuilder::default();
    for layer in 0..layers {
        let mut add = |name: &str, rows: u64| {
            let name = format!("model.layers.{layer}.{name}.weight");
            builder.add(
                "",
                &name,
                Storage::Known(Dtype::BF16),
                &[rows, 1024],
                Bytes::new(rows * 2048),
            );
        };

        add("self_attn.q_proj", 2048);
        add("self_attn.k_proj", rows);
        add("self_attn.v_proj", rows);
        add("self_attn.o_proj", 1024);
        add("mlp.up_proj", 3072);

        for name in extra {
            add(name, 64);
        }
    }

    builder.finish()
}

#[test]
fn stored_projections_contradict_a_wrong_configuration() {
    architecture(&qwen3(), None, &plain_layers(4, 1024, &[])).unwrap();
    let error = architecture(&qwen3(), None, &plain_layers(4, 512, &[]))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "num_key_value_heads x head_dim = 1024: layer 0 stores a k_proj of 512 rows"
    );
    architecture(&qwen3(), None, &plain_layers(4, 2048, &[])).unwrap_err();
    let error = architecture(&qwen3(), None, &plain_layers(6, 1024, &[]))
        .unwrap_err()
        .to_string();
    assert_eq!(error, "num_hidden_layers = 4: the files hold 6 layers");
    architecture(&qwen3(), None, &plain_layers(3, 1024, &[])).unwrap_err();
}

#[test]
fn weights_that_lack_whole_layers_are_refused() {
    architecture(&qwen3(), None, &plain_layers(4, 1024, &[])).unwrap();
    let error = architecture(&qwen3(), None, &plain_layers(3, 1024, &[]))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "num_hidden_layers = 4: the weights hold no tensor of layer 3; the download may be incomplete"
    );

    // Nothing but the embedding: a first shard alone.
    let mut bare = InventoryBuilder::default();
    let rows = 151_936;

    bare.add(
        "",
        "model.embed_tokens.weight",
        Storage::Known(Dtype::BF16),
        &[rows, 1024],
        Bytes::new(rows * 2048),
    );

    let error = architecture(&qwen3(), None, &bare.finish())
        .unwrap_err()
        .to_string();
    assert!(error.contains("no tensor of layer 0"), "{error}");
}

#[test]
fn an_unknown_type_must_be_proved_by_its_tensors() {
    let unknown = with("model_type", json!("brandnew"));
    let read = |config: &Value, tensors: &Inventory| architecture(config, None, tensors);
    let plain = read(&unknown, &plain_layers(4, 1024, &["self_attn.q_norm"])).unwrap();
    assert_eq!(attention(&plain.layers[0].mixer).kv_heads, 8);

    // Nothing proves it.
    read(&unknown, &Inventory::default()).unwrap_err();

    // Something else is in its layers.
    let error = read(&unknown, &plain_layers(4, 1024, &["mixer.in_proj"]))
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with(
            "(brandnew): module mixer is not understood, so the size of its cache is unknown"
        ),
        "{error}"
    );

    // A key that may concern the cache.
    for (key, value) in [
        ("attention_sink_tokens", json!(4)),
        ("kv_lora_rank", json!(512)),
        ("ssm_state_size", json!(128)),
        ("sliding_window", json!(4096)),
        ("cross_layer_kv_sharing", json!(true)),
        ("linear_attn_config", json!({"a": 1})),
    ] {
        let mut config = unknown.clone();
        config[key] = value;
        let error = read(&config, &plain_layers(4, 1024, &[])).unwrap_err();
        assert!(
            matches!(&error, Unsupported::Family { key: named, .. } if named.contains(key)),
            "{key}: {error}"
        );
    }
    // Switched off, or harmless.
    let mut config = unknown;

    config["kv_lora_rank"] = json!(null);
    config["brand_new_loss_weight"] = json!(0.5);
    config["image_token_index"] = json!(7);
    read(&config, &plain_layers(4, 1024, &[])).unwrap();
}

#[test]
fn an_unknown_key_does_not_bother_a_known_type() {
    read(&with("attention_something_new", json!(3))).unwrap();
}

#[test]
fn an_encoder_taken_alone_keeps_nothing() {
    let mut config = json!({"architectures": ["T5EncoderModel"], "model_type": "t5", "d_model": 4096, "d_kv": 64,
        "num_heads": 64, "num_layers": 24, "d_ff": 10240, "vocab_size": 32128});
    let encoder = read(&config).unwrap();
    assert_eq!(
        (encoder.task, encoder.layers.len(), encoder.encoder),
        (Task::Encode, 24, None)
    );
    config["architectures"] = json!(["T5ForConditionalGeneration"]);
    let both = read(&config).unwrap();
    assert_eq!(
        (both.task, both.encoder.unwrap().layers),
        (Task::EncodeDecode, 24)
    );
    assert!(both.layers[0].beside.is_some());
}

#[test]
fn rewards_and_bare_models_are_pooled() {
    let mut config = qwen3();
    config["architectures"] = json!(["Qwen3ForSequenceClassification"]);
    assert_eq!(read(&config).unwrap().task, Task::Pool);
    config["architectures"] = json!(["Qwen3Model"]);
    assert_eq!(read(&config).unwrap().task, Task::Pool);
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

/// Keys whose values rules divide by, index with or multiply.
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
    fn no_configuration_panics(
        kind in prop::sample::select(HOSTILE_TYPES),
        keys in prop::collection::vec((prop::sample::select(HOSTILE_KEYS), any_value()), 0..8),
    ) {
        let mut config = with("model_type", json!(kind));
        for (key, value) in keys {
            config[key] = value;
        }
        let _ = read(&config);
    }
}

#[test]
fn out_of_range_figures_are_warned() {
    let warnings = |changes: Value| {
        let mut config =
            serde_json::json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama"});
        config
            .as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        architecture_and_warnings(&config, None, &Inventory::default())
    };

    let (read, warned) = warnings(serde_json::json!({"max_position_embeddings": i64::MAX}));
    assert_eq!(read.unwrap().max_context, None);
    assert_eq!(warned.len(), 1, "{warned:?}");

    assert!(
        warned[0].contains("max_position_embeddings = 9223372036854775807"),
        "{warned:?}"
    );

    let (_, warned) = warnings(serde_json::json!({"max_position_embeddings": 4096}));
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
            serde_json::json!({"num_experts": 8, "num_experts_per_tok": 2, "moe_layers_enum": "1,99"}),
            "moe_layers_enum = 99",
        ),
        (
            serde_json::json!({"num_experts": 8, "num_experts_per_tok": 2, "moe_layers_enum": "1,x"}),
            "moe_layers_enum = 'x'",
        ),
        (
            serde_json::json!({"num_experts": 8, "num_experts_per_tok": 2, "mlp_only_layers": [99]}),
            "mlp_only_layers = 99",
        ),
    ] {
        let (_, warned) = warnings(changes.clone());
        assert!(
            warned.iter().any(|warning| warning.contains(named)),
            "{changes}: {warned:?}"
        );
    }
}
