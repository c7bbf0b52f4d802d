//! Defaults of further classes with experts, in alphabetical order.
//!
//! Source: transformers 5.23 `models/<type>/configuration_<type>.py`.

use super::Defaults;

pub(super) const ROWS: &[(&[&str], Defaults)] = &[
    (
        &["afmoe"],
        sizes!(
            2048 6144 32 16 200_192 "max_position_embeddings" 16384 "sliding_window" 1024
            "num_experts" 64 "num_experts_per_tok" 6 "moe_intermediate_size" 1408
            "num_shared_experts" 2 "num_dense_layers" 1
        ),
    ),
    (
        &["aria_text"],
        sizes!(
            4096 4096 32 32 32000 "max_position_embeddings" 2048 "moe_num_experts" 8 "moe_topk" 2
            "moe_num_shared_experts" 2
        ),
    ),
    (
        &["axk1"],
        sizes!(
            7168 18432 61 64 163_840 "v_head_dim" 128 "max_position_embeddings" 32768
            "kv_lora_rank" 512 "q_lora_rank" 1536 "qk_rope_head_dim" 64 "qk_nope_head_dim" 128
            "n_routed_experts" 192 "num_experts_per_tok" 8 "moe_intermediate_size" 2048
            "n_shared_experts" 1
        ),
    ),
    (
        &["bailing_hybrid"],
        sizes!(
            2560 6144 42 32 157_184 "v_head_dim" 128 "kv_lora_rank" 512 "qk_rope_head_dim" 64
            "qk_nope_head_dim" 128 "num_experts" 512 "moe_intermediate_size" 768
            "num_shared_experts" 1 "first_k_dense_replace" 2 "layer_group_size" 6
            "linear_conv_kernel_dim" 4
        ),
    ),
    (
        &["beam"],
        sizes!(
            5120 20480 52 48 151_936 "num_key_value_heads" 8 "head_dim" 128
            "max_position_embeddings" 8192 "sliding_window" 512 "num_experts" 256
            "num_experts_per_tok" 8 "moe_intermediate_size" 2560
        ),
    ),
    (
        &["cohere2_moe"],
        sizes!(
            8192 22528 40 64 256_000 "max_position_embeddings" 8192 "sliding_window" 4096
            "num_experts" 8 "num_experts_per_tok" 2 "num_shared_experts" 0
        ),
    ),
    (
        &["deepseek_v32"],
        sizes!(
            7168 18432 61 128 129_280 "v_head_dim" 128 "max_position_embeddings" 163_840
            "kv_lora_rank" 512 "q_lora_rank" 1536 "qk_rope_head_dim" 64 "qk_nope_head_dim" 128
            "index_head_dim" 128 "index_n_heads" 64 "index_topk" 2048 "n_routed_experts" 256
            "num_experts_per_tok" 8 "moe_intermediate_size" 2048 "n_shared_experts" 1
            "first_k_dense_replace" 3
        ),
    ),
    (
        &["deepseek_v4"],
        &[
            ("hidden_size", 4096),
            ("num_hidden_layers", 43),
            ("num_attention_heads", 64),
            ("vocab_size", 129_280),
            ("num_key_value_heads", 1),
            ("head_dim", 512),
            ("max_position_embeddings", 1_048_576),
            ("sliding_window", 128),
            ("q_lora_rank", 1024),
            ("qk_rope_head_dim", 64),
            ("index_head_dim", 128),
            ("index_n_heads", 64),
            ("index_topk", 512),
            ("n_routed_experts", 256),
            ("num_experts_per_tok", 6),
            ("moe_intermediate_size", 2048),
            ("n_shared_experts", 1),
        ],
    ),
    (
        &["ernie4_5_moe"],
        sizes!(
            2560 12288 28 20 103_424 "num_key_value_heads" 4 "max_position_embeddings" 131_072
            "moe_num_experts" 64 "moe_k" 6 "moe_intermediate_size" 1536 "moe_num_shared_experts" 2
            "moe_layer_start_index" 1 "moe_layer_interval" 1
        ),
    ),
    (
        &["ernie4_5_vl_moe_text"],
        sizes!(
            2560 12288 28 20 103_424 "num_key_value_heads" 4 "max_position_embeddings" 131_072
            "moe_num_experts" 64 "moe_k" 6 "moe_num_shared_experts" 2
        ),
    ),
    (
        &["exaone_moe"],
        sizes!(
            4096 16384 32 32 102_400 "max_position_embeddings" 2048 "sliding_window" 4096
            "num_experts" 64 "num_experts_per_tok" 8 "moe_intermediate_size" 1024
            "num_shared_experts" 1 "first_k_dense_replace" 1
        ),
    ),
    (
        &["flex_olmo"],
        sizes!(
            4096 11008 32 32 100_352 "max_position_embeddings" 4096 "num_experts" 7
            "num_experts_per_tok" 5
        ),
    ),
    (
        &["flint"],
        sizes!(
            2048 6144 49 32 150_144 "num_key_value_heads" 4 "head_dim" 128
            "max_position_embeddings" 262_144 "sliding_window" 513 "num_experts" 256
            "num_experts_per_tok" 6 "moe_intermediate_size" 512
            "shared_expert_intermediate_size" 1024 "decoder_sparse_step" 1
        ),
    ),
    (
        &["glm4_moe"],
        sizes!(
            4096 10944 46 96 151_552 "num_key_value_heads" 8 "max_position_embeddings" 131_072
            "n_routed_experts" 128 "num_experts_per_tok" 8 "moe_intermediate_size" 1408
            "n_shared_experts" 1 "first_k_dense_replace" 1
        ),
    ),
    (
        &["glm4_moe_lite"],
        sizes!(
            2048 10240 47 20 154_880 "v_head_dim" 256 "max_position_embeddings" 202_752
            "kv_lora_rank" 512 "q_lora_rank" 768 "qk_rope_head_dim" 64 "qk_nope_head_dim" 192
            "n_routed_experts" 64 "num_experts_per_tok" 4 "moe_intermediate_size" 1536
            "n_shared_experts" 1
        ),
    ),
    (
        &["glm4v_moe_text"],
        sizes!(
            4096 10944 46 96 151_424 "num_key_value_heads" 8 "max_position_embeddings" 65536
            "n_routed_experts" 128 "num_experts_per_tok" 8 "moe_intermediate_size" 1408
            "n_shared_experts" 1 "first_k_dense_replace" 1
        ),
    ),
    (
        &["glm_moe_dsa"],
        sizes!(
            6144 12288 78 64 154_880 "v_head_dim" 256 "max_position_embeddings" 202_752
            "kv_lora_rank" 512 "q_lora_rank" 2048 "qk_rope_head_dim" 64 "qk_nope_head_dim" 192
            "index_head_dim" 128 "index_n_heads" 32 "index_topk" 2048 "n_routed_experts" 256
            "num_experts_per_tok" 8 "moe_intermediate_size" 2048 "n_shared_experts" 1
            "first_k_dense_replace" 3
        ),
    ),
    (
        &["granitemoe"],
        sizes!(
            4096 11008 32 32 32000 "max_position_embeddings" 2048 "num_local_experts" 8
            "num_experts_per_tok" 2
        ),
    ),
    (
        &["granitemoe_swa"],
        sizes!(
            4096 11008 32 32 32000 "max_position_embeddings" 2048 "sliding_window" 128
            "num_local_experts" 8 "num_experts_per_tok" 2 "shared_intermediate_size" 0
        ),
    ),
    (
        &["granitemoeshared"],
        sizes!(
            4096 11008 32 32 32000 "max_position_embeddings" 2048 "num_local_experts" 8
            "num_experts_per_tok" 2 "shared_intermediate_size" 0
        ),
    ),
    (
        &["hunyuan_v1_moe"],
        sizes!(
            4096 11008 32 32 290_943 "max_position_embeddings" 2048 "num_experts" 1 "moe_topk" 1
        ),
    ),
    (
        &["hy_v3"],
        sizes!(
            4096 13312 80 64 120_832 "num_key_value_heads" 8 "head_dim" 128
            "max_position_embeddings" 131_072 "num_experts" 192 "num_experts_per_tok" 8
            "moe_intermediate_size" 1536 "num_shared_experts" 1
        ),
    ),
    (
        &["jetmoe"],
        sizes!(
            2048 5632 12 32 32000 "num_key_value_heads" 16 "max_position_embeddings" 4096
            "num_local_experts" 8 "num_experts_per_tok" 2 "kv_channels" 128
        ),
    ),
    (
        &["kimi_linear"],
        sizes!(
            2304 9216 27 32 163_840 "v_head_dim" 128 "kv_lora_rank" 512 "qk_rope_head_dim" 64
            "qk_nope_head_dim" 128 "num_experts" 256 "moe_intermediate_size" 1024
            "num_shared_experts" 1 "linear_conv_kernel_dim" 4
        ),
    ),
    (
        &["laguna"],
        sizes!(
            2048 8192 40 48 100_352 "num_key_value_heads" 8 "head_dim" 128
            "max_position_embeddings" 131_072 "sliding_window" 512 "num_experts" 256
            "num_experts_per_tok" 8 "moe_intermediate_size" 512
            "shared_expert_intermediate_size" 512
        ),
    ),
    (
        &["longcat_flash"],
        &[
            ("hidden_size", 6144),
            ("num_attention_heads", 64),
            ("vocab_size", 131_072),
            ("num_layers", 28),
            ("v_head_dim", 128),
            ("max_position_embeddings", 131_072),
            ("kv_lora_rank", 512),
            ("q_lora_rank", 1536),
            ("qk_rope_head_dim", 64),
            ("qk_nope_head_dim", 128),
            ("n_routed_experts", 512),
            ("moe_topk", 12),
        ],
    ),
    (
        &["mellum"],
        sizes!(
            2304 7168 28 32 98304 "num_key_value_heads" 4 "head_dim" 128
            "max_position_embeddings" 131_072 "sliding_window" 1024 "num_local_experts" 64
            "num_experts_per_tok" 8 "moe_intermediate_size" 896
        ),
    ),
    (
        &["mimo_v2_flash"],
        sizes!(
            4096 16384 48 64 152_576 "num_key_value_heads" 4 "head_dim" 192 "v_head_dim" 128
            "max_position_embeddings" 131_072 "sliding_window" 129 "n_routed_experts" 256
            "num_experts_per_tok" 8 "moe_intermediate_size" 2048
        ),
    ),
    (
        &["minimax"],
        sizes!(
            4096 14336 32 32 32000 "num_key_value_heads" 8 "max_position_embeddings" 131_072
            "num_local_experts" 8 "num_experts_per_tok" 2
        ),
    ),
    (
        &["minimax_m2"],
        sizes!(
            3072 1536 62 48 200_064 "num_key_value_heads" 8 "head_dim" 128
            "max_position_embeddings" 196_608 "num_local_experts" 256 "num_experts_per_tok" 8
        ),
    ),
    (
        &["mistral4"],
        sizes!(
            4096 12288 36 32 131_072 "v_head_dim" 128 "max_position_embeddings" 1_048_576
            "kv_lora_rank" 256 "q_lora_rank" 1024 "qk_rope_head_dim" 64 "qk_nope_head_dim" 64
            "n_routed_experts" 128 "num_experts_per_tok" 4 "moe_intermediate_size" 2048
            "n_shared_experts" 1 "first_k_dense_replace" 0
        ),
    ),
    (
        &["muse_spark_text"],
        sizes!(
            8192 16384 62 128 202_048 "num_key_value_heads" 16 "max_position_embeddings" 1_048_576
            "sliding_window" 2048 "num_local_experts" 256 "num_experts_per_tok" 8
            "moe_intermediate_size" 4096
        ),
    ),
    (
        &["olmoe"],
        sizes!(
            2048 2048 16 16 50304 "max_position_embeddings" 4096 "num_experts" 64
            "num_experts_per_tok" 8
        ),
    ),
    (
        &["phimoe"],
        sizes!(
            4096 6400 32 32 32064 "num_key_value_heads" 8 "max_position_embeddings" 131_072
            "num_local_experts" 16 "num_experts_per_tok" 2
        ),
    ),
    (
        &["solar_open"],
        &[
            ("hidden_size", 4096),
            ("num_hidden_layers", 48),
            ("num_attention_heads", 64),
            ("vocab_size", 196_608),
            ("num_key_value_heads", 8),
            ("head_dim", 128),
            ("max_position_embeddings", 131_072),
            ("n_routed_experts", 128),
            ("num_experts_per_tok", 8),
            ("moe_intermediate_size", 1280),
            ("n_shared_experts", 1),
        ],
    ),
    (
        &["step3p5"],
        sizes!(
            4096 11264 45 64 128_815 "num_key_value_heads" 8 "head_dim" 128
            "max_position_embeddings" 128_000 "n_routed_experts" 288 "num_experts_per_tok" 8
            "moe_intermediate_size" 1280
        ),
    ),
];
