//! Caches of families against transformers' own cache objects.
//!
//! Each figure is the sum of the cache's tensors in 5.24 after one forward pass on the meta device.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::engines::sample::{components, model, prepare, sum, tokens};
use crate::engines::{AskedWorkload, ComponentName, Split};
use crate::model::Inventory;

/// Bytes of caches and states for `context` tokens in 5.24.
fn kept(config: &Value, context: u64) -> u64 {
    let model = model(config, Inventory::default());
    let asked = AskedWorkload {
        dtype: Some("bfloat16".to_owned()),
        ..tokens(context)
    };
    let parameters = BTreeMap::new();
    let prepared = prepare(&Transformers, &model, asked, (Some("5.24"), &parameters)).unwrap();
    let layers = model.architecture.as_ref().unwrap().layer_count();
    let parts = components(&*prepared, &Split::single(layers), 0);

    let (cache, state) = (
        sum(&parts, ComponentName::KvCache),
        sum(&parts, ComponentName::State),
    );
    assert_eq!((cache.low, state.low), (cache.high, state.high));
    cache.likely.get() + state.likely.get()
}

/// A class with its defaults and this many layers.
fn first_layers(model_type: &str, layers: u64) -> Value {
    json!({"model_type": model_type, "num_hidden_layers": layers})
}

fn check(rows: &[(Value, u64, u64)]) {
    for (config, context, bytes) in rows {
        assert_eq!(kept(config, *context), *bytes, "{config}");
    }
}

#[test]
fn indexed_caches_match() {
    let mistral = json!({"model_type": "mistral_large4", "text_config": {
        "model_type": "mistral_large4_text", "num_hidden_layers": 72}});
    let hy_vl = json!({"model_type": "hy_v4_vl", "text_config": first_layers("hy_v4_vl_text", 12)});
    let glm = json!({"model_type": "glm5_next", "text_config": first_layers("glm5_next_text", 12)});

    check(&[
        (first_layers("axk2", 48), 5000, 138_240_000),
        (first_layers("hy_v4", 12), 5000, 74_240_000),
        (hy_vl, 5000, 74_240_000),
        (mistral, 5000, 495_360_000),
        (glm, 5000, 62_588_208),
        // Keys of the indexer in 32 bits, latents of a window in 33 of 46 layers.
        (first_layers("dots3_note_text", 46), 5000, 144_853_888),
    ]);
}

/// `sparse_attention_freq` 0 in the class's default; published files have sparse layers.
#[test]
fn minimax_m3_caches_index_keys() {
    let dense = first_layers("minimax_m3_vl_text", 60);
    check(&[(dense, 5000, 614_400_000)]);

    let flags: Vec<u64> = (0..60).map(|layer| u64::from(layer >= 3)).collect();
    let sparse = json!({"model_type": "minimax_m3_vl_text", "num_hidden_layers": 60,
        "sparse_attention_config": {"sparse_index_dim": 128, "sparse_attention_freq": flags}});
    check(&[(sparse, 5000, 614_400_000 + 57 * 5000 * 128 * 2)]);
}

#[test]
fn shared_latents_keep_only_indexers() {
    let text = json!({"model_type": "mistral_large4_text", "num_hidden_layers": 4,
        "kv_source_layers": [0, 0, 2, 2], "indexer_types": ["full", "full", "full", "shared"],
        "no_rope_layers": [1, 1, 0, 0]});
    // Latent and rope in layer 0, the latent alone in layer 2, indexers in three layers.
    check(&[(text, 1000, 1000 * 2 * (512 + 64 + 512 + 3 * 128))]);
}

#[test]
fn published_dots3_reads_swa_keys() {
    let canonical = kept(&first_layers("dots3_note_text", 8), 5000);
    let published = json!({"model_type": "dots3_note", "num_hidden_layers": 8, "use_dsa": true,
        "layer_types": ["full_attention", "full_attention", "sliding_attention",
            "sliding_attention",
            "sliding_attention", "full_attention", "sliding_attention", "sliding_attention"],
        "sliding_window_size": 512, "swa_kv_lora_rank": 1024, "swa_qk_rope_head_dim": 64});
    assert_eq!(kept(&published, 5000), canonical);

    let narrow =
        json!({"model_type": "dots3_note", "num_hidden_layers": 8, "swa_kv_lora_rank": 512});
    assert_eq!(canonical - kept(&narrow, 5000), 5 * 511 * 512 * 2);
}

#[test]
fn plain_caches_match() {
    let listed = |model_type: &str, layers: u64, heads: u64, kv_heads: u64, dim: u64| {
        json!({"model_type": model_type, "num_hidden_layers": layers, "hidden_size": heads * dim,
            "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": dim,
            "intermediate_size": 1024, "vocab_size": 1000, "max_position_embeddings": 8192})
    };

    check(&[
        (first_layers("kolibri1", 50), 5000, 144_343_040),
        (first_layers("apertus1p5_text", 12), 5000, 983_040_000),
        (listed("sarvam_moe", 19, 64, 4, 64), 5000, 97_280_000),
        (listed("doge", 9, 8, 8, 128), 2048, 75_497_472),
        (listed("evolla", 12, 32, 8, 128), 5000, 245_760_000),
        (
            listed("gpt_neox_japanese", 9, 32, 32, 80),
            2048,
            188_743_680,
        ),
        (listed("git", 6, 12, 12, 64), 1024, 18_874_368),
    ]);

    let sarvam = json!({"model_type": "sarvam_mla", "num_hidden_layers": 32, "hidden_size": 4096,
        "num_attention_heads": 64, "kv_lora_rank": 512, "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 128, "v_head_dim": 128, "vocab_size": 1000,
        "intermediate_size": 16384});
    let ctrl = json!({"model_type": "ctrl", "n_layer": 9, "n_embd": 1280, "n_head": 16, "dff": 8192,
        "n_positions": 256, "vocab_size": 1000});
    check(&[(sarvam, 4096, 150_994_944), (ctrl, 256, 11_796_480)]);
}

/// The class states half of `local_attention` as its window.
#[test]
fn modernbert_decoder_has_windows() {
    let words: Vec<&str> = (0..12)
        .map(|layer| {
            if layer % 3 == 0 {
                "full_attention"
            } else {
                "sliding_attention"
            }
        })
        .collect();
    let config = json!({"model_type": "modernbert-decoder", "num_hidden_layers": 12,
        "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 1152,
        "vocab_size": 1000, "max_position_embeddings": 8192, "local_attention": 128,
        "layer_types": words});
    check(&[(config, 5000, 62_988_288)]);
}

/// BERT's class generates only with `is_decoder`.
#[test]
fn encoders_cache_as_decoders() {
    let config = |is_decoder: bool| {
        json!({"model_type": "ernie", "num_hidden_layers": 9, "hidden_size": 768,
            "num_attention_heads": 12, "intermediate_size": 3072, "vocab_size": 1000,
            "max_position_embeddings": 512, "is_decoder": is_decoder})
    };
    assert_eq!(kept(&config(false), 512), 0);
    assert_eq!(kept(&config(true), 512), 512 * 9 * 2 * 768 * 2);
}

#[test]
fn encoder_decoders_match() {
    let bart_like = |model_type: &str, class: &str, layers: u64, positions: u64| {
        json!({"model_type": model_type, "architectures": [class], "d_model": 1024,
            "encoder_layers": layers, "decoder_layers": layers, "decoder_attention_heads": 16,
            "encoder_attention_heads": 16, "decoder_ffn_dim": 4096, "encoder_ffn_dim": 4096,
            "max_position_embeddings": positions, "tgt_vocab_size": 1000,
            "is_encoder_decoder": true})
    };
    let trocr = json!({"model_type": "trocr", "architectures": ["TrOCRForCausalLM"],
        "d_model": 1024,
        "decoder_layers": 12, "decoder_attention_heads": 16, "decoder_ffn_dim": 4096,
        "max_position_embeddings": 512, "vocab_size": 1000});
    let longt5 = json!({"model_type": "longt5", "d_model": 512, "d_kv": 64, "d_ff": 2048,
        "num_layers": 6, "num_decoder_layers": 6, "num_heads": 8, "vocab_size": 1000});

    check(&[
        (
            bart_like("fsmt", "FSMTForConditionalGeneration", 12, 1024),
            1024,
            100_663_296,
        ),
        (
            bart_like("mvp", "MvpForCausalLM", 12, 1024),
            1024,
            50_331_648,
        ),
        (
            bart_like("pegasus_x", "PegasusXForConditionalGeneration", 16, 16384),
            5000,
            655_360_000,
        ),
        (
            bart_like("bigbird_pegasus", "BigBirdPegasusForCausalLM", 16, 4096),
            4096,
            268_435_456,
        ),
        (trocr, 512, 25_165_824),
        (longt5, 5000, 122_880_000),
    ]);
}

/// By its code alone (`ProphetNetNgramSelfAttention`): only the main stream is cached.
#[test]
fn prophetnet_caches_main_stream() {
    let config = json!({"model_type": "prophetnet", "hidden_size": 1024, "num_encoder_layers": 12,
        "num_decoder_layers": 3, "num_encoder_attention_heads": 16, "ngram": 2,
        "num_decoder_attention_heads": 16, "decoder_ffn_dim": 4096, "vocab_size": 1000,
        "architectures": ["ProphetNetForConditionalGeneration"], "max_position_embeddings": 512});
    check(&[(config, 512, 512 * 3 * 2 * 2 * 1024 * 2)]);
}

#[test]
fn t5gemma2_decoder_has_windows() {
    let words: Vec<&str> = (1..=26)
        .map(|layer| {
            if layer % 6 == 0 {
                "full_attention"
            } else {
                "sliding_attention"
            }
        })
        .collect();
    let half = json!({"model_type": "t5gemma2_decoder", "num_hidden_layers": 26,
        "hidden_size": 2304,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 1000,
        "intermediate_size": 9216, "max_position_embeddings": 131_072, "sliding_window": 4096,
        "layer_types": words});
    let config = json!({"model_type": "t5gemma2", "decoder": half,
        "encoder": {"model_type": "t5gemma2_encoder", "text_config": half}});
    check(&[(config, 5000, 983_408_640)]);
}
