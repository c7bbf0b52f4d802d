//! Defaults of classes that have recurrent layers.

use super::Defaults;

pub(super) const ROWS: &[(&[&str], Defaults)] = &[
    (
        &["qwen3_next"],
        sizes!(
            2048 5632 48 16 151_936 "num_key_value_heads" 2 "head_dim" 256
            "max_position_embeddings" 32768 "linear_conv_kernel_dim" 4 "linear_key_head_dim" 128
            "linear_value_head_dim" 128 "linear_num_key_heads" 16 "linear_num_value_heads" 32
            "decoder_sparse_step" 1 "moe_intermediate_size" 512
            "shared_expert_intermediate_size" 512 "num_experts_per_tok" 10 "num_experts" 512
            "full_attention_interval" 4
        ),
    ),
    (
        &["qwen3_5_text"],
        sizes!(
            4096 12288 32 16 248_320 "num_key_value_heads" 4 "head_dim" 256
            "max_position_embeddings" 32768 "linear_conv_kernel_dim" 4 "linear_key_head_dim" 128
            "linear_value_head_dim" 128 "linear_num_key_heads" 16 "linear_num_value_heads" 32
            "full_attention_interval" 4
        ),
    ),
    (
        &["qwen3_5_moe_text"],
        &[
            ("hidden_size", 2048),
            ("num_hidden_layers", 40),
            ("num_attention_heads", 16),
            ("vocab_size", 248_320),
            ("num_key_value_heads", 2),
            ("head_dim", 256),
            ("max_position_embeddings", 32768),
            ("linear_conv_kernel_dim", 4),
            ("linear_key_head_dim", 128),
            ("linear_value_head_dim", 128),
            ("linear_num_key_heads", 16),
            ("linear_num_value_heads", 32),
            ("moe_intermediate_size", 512),
            ("shared_expert_intermediate_size", 512),
            ("num_experts_per_tok", 8),
            ("num_experts", 256),
            ("full_attention_interval", 4),
        ],
    ),
    (
        &["mamba"],
        &[
            ("hidden_size", 768),
            ("num_hidden_layers", 32),
            ("vocab_size", 50280),
            ("state_size", 16),
            ("expand", 2),
            ("conv_kernel", 4),
        ],
    ),
    (
        &["falcon_mamba"],
        &[
            ("hidden_size", 768),
            ("num_hidden_layers", 32),
            ("vocab_size", 50280),
            ("state_size", 16),
            ("expand", 2),
            ("conv_kernel", 4),
        ],
    ),
    (
        &["mamba_ssm"],
        &[("state_size", 16), ("expand", 2), ("conv_kernel", 4)],
    ),
    (
        &["mamba2"],
        &[
            ("num_heads", 128),
            ("head_dim", 64),
            ("hidden_size", 4096),
            ("state_size", 128),
            ("num_hidden_layers", 64),
            ("expand", 2),
            ("conv_kernel", 4),
            ("n_groups", 8),
            ("vocab_size", 32768),
        ],
    ),
    (
        &["jamba"],
        sizes!(
            4096 14336 32 32 65536 "num_key_value_heads" 8 "attn_layer_period" 8
            "attn_layer_offset" 4 "expert_layer_period" 2 "expert_layer_offset" 1 "mamba_d_state" 16
            "mamba_d_conv" 4 "mamba_expand" 2 "num_experts" 16 "num_experts_per_tok" 2
            "max_position_embeddings" 262_144
        ),
    ),
    (
        &["bamba"],
        sizes!(
            4096 14336 32 32 128_000 "num_key_value_heads" 8 "max_position_embeddings" 262_144
            "mamba_n_heads" 128 "mamba_n_groups" 1 "mamba_d_state" 256 "mamba_d_conv" 4
            "mamba_expand" 2
        ),
    ),
    (
        &["granitemoehybrid"],
        sizes!(
            4096 11008 32 32 32000 "max_position_embeddings" 2048 "mamba_n_heads" 128
            "mamba_n_groups" 1 "mamba_d_state" 256 "mamba_d_conv" 4 "mamba_expand" 2
            "num_local_experts" 8 "num_experts_per_tok" 2 "shared_intermediate_size" 1024
        ),
    ),
    (
        &["falcon_h1"],
        sizes!(
            4096 14336 32 32 128_000 "num_key_value_heads" 8 "max_position_embeddings" 8192
            "mamba_n_heads" 128 "mamba_n_groups" 1 "mamba_d_state" 256 "mamba_d_conv" 4
            "mamba_expand" 2 "mamba_d_ssm" 1024
        ),
    ),
    (
        &["zamba2"],
        &[
            ("mamba_d_state", 64),
            ("mamba_d_conv", 4),
            ("mamba_expand", 2),
            ("mamba_ngroups", 1),
            ("n_mamba_heads", 8),
            ("hidden_size", 2560),
            ("num_hidden_layers", 54),
            ("num_attention_heads", 32),
            ("vocab_size", 32000),
            ("max_position_embeddings", 4096),
        ],
    ),
    (
        &["zamba"],
        &[
            ("mamba_d_state", 16),
            ("mamba_d_conv", 4),
            ("mamba_expand", 2),
        ],
    ),
    (
        &["nemotron_h"],
        &[
            ("mamba_num_heads", 128),
            ("mamba_head_dim", 64),
            ("ssm_state_size", 128),
            ("n_groups", 8),
            ("conv_kernel", 4),
            ("num_key_value_heads", 8),
        ],
    ),
    (
        &["lfm2"],
        sizes!(
            2560 12288 32 32 65536 "num_key_value_heads" 8 "conv_L_cache" 3
            "max_position_embeddings" 128_000
        ),
    ),
    (
        &["lfm2_moe"],
        sizes!(
            2048 7168 32 32 65536 "num_key_value_heads" 8 "conv_L_cache" 3
            "max_position_embeddings" 128_000 "moe_intermediate_size" 1792 "num_dense_layers" 2
            "num_experts_per_tok" 4 "num_experts" 32
        ),
    ),
    (
        &["rwkv"],
        &[
            ("hidden_size", 4096),
            ("num_hidden_layers", 32),
            ("vocab_size", 50277),
            ("context_length", 1024),
        ],
    ),
    (
        &["lfm3"],
        sizes!(
            2048 7680 24 16 128_000 "num_key_value_heads" 4 "conv_L_cache" 7 "head_dim" 128
            "sliding_window" 256 "max_position_embeddings" 128_000
        ),
    ),
    (
        &["inkling_text"],
        sizes!(
            6144 24576 66 64 201_024 "num_key_value_heads" 8 "head_dim" 128
            "swa_num_attention_heads" 64 "swa_num_key_value_heads" 16 "swa_head_dim" 128
            "sliding_window_size" 512 "conv_kernel_size" 4 "max_position_embeddings" 131_072
            "moe_intermediate_size" 3072 "n_routed_experts" 256 "num_experts_per_tok" 6
            "n_shared_experts" 2
        ),
    ),
    (
        &["inkling2_text"],
        sizes!(
            4608 2304 48 48 201_024 "num_key_value_heads" 8 "head_dim" 128
            "swa_num_attention_heads" 48 "swa_num_key_value_heads" 8 "swa_head_dim" 128
            "sliding_window_size" 1024 "conv_kernel_size" 4 "max_position_embeddings" 1_048_576
            "moe_intermediate_size" 2304 "n_routed_experts" 384 "num_experts_per_tok" 8
        ),
    ),
    (
        &["inkling2_loop_text"],
        sizes!(
            2304 1152 24 24 201_024 "num_key_value_heads" 8 "head_dim" 128
            "swa_num_attention_heads" 24 "swa_num_key_value_heads" 8 "swa_head_dim" 128
            "sliding_window_size" 1024 "conv_kernel_size" 4 "max_position_embeddings" 1_048_576
            "moe_intermediate_size" 1152 "n_routed_experts" 128 "num_experts_per_tok" 8
            "loop_layer_index_start" 6 "loop_layer_index_end" 18 "loop_num_passes" 3
        ),
    ),
    (
        &["zaya"],
        sizes!(
            2048 2048 40 8 262_272 "num_key_value_heads" 2 "head_dim" 128 "cca_time0" 2
            "cca_time1" 2 "max_position_embeddings" 131_072 "moe_intermediate_size" 2048
            "num_experts" 16 "num_experts_per_tok" 1
        ),
    ),
    (
        &["hrm_text"],
        sizes!(
            1536 4096 16 12 151_808 "head_dim" 128 "max_position_embeddings" 2048 "H_cycles" 2
            "L_cycles" 3
        ),
    ),
    (
        &["dory"],
        sizes!(
            2560 7168 36 16 131_072 "num_key_value_heads" 4 "head_dim" 256 "sliding_window" 1024
            "max_position_embeddings" 8192 "n_recurrent_loops" 2
        ),
    ),
    (
        &["lara_mini"],
        sizes!(
            1024 512 34 16 151_936 "num_key_value_heads" 4 "head_dim" 128 "sliding_window" 512
            "max_position_embeddings" 131_072 "linear_conv_kernel_dim" 4 "linear_key_head_dim" 128
            "linear_value_head_dim" 128 "linear_num_key_heads" 8 "linear_num_value_heads" 16
            "moe_intermediate_size" 512 "shared_expert_intermediate_size" 512
            "num_experts_per_tok" 4 "num_experts" 128
        ),
    ),
    (
        &["qwen4_exp_text"],
        sizes!(
            2048 512 40 16 248_320 "num_key_value_heads" 2 "head_dim" 256
            "max_position_embeddings" 32768 "linear_conv_kernel_dim" 4 "linear_key_head_dim" 128
            "linear_value_head_dim" 128 "linear_num_key_heads" 16 "linear_num_value_heads" 32
            "moe_intermediate_size" 512 "shared_expert_intermediate_size" 512
            "num_experts_per_tok" 10 "num_experts" 512 "full_attention_interval" 4 "hc_count" 4
            "ple_conv_kernel_size" 4 "ngram_size" 3
        ),
    ),
];
