//! Defaults of encoders and encoder-decoders.

use super::Defaults;

pub(super) const ROWS: &[(&[&str], Defaults)] = &[
    (
        &[
            "bert",
            "xlm-roberta",
            "camembert",
            "electra",
            "esm",
            "mpnet",
        ],
        sizes!(768 3072 12 12 30522 "max_position_embeddings" 512),
    ),
    // Positions are convolved, so raw audio of any length is valid.
    (&["hubert", "wav2vec2", "wavlm"], sizes!(768 3072 12 12 32)),
    (
        &["roberta"],
        sizes!(768 3072 12 12 50265 "max_position_embeddings" 512),
    ),
    (
        &["distilbert"],
        &[
            ("dim", 768),
            ("hidden_dim", 3072),
            ("n_layers", 6),
            ("n_heads", 12),
            ("vocab_size", 30522),
            ("max_position_embeddings", 512),
        ],
    ),
    (
        &["deberta", "deberta-v2"],
        sizes!(1536 6144 24 24 128_100 "max_position_embeddings" 512),
    ),
    (
        &["modernbert"],
        sizes!(768 1152 22 12 50368 "max_position_embeddings" 8192),
    ),
    (
        &["whisper"],
        &[
            ("d_model", 384),
            ("encoder_layers", 4),
            ("decoder_layers", 4),
            ("encoder_attention_heads", 6),
            ("decoder_attention_heads", 6),
            ("encoder_ffn_dim", 1536),
            ("decoder_ffn_dim", 1536),
            ("vocab_size", 51865),
            ("max_source_positions", 1500),
            ("max_target_positions", 448),
        ],
    ),
    (
        &["t5", "mt5", "umt5"],
        &[
            ("d_model", 512),
            ("d_kv", 64),
            ("d_ff", 2048),
            ("num_layers", 6),
            ("num_heads", 8),
            ("vocab_size", 32128),
        ],
    ),
    (
        &["bart", "mbart"],
        &[
            ("d_model", 1024),
            ("encoder_layers", 12),
            ("decoder_layers", 12),
            ("encoder_attention_heads", 16),
            ("decoder_attention_heads", 16),
            ("encoder_ffn_dim", 4096),
            ("decoder_ffn_dim", 4096),
            ("vocab_size", 50265),
            ("max_position_embeddings", 1024),
        ],
    ),
];
