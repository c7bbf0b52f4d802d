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
];
