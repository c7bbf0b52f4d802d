//! Defaults of further classes without experts, in alphabetical order.
//!
//! Source: transformers 5.23 `models/<type>/configuration_<type>.py`.

use super::Defaults;

pub(super) const ROWS: &[(&[&str], Defaults)] = &[
    (
        &["albert"],
        sizes!(4096 16384 12 64 30000 "max_position_embeddings" 512),
    ),
    (
        &["apertus"],
        sizes!(4096 14336 32 32 131_072 "max_position_embeddings" 65536),
    ),
    (
        &["arcee"],
        sizes!(2560 18432 32 32 32000 "max_position_embeddings" 4096),
    ),
    (
        &["biogpt"],
        sizes!(1024 4096 24 16 42384 "max_position_embeddings" 1024),
    ),
    (
        &["bitnet"],
        sizes!(2560 6912 30 20 128_256 "num_key_value_heads" 5 "max_position_embeddings" 2048),
    ),
    (
        &["bloom"],
        &[
            ("hidden_size", 64),
            ("vocab_size", 250_880),
            ("n_layer", 2),
            ("n_head", 8),
        ],
    ),
    (
        &["codegen"],
        &[
            ("vocab_size", 50400),
            ("n_embd", 4096),
            ("n_layer", 28),
            ("n_head", 16),
        ],
    ),
    (
        &["cohere_compass_text"],
        sizes!(8192 22528 40 64 256_000 "max_position_embeddings" 8192 "sliding_window" 4096),
    ),
    (
        &["cosmos3_edge_text"],
        sizes!(2048 9216 28 16 131_072 "num_key_value_heads" 8 "max_position_embeddings" 131_072),
    ),
    (
        &["cwm"],
        sizes!(
            6144 21504 64 48 128_256 "num_key_value_heads" 8 "max_position_embeddings" 131_072
            "sliding_window" 8192
        ),
    ),
    (
        &["diffllama"],
        sizes!(2048 8192 16 32 32000 "max_position_embeddings" 2048),
    ),
    (
        &["dots1"],
        sizes!(
            4608 10944 62 32 152_064 "max_position_embeddings" 2048 "sliding_window" 4096
            "max_window_layers" 62 "moe_intermediate_size" 1408 "first_k_dense_replace" 0
        ),
    ),
    (
        &["emu3_text_model"],
        sizes!(4096 14336 32 32 184_622 "num_key_value_heads" 8 "max_position_embeddings" 9216),
    ),
    (
        &["ernie4_5"],
        sizes!(
            1024 3072 18 16 103_424 "num_key_value_heads" 2 "head_dim" 128
            "max_position_embeddings" 131_072
        ),
    ),
    (
        &["eurobert"],
        sizes!(768 3072 12 12 128_256 "max_position_embeddings" 8192),
    ),
    (
        &["exaone4", "exaone4_5_text"],
        sizes!(4096 16384 32 32 102_400 "max_position_embeddings" 2048 "sliding_window" 4096),
    ),
    (
        &["gemma4_unified_text"],
        sizes!(
            2304 9216 30 8 262_144 "num_key_value_heads" 4 "head_dim" 256
            "max_position_embeddings" 262_144 "sliding_window" 1024 "num_kv_shared_layers" 0
            "global_head_dim" 512
        ),
    ),
    (
        &["glm"],
        sizes!(4096 13696 40 32 151_552 "num_key_value_heads" 2 "max_position_embeddings" 131_072),
    ),
    (
        &["glm4"],
        sizes!(4096 13696 40 32 151_552 "num_key_value_heads" 2 "max_position_embeddings" 131_072),
    ),
    (
        &["glm4v_text"],
        sizes!(4096 13696 40 32 151_552 "num_key_value_heads" 2 "max_position_embeddings" 32768),
    ),
    (
        &["glm_ocr_text"],
        sizes!(1024 4096 16 16 59392 "num_key_value_heads" 8 "max_position_embeddings" 131_072),
    ),
    (
        &["granite"],
        sizes!(4096 11008 32 32 32000 "max_position_embeddings" 2048),
    ),
    (
        &["granite4_vision_text"],
        sizes!(4096 11008 32 32 32000 "max_position_embeddings" 2048),
    ),
    (
        &["granite_docling_text"],
        sizes!(1024 2048 28 16 133_800 "num_key_value_heads" 4 "max_position_embeddings" 32768),
    ),
    (
        &["granite_swa"],
        sizes!(
            2560 8192 24 20 100_352 "num_key_value_heads" 4 "max_position_embeddings" 8192
            "sliding_window" 128
        ),
    ),
    (
        &["gte"],
        sizes!(768 3072 12 12 250_048 "max_position_embeddings" 8192),
    ),
    (
        &["hunyuan_v1_dense"],
        sizes!(4096 11008 32 32 290_943 "max_position_embeddings" 2048),
    ),
    (
        &["hunyuan_vl_text"],
        sizes!(4096 11008 32 32 290_943 "max_position_embeddings" 2048),
    ),
    (
        &["hyperclovax"],
        sizes!(4096 11008 32 32 32000 "max_position_embeddings" 2048),
    ),
    (
        &["internlm3"],
        sizes!(4096 10240 48 32 128_512 "num_key_value_heads" 2 "max_position_embeddings" 32768),
    ),
    (
        &["iquestcoder"],
        sizes!(5120 27648 80 40 76800 "num_key_value_heads" 8 "max_position_embeddings" 131_072),
    ),
    (
        &["jais2"],
        sizes!(3328 26624 32 26 150_272 "max_position_embeddings" 8192),
    ),
    (
        &["minicpm3"],
        sizes!(
            2560 6400 62 40 73448 "v_head_dim" 64 "max_position_embeddings" 32768 "kv_lora_rank" 256
            "q_lora_rank" 768 "qk_rope_head_dim" 32 "qk_nope_head_dim" 64
        ),
    ),
    (
        &["ministral"],
        sizes!(
            4096 14336 32 32 32000 "num_key_value_heads" 8 "max_position_embeddings" 131_072
            "sliding_window" 4096
        ),
    ),
    (
        &["ministral3"],
        sizes!(4096 14336 34 32 131_072 "num_key_value_heads" 8 "max_position_embeddings" 262_144),
    ),
    (
        &["mobilebert"],
        sizes!(512 512 24 4 30522 "max_position_embeddings" 512),
    ),
    (
        &["molmo2_text"],
        sizes!(4096 12288 36 32 151_936 "num_key_value_heads" 8 "max_position_embeddings" 36864),
    ),
    (
        &["mpt"],
        &[
            ("vocab_size", 50368),
            ("d_model", 2048),
            ("n_layers", 24),
            ("n_heads", 16),
        ],
    ),
    (
        &["muse_glimmer_text"],
        sizes!(
            6656 19968 52 32 202_048 "num_key_value_heads" 2 "head_dim" 128
            "max_position_embeddings" 131_072 "sliding_window" 2048
        ),
    ),
    (
        &["nanochat"],
        sizes!(768 8192 12 6 50304 "max_position_embeddings" 2048),
    ),
    (
        &["nemotron"],
        sizes!(6144 24576 32 48 256_000 "max_position_embeddings" 4096),
    ),
    (
        &["nomic_bert"],
        sizes!(768 3072 12 12 30528 "max_position_embeddings" 2048),
    ),
    (
        &["olmo"],
        sizes!(4096 11008 32 32 50304 "max_position_embeddings" 2048),
    ),
    (
        &["olmo2"],
        sizes!(4096 11008 32 32 50304 "max_position_embeddings" 2048),
    ),
    (
        &["olmo_hybrid"],
        sizes!(
            3840 11008 32 30 100_352 "max_position_embeddings" 65536 "linear_num_key_heads" 30
            "linear_num_value_heads" 30 "linear_key_head_dim" 96 "linear_value_head_dim" 192
            "linear_conv_kernel_dim" 4
        ),
    ),
    (
        &["openai-gpt"],
        &[
            ("vocab_size", 40478),
            ("n_embd", 768),
            ("n_layer", 12),
            ("n_head", 12),
        ],
    ),
    (
        &["paddleocr_vl_text"],
        sizes!(
            1024 3072 18 16 103_424 "num_key_value_heads" 2 "head_dim" 128
            "max_position_embeddings" 131_072
        ),
    ),
    (
        &["phi"],
        sizes!(2048 8192 24 32 51200 "max_position_embeddings" 2048),
    ),
    (
        &["phi4_multimodal"],
        sizes!(3072 8192 32 32 200_064 "num_key_value_heads" 8 "max_position_embeddings" 131_072),
    ),
    (
        &["qwen2_5_omni_text"],
        sizes!(
            3584 18944 28 28 152_064 "num_key_value_heads" 4 "max_position_embeddings" 32768
            "use_sliding_window" 0 "max_window_layers" 28
        ),
    ),
    (
        &["roformer"],
        sizes!(768 3072 12 12 50000 "max_position_embeddings" 1536),
    ),
    (
        &["seed_oss"],
        sizes!(
            4096 27648 64 80 155_136 "num_key_value_heads" 8 "head_dim" 128
            "max_position_embeddings" 524_288
        ),
    ),
    (
        &["smollm3"],
        sizes!(
            2048 11008 36 16 128_256 "num_key_value_heads" 4 "max_position_embeddings" 32768
            "use_sliding_window" 0
        ),
    ),
    (
        &["stablelm"],
        sizes!(2560 6912 32 32 50304 "max_position_embeddings" 4096),
    ),
    (
        &["vaultgemma"],
        sizes!(
            2304 9216 26 8 256_000 "num_key_value_heads" 4 "head_dim" 256
            "max_position_embeddings" 8192 "sliding_window" 4096
        ),
    ),
    (
        &["xglm"],
        &[
            ("vocab_size", 256_008),
            ("d_model", 1024),
            ("ffn_dim", 4096),
            ("num_layers", 24),
            ("attention_heads", 16),
            ("max_position_embeddings", 2048),
        ],
    ),
    (
        &["xlm-roberta-xl"],
        sizes!(2560 10240 36 32 250_880 "max_position_embeddings" 514),
    ),
    (
        &["youtu"],
        sizes!(
            2048 6144 32 16 128_256 "v_head_dim" 128 "max_position_embeddings" 131_072
            "kv_lora_rank" 512 "q_lora_rank" 1536 "qk_rope_head_dim" 64 "qk_nope_head_dim" 128
        ),
    ),
];
