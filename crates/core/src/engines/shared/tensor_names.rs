//! Names of modules and parameters, by the rule that divides them.

/// Vision and audio towers.
pub(super) const TOWERS: &[&str] = &[
    "visual",
    "vision_tower",
    "vision_model",
    "vision_embed_tokens",
    "vision_encoder",
    "multi_modal_projector",
    "mm_projector",
    "embed_vision",
    "embed_audio",
    "audio_tower",
    "audio_encoder",
    "connector",
    "image_newline",
    "vpm",
    "resampler",
    "mlp1",
    "vision",
    "img_processor",
    "img_projection",
];

/// Input embeddings.
pub(super) const EMBEDDINGS: &[&str] = &[
    "embed_tokens",
    "wte",
    "word_embeddings",
    "tok_embeddings",
    "embed_in",
    "embeddings",
    "embed",
    "embedding",
];

/// Output heads.
pub(super) const HEADS: &[&str] = &["lm_head", "embed_out", "output", "output_layer", "head"];

/// Modules divided by output features.
pub(super) const COLUMN: &[&str] = &[
    "q_proj",
    "q_b_proj",
    "kv_b_proj",
    "gate_proj",
    "up_proj",
    "gate_up_proj",
    "w1",
    "w3",
    "c_fc",
    "c_fc_0",
    "c_fc_1",
    "fc1",
    "fc_in",
    "dense_h_to_4h",
    "in_proj_qkvz",
    "in_proj_ba",
    "in_proj_qkv",
    "in_proj_z",
    "in_proj_a",
    "in_proj_b",
    "wq_b",
    "wo_a",
    "query",
    "linear_fc1",
    "dt_proj",
    "A_log",
    "D",
    "dt_bias",
    "sinks",
    "attn_sink",
    "input_linear",
    "in_proj",
    "conv1d",
    "conv",
    "g_b_proj",
    "f_b_proj",
    "b_proj",
    "q_conv1d",
    "k_conv1d",
    "v_conv1d",
    "gate",
    "up",
    "v1",
    "proj_gate",
    "wi",
];

/// Modules divided by input features.
pub(super) const ROW: &[&str] = &[
    "o_proj",
    "out_proj",
    "down_proj",
    "w2",
    "c_proj",
    "dense_4h_to_h",
    "fc2",
    "fc_out",
    "wo",
    "wo_b",
    "x_proj",
    "output_linear",
    "linear_fc2",
    "dense",
    "proj",
];

/// Key and value projections.
pub(super) const KEY_VALUE: &[&str] = &["k_proj", "v_proj", "key", "value", "wk", "wv"];

/// Fused query, key and value projections.
pub(super) const FUSED_QKV: &[&str] = &[
    "qkv_proj",
    "query_key_value",
    "c_attn",
    "wqkv",
    "W_pack",
    "qkv",
    "Wqkv",
];

/// Modules whose tensors are whole on every rank, whatever their names.
pub(super) const REPLICATED_PARENTS: &[&str] = &[
    "indexer",
    "compressor",
    "router",
    "patch_embed",
    "patch_embedding",
    "pooler",
];

/// Last segments that name a parameter of the module before them.
pub(super) const PARAMETERS: &[&str] = &[
    "weight",
    "bias",
    "qweight",
    "qzeros",
    "scales",
    "g_idx",
    "weight_scale",
    "weight_scale_inv",
    "weight_scale_2",
    "input_scale",
    "weight_packed",
    "weight_shape",
    "weight_zero_point",
    "weight_g_idx",
    "weight_global_scale",
    "input_global_scale",
    "scale",
    "scale_inv",
    "biases",
    "weight_scale_inverse",
    "k_scale",
    "v_scale",
    "e_score_correction_bias",
];
