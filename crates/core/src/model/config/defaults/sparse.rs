//! Defaults of classes with an indexer, and of others that came with them, in alphabetical order.
//!
//! Source: transformers 5.24 `models/<type>/configuration_<type>.py`.

use super::Defaults;

pub(super) const ROWS: &[(&[&str], Defaults)] = &[
    (
        &["apertus1p5_text"],
        sizes!(4096 14336 32 32 266_752 "max_position_embeddings" 65536),
    ),
    (
        &["axk2"],
        sizes!(
            2048 5120 48 32 163_840 "v_head_dim" 64 "max_position_embeddings" 131_072
            "kv_lora_rank" 128 "q_lora_rank" 384 "qk_rope_head_dim" 32 "qk_nope_head_dim" 64
            "index_head_dim" 128 "index_n_heads" 16 "index_topk" 2048 "n_routed_experts" 128
            "num_experts_per_tok" 8 "moe_intermediate_size" 512 "n_shared_experts" 1
            "first_k_dense_replace" 1
        ),
    ),
    (
        &["dots3_note", "dots3_note_text"],
        sizes!(
            5120 13824 46 128 152_064 "v_head_dim" 128 "max_position_embeddings" 524_288
            "kv_lora_rank" 512 "q_lora_rank" 1024 "qk_rope_head_dim" 64 "qk_nope_head_dim" 128
            "index_head_dim" 128 "index_n_heads" 64 "index_topk" 2048 "n_routed_experts" 256
            "num_experts_per_tok" 8 "moe_intermediate_size" 1536 "n_shared_experts" 1
            "first_k_dense_replace" 1
        ),
    ),
    (
        &["glm5_next", "glm5_next_text"],
        sizes!(
            4096 12288 45 64 154_880 "v_head_dim" 256 "max_position_embeddings" 1_048_576
            "kv_lora_rank" 512 "q_lora_rank" 1536 "qk_rope_head_dim" 0 "qk_nope_head_dim" 256
            "index_head_dim" 128 "index_n_heads" 32 "index_topk" 2048 "index_kpool" 16
            "linear_head_dim" 128 "linear_num_heads" 64 "linear_conv_kernel_dim" 4
            "n_routed_experts" 288 "num_experts_per_tok" 8 "moe_intermediate_size" 2048
            "n_shared_experts" 1 "first_k_dense_replace" 3
        ),
    ),
    (
        &["hy_v4"],
        sizes!(
            2816 6912 34 32 120_832 "v_head_dim" 256 "max_position_embeddings" 262_144
            "kv_lora_rank" 512 "q_lora_rank" 1536 "qk_rope_head_dim" 64 "qk_nope_head_dim" 192
            "index_head_dim" 128 "index_n_heads" 16 "index_topk" 2048 "n_routed_experts" 256
            "num_experts_per_tok" 8 "moe_intermediate_size" 768 "n_shared_experts" 1
            "first_k_dense_replace" 1
        ),
    ),
    (
        &["hy_v4_vl_text"],
        sizes!(
            6144 18432 78 64 120_832 "v_head_dim" 256 "max_position_embeddings" 262_144
            "kv_lora_rank" 512 "q_lora_rank" 2048 "qk_rope_head_dim" 64 "qk_nope_head_dim" 192
            "index_head_dim" 128 "index_n_heads" 32 "index_topk" 2048 "n_routed_experts" 256
            "num_experts_per_tok" 8 "moe_intermediate_size" 2048 "n_shared_experts" 1
            "first_k_dense_replace" 1
        ),
    ),
    (
        &["kolibri1"],
        &[
            ("hidden_size", 2560),
            ("num_hidden_layers", 50),
            ("num_attention_heads", 48),
            ("vocab_size", 128_000),
            ("num_key_value_heads", 4),
            ("head_dim", 128),
            ("max_position_embeddings", 262_144),
            ("sliding_window", 513),
            ("num_experts", 384),
            ("num_experts_per_tok", 6),
            ("moe_intermediate_size", 512),
            ("shared_expert_intermediate_size", 512),
        ],
    ),
    (
        &[
            "minimax_m3",
            "minimax_m3_text",
            "minimax_m3_vl",
            "minimax_m3_vl_text",
        ],
        sizes!(
            6144 3072 60 64 200_064 "num_key_value_heads" 4 "head_dim" 128
            "max_position_embeddings" 524_288 "dense_intermediate_size" 12288
            "shared_intermediate_size" 3072 "num_local_experts" 128 "num_experts_per_tok" 4
            "index_head_dim" 128
        ),
    ),
    (
        &["mistral_large4_text"],
        sizes!(
            6144 24576 72 64 204_800 "v_head_dim" 128 "max_position_embeddings" 1_048_576
            "kv_lora_rank" 512 "qk_rope_head_dim" 64 "qk_nope_head_dim" 64 "index_head_dim" 128
            "index_n_heads" 32 "index_topk" 2048 "n_routed_experts" 128 "num_experts_per_tok" 4
            "moe_intermediate_size" 6144 "n_shared_experts" 1 "first_k_dense_replace" 1
        ),
    ),
];
