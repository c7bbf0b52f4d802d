//! Tests of the layers, tables and tasks that families of configurations yield.

mod dialects;
mod invalid_values;
mod quantization;
mod tensor_checks;

use serde_json::json;

use super::super::architecture::{Attention, Recurrent, RopeTable};
use super::*;

fn read(config: &Value) -> Result<Architecture, Unsupported> {
    architecture(config, None, &Inventory::default())
}

fn qwen3() -> Value {
    json!({ "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 1024,
        "intermediate_size": 3072, "num_hidden_layers": 4, "num_attention_heads": 16,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936,
        "max_position_embeddings": 40960, "torch_dtype": "bfloat16", "tie_word_embeddings": true })
}

/// Returns Qwen3 with one key replaced.
fn qwen3_with(key: &str, value: Value) -> Value {
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
fn explicit_head_dim_is_used() {
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
fn absent_window_uses_default() {
    let mistral = json!({"model_type": "mistral", "torch_dtype": "bfloat16"});
    let read_default = read(&mistral).unwrap();
    assert_eq!(
        attention(&read_default.layers[31].mixer).span,
        Span::Sliding { window: 4096 }
    );
    let null = json!({"model_type": "mistral", "sliding_window": null});
    assert_eq!(
        attention(&read(&null).unwrap().layers[31].mixer).span,
        Span::Full,
        "null means no window, not the default"
    );
}

#[test]
fn gemma_4_has_two_head_sizes() {
    let config = json!({"model_type": "gemma4", "text_config": {"model_type": "gemma4_text",
        "num_attention_heads": 16, "num_key_value_heads": 8, "num_global_key_value_heads": 2,
        "attention_k_eq_v": true, "hidden_size": 2816, "use_bidirectional_attention": "vision",
        "sliding_window": 1024, "num_hidden_layers": 12, "max_position_embeddings": 262_144}});
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
fn shared_layers_have_no_cache() {
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
fn deepseek_v4_reads_layer_ratios() {
    let config = json!({"model_type": "deepseek_v4", "hidden_size": 4096, "num_hidden_layers": 3,
        "num_attention_heads": 64, "num_key_value_heads": 1, "head_dim": 512,
        "qk_rope_head_dim": 64, "q_lora_rank": 1024, "sliding_window": 128, "index_head_dim": 128,
        "index_n_heads": 64, "index_topk": 512, "vocab_size": 129_280,
        "num_nextn_predict_layers": 1, "moe_intermediate_size": 2048, "n_routed_experts": 256,
        "num_experts_per_tok": 6, "compress_ratios": [0, 4, 128, 4]});
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
fn unknown_indexer_flag_is_named() {
    let mut config = json!({"model_type": "deepseek_v3", "index_head_dim": 128, "index_n_heads": 64,
        "index_topk": 2048});
    read(&config).unwrap();
    config["index_kpool_size"] = json!(4);

    assert!(
        read(&config)
            .unwrap_err()
            .to_string()
            .contains("index_kpool_size = 4")
    );
}

fn rope_tables(config: &Value) -> Vec<RopeTable> {
    read(config).unwrap().rope
}

fn model_dtype_table(positions: u64, rotary_dim: u64) -> RopeTable {
    RopeTable {
        positions,
        multimodal: false,
        rotary_dim,
        float32: false,
    }
}

#[test]
fn rope_tables_match_engines() {
    // vLLM: 131072 x 128 x 2 B = 33,554,432 B for Llama-3.1-8B whatever max_model_len is.
    let llama = json!({"model_type": "llama", "num_key_value_heads": 8, "intermediate_size": 14336,
        "vocab_size": 128_256, "max_position_embeddings": 131_072,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0}});
    assert_eq!(rope_tables(&llama), [model_dtype_table(131_072, 128)]);
    let gemma = json!({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text",
        "num_hidden_layers": 34, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}});
    assert_eq!(
        rope_tables(&gemma),
        [
            model_dtype_table(1_048_576, 256),
            model_dtype_table(131_072, 256)
        ]
    );
    assert_eq!(read(&gemma).unwrap().max_context, Some(131_072));

    let yarn = qwen3_with(
        "rope_scaling",
        json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}),
    );
    assert_eq!(rope_tables(&yarn), [model_dtype_table(131_072, 128)]);
    let long = json!({"model_type": "phi3", "max_position_embeddings": 131_072,
        "original_max_position_embeddings": 4096, "rope_scaling": {"type": "longrope"}});
    assert_eq!(rope_tables(&long), [model_dtype_table(135_168, 96)]);

    assert!(
        read(&long)
            .unwrap()
            .notes
            .contains(&"original_max_position_embeddings=4096".to_owned())
    );

    let dynamic = qwen3_with("rope_scaling", json!({"type": "dynamic", "factor": 2.0}));
    assert_eq!(read(&dynamic).unwrap().max_context, Some(81_920));
}

#[test]
fn expert_layers_are_read() {
    let config = json!({"model_type": "glm4_moe", "hidden_size": 4096, "intermediate_size": 10944,
        "num_hidden_layers": 5, "num_attention_heads": 96, "num_key_value_heads": 8,
        "head_dim": 128, "n_routed_experts": 128, "n_shared_experts": 1, "num_experts_per_tok": 8,
        "moe_intermediate_size": 1408, "first_k_dense_replace": 1, "vocab_size": 151_552,
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
    let llama = json!({"model_type": "llama4", "text_config": {"model_type": "llama4_text",
        "interleave_moe_layer_step": 2, "num_local_experts": 128}});
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
fn recurrent_states_keep_their_dtype() {
    let nemotron = json!({"model_type": "nemotron_h", "hidden_size": 2688,
        "num_attention_heads": 32, "num_key_value_heads": 2, "head_dim": 128, "vocab_size": 131_072,
        "hybrid_override_pattern": "ME*-", "intermediate_size": 1856, "n_routed_experts": 128,
        "num_experts_per_tok": 6, "mamba_num_heads": 64});
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
fn lone_encoder_has_no_cache() {
    let mut config = json!({"architectures": ["T5EncoderModel"], "model_type": "t5",
        "d_model": 4096, "d_kv": 64, "num_heads": 64, "num_layers": 24, "d_ff": 10240,
        "vocab_size": 32128});
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
    assert!(both.layers[0].second_mixer.is_some());
}

#[test]
fn reward_and_bare_models_pool() {
    let mut config = qwen3();
    config["architectures"] = json!(["Qwen3ForSequenceClassification"]);
    assert_eq!(read(&config).unwrap().task, Task::Pool);
    config["architectures"] = json!(["Qwen3Model"]);
    assert_eq!(read(&config).unwrap().task, Task::Pool);
}
