//! Defaults of the most common decoder classes, grouped by family.

use super::Defaults;

pub(super) const ROWS: &[(&[&str], Defaults)] = &[
    (
        &["llama"],
        sizes!(4096 11008 32 32 32000 "max_position_embeddings" 2048),
    ),
    (
        &["mistral"],
        sizes!(
            4096 14336 32 32 32000 "num_key_value_heads" 8 "sliding_window" 4096
            "max_position_embeddings" 131_072
        ),
    ),
    (
        &["mixtral"],
        sizes!(
            4096 14336 32 32 32000 "num_key_value_heads" 8 "max_position_embeddings" 131_072
            "num_local_experts" 8 "num_experts_per_tok" 2
        ),
    ),
    (
        &["qwen2"],
        sizes!(
            4096 22016 32 32 151_936 "num_key_value_heads" 32 "max_position_embeddings" 32768
            "use_sliding_window" 0 "sliding_window" 4096 "max_window_layers" 28
        ),
    ),
    (
        &["qwen3"],
        sizes!(
            4096 22016 32 32 151_936 "num_key_value_heads" 32 "head_dim" 128
            "max_position_embeddings" 32768 "use_sliding_window" 0 "sliding_window" 4096
            "max_window_layers" 28
        ),
    ),
    (
        &["qwen2_moe"],
        sizes!(
            2048 5632 24 16 151_936 "num_key_value_heads" 16 "max_position_embeddings" 32768
            "use_sliding_window" 0 "sliding_window" 4096 "max_window_layers" 28
            "decoder_sparse_step" 1 "moe_intermediate_size" 1408
            "shared_expert_intermediate_size" 5632 "num_experts_per_tok" 4 "num_experts" 60
        ),
    ),
    (
        &["qwen3_moe", "qwen3_vl_moe_text", "qwen3_omni_moe_text"],
        sizes!(
            2048 6144 24 32 151_936 "num_key_value_heads" 4 "max_position_embeddings" 32768
            "use_sliding_window" 0 "sliding_window" 4096 "max_window_layers" 28
            "decoder_sparse_step" 1 "moe_intermediate_size" 768 "num_experts_per_tok" 8
            "num_experts" 128
        ),
    ),
    (
        &["qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text"],
        sizes!(
            8192 29568 80 64 152_064 "num_key_value_heads" 8 "max_position_embeddings" 32768
            "use_sliding_window" 0 "sliding_window" 4096 "max_window_layers" 80
        ),
    ),
    (
        &["qwen3_vl_text"],
        sizes!(
            4096 22016 32 32 151_936 "num_key_value_heads" 32 "head_dim" 128
            "max_position_embeddings" 128_000
        ),
    ),
    (
        &["gemma", "gemma_text"],
        sizes!(
            3072 24576 28 16 256_000 "num_key_value_heads" 16 "head_dim" 256
            "max_position_embeddings" 8192
        ),
    ),
    (
        &["gemma2"],
        sizes!(
            2304 9216 26 8 256_000 "num_key_value_heads" 4 "head_dim" 256 "sliding_window" 4096
            "max_position_embeddings" 8192
        ),
    ),
    (
        &["gemma3_text"],
        sizes!(
            2304 9216 26 8 262_208 "num_key_value_heads" 4 "head_dim" 256 "sliding_window" 4096
            "max_position_embeddings" 131_072 "sliding_window_pattern" 6
        ),
    ),
    (
        &["gemma3n_text"],
        sizes!(
            2048 16384 35 8 262_400 "num_key_value_heads" 2 "head_dim" 256 "sliding_window" 512
            "max_position_embeddings" 32768 "num_kv_shared_layers" 15
        ),
    ),
    (
        &["gemma4_text"],
        sizes!(
            2304 9216 30 8 262_144 "num_key_value_heads" 4 "head_dim" 256 "global_head_dim" 512
            "sliding_window" 512 "max_position_embeddings" 131_072
        ),
    ),
    (
        &["gpt_oss"],
        sizes!(
            2880 2880 36 64 201_088 "num_key_value_heads" 8 "head_dim" 64 "sliding_window" 128
            "max_position_embeddings" 131_072 "num_local_experts" 128 "num_experts_per_tok" 4
        ),
    ),
    (
        &["phi3", "phi3_v"],
        sizes!(3072 8192 32 32 32064 "max_position_embeddings" 4096),
    ),
    (
        &["cohere"],
        sizes!(8192 22528 40 64 256_000 "max_position_embeddings" 8192),
    ),
    (
        &["cohere2"],
        sizes!(8192 22528 40 64 256_000 "sliding_window" 4096 "max_position_embeddings" 8192),
    ),
    (
        &["deepseek_v2"],
        sizes!(
            4096 11008 32 32 102_400 "num_key_value_heads" 32 "n_routed_experts" 64
            "n_shared_experts" 2 "moe_intermediate_size" 1407 "kv_lora_rank" 512 "q_lora_rank" 1536
            "qk_rope_head_dim" 64 "v_head_dim" 128 "qk_nope_head_dim" 128
            "max_position_embeddings" 2048
        ),
    ),
    (
        &["deepseek_v3"],
        sizes!(
            7168 18432 61 128 129_280 "num_key_value_heads" 128 "moe_intermediate_size" 2048
            "n_shared_experts" 1 "n_routed_experts" 256 "kv_lora_rank" 512 "q_lora_rank" 1536
            "qk_rope_head_dim" 64 "v_head_dim" 128 "qk_nope_head_dim" 128 "num_experts_per_tok" 8
            "first_k_dense_replace" 3 "max_position_embeddings" 4096
        ),
    ),
    (
        &["llama4_text"],
        sizes!(
            5120 8192 48 40 202_048 "num_key_value_heads" 8 "head_dim" 128
            "attention_chunk_size" 8192 "intermediate_size_mlp" 16384 "num_local_experts" 16
            "num_experts_per_tok" 1 "interleave_moe_layer_step" 1 "max_position_embeddings" 131_072
        ),
    ),
    (
        &["mllama_text_model"],
        sizes!(4096 14336 40 32 128_256 "num_key_value_heads" 8 "max_position_embeddings" 131_072),
    ),
    (
        &["olmo3"],
        sizes!(4096 11008 32 32 50304 "sliding_window" 4096 "max_position_embeddings" 2048),
    ),
    (
        &["starcoder2"],
        sizes!(3072 12288 30 24 49152 "num_key_value_heads" 2 "max_position_embeddings" 4096),
    ),
    (
        &["gpt2"],
        &[
            ("n_embd", 768),
            ("n_layer", 12),
            ("n_head", 12),
            ("vocab_size", 50257),
            ("n_positions", 1024),
        ],
    ),
    (
        &["gpt_bigcode"],
        &[
            ("n_embd", 768),
            ("n_layer", 12),
            ("n_head", 12),
            ("vocab_size", 50257),
            ("n_positions", 1024),
            ("multi_query", 1),
        ],
    ),
    (
        &["gpt_neo"],
        &[
            ("hidden_size", 2048),
            ("num_layers", 24),
            ("num_heads", 16),
            ("vocab_size", 50257),
            ("max_position_embeddings", 2048),
        ],
    ),
    (
        &["gptj"],
        &[
            ("n_embd", 4096),
            ("n_layer", 28),
            ("n_head", 16),
            ("vocab_size", 50400),
            ("n_positions", 2048),
            ("rotary_dim", 64),
        ],
    ),
    (
        &["gpt_neox"],
        sizes!(6144 24576 44 64 50432 "max_position_embeddings" 2048),
    ),
    (
        &["falcon"],
        &[
            ("hidden_size", 4544),
            ("num_hidden_layers", 32),
            ("num_attention_heads", 71),
            ("vocab_size", 65024),
            ("multi_query", 1),
            ("max_position_embeddings", 2048),
        ],
    ),
    (
        &["opt"],
        &[
            ("hidden_size", 768),
            ("ffn_dim", 3072),
            ("num_hidden_layers", 12),
            ("num_attention_heads", 12),
            ("vocab_size", 50272),
            ("max_position_embeddings", 2048),
        ],
    ),
    (
        &["helium"],
        sizes!(
            2560 7040 24 20 48000 "num_key_value_heads" 20 "head_dim" 128
            "max_position_embeddings" 4096
        ),
    ),
];
