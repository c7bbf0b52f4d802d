//! Caches and states against figures of transformers' own cache objects.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::bytes::Bytes;
use crate::engines::sample::{components, model, prepare, sum, tokens};
use crate::engines::{AskedWorkload, ComponentName, Interval, Split};
use crate::model::Inventory;

const NONE: &BTreeMap<String, Value> = &BTreeMap::new();

/// The components of one name for `context` tokens in a version.
fn part(
    config: &Value,
    context: u64,
    version: Option<&str>,
    parameters: &BTreeMap<String, Value>,
    name: ComponentName,
) -> Interval {
    let model = model(config, Inventory::default());
    let asked = AskedWorkload {
        dtype: Some("bfloat16".to_owned()),
        ..tokens(context)
    };
    let prepared = prepare(&Transformers, &model, asked, (version, parameters)).unwrap();
    let layers = model.architecture.as_ref().unwrap().layer_count();
    sum(&components(&*prepared, &Split::single(layers), 0), name)
}

fn cache(config: &Value, context: u64, version: Option<&str>) -> u64 {
    let cache = part(config, context, version, NONE, ComponentName::KvCache);
    assert_eq!((cache.low, cache.high), (cache.likely, cache.likely));
    cache.likely.get()
}

fn states(model_type: &str, version: Option<&str>) -> Interval {
    let config = json!({"model_type": model_type});
    part(&config, 300, version, NONE, ComponentName::State)
}

/// Mamba-2's default: 64 layers, 128 heads of 64, states of 128, 8 groups, kernel 4.
#[test]
fn scan_states_follow_version() {
    let conv = 64 * (8192 + 2 * 8 * 128) * 4 * 2;
    let elements: u64 = 64 * 128 * 64 * 128;

    // The figure of the cache object of 5.24.
    assert_eq!(conv + elements * 4, 273_678_336);
    assert_eq!(
        states("mamba2", None),
        Interval::exact(Bytes::new(273_678_336))
    );
    assert_eq!(states("mamba2", Some("5.14")), states("mamba2", None));

    let narrow = Bytes::new(conv + elements * 2);
    for version in ["5.13", "5.4", "5.0", "4.57"] {
        assert_eq!(
            states("mamba2", Some(version)),
            Interval::new(narrow, narrow, Bytes::new(273_678_336)),
            "{version}"
        );
    }
}

#[test]
fn delta_states_follow_version() {
    let qwen = |version| states("qwen3_next", version);
    let wide = Bytes::new(36 * (8192 * 4 * 2 + 32 * 128 * 128 * 4));
    let narrow = Bytes::new(36 * (8192 * 4 * 2 + 32 * 128 * 128 * 2));

    assert_eq!(qwen(None), Interval::exact(wide));
    assert_eq!(qwen(Some("5.13")), Interval::new(narrow, narrow, wide));
    assert_eq!(qwen(Some("5.4")), Interval::new(narrow, wide, wide));
    assert_eq!(qwen(Some("4.57")), Interval::new(narrow, wide, wide));
}

#[test]
fn latents_are_cached_since_5_15() {
    let deepseek = json!({"model_type": "deepseek_v3"});
    let latent = 1000 * 61 * 576 * 2;
    assert_eq!(cache(&deepseek, 1000, None), latent);
    assert_eq!(cache(&deepseek, 1000, Some("5.15")), latent);
    assert_eq!(
        cache(&deepseek, 1000, Some("5.14")),
        1000 * 61 * 128 * (192 + 128) * 2
    );

    // The figure of the cache object of 5.24.
    let minicpm = json!({"model_type": "minicpm3"});
    assert_eq!(cache(&minicpm, 5000, None), 178_560_000);
    assert!(cache(&minicpm, 5000, Some("5.14")) > 10 * 178_560_000);
}

/// DeepSeek V4's layers: `words` in order.
fn deepseek_v4(words: &[&str]) -> Value {
    json!({"model_type": "deepseek_v4", "num_hidden_layers": words.len(), "head_dim": 512,
        "qk_rope_head_dim": 64, "sliding_window": 128, "index_head_dim": 128, "index_n_heads": 64,
        "index_topk": 512, "layer_types": words, "num_nextn_predict_layers": 0,
        "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 128}})
}

#[test]
fn compressed_caches_keep_three_parts() {
    let window = 127 * 512 * 2;
    for (word, context, bytes) in [
        ("sliding_attention", 5000, window),
        ("heavily_compressed_attention", 100, 100 * 512 * 2 * 3),
        (
            "heavily_compressed_attention",
            5000,
            window + 39 * 512 * 2 + 8 * 512 * 2 * 2,
        ),
        // An entry has 512 + 128 elements; the overlap of 4 tokens has gates in 32 bits.
        (
            "compressed_sparse_attention",
            5000,
            window + 1250 * 640 * 2 + 4 * 640 * (2 + 4),
        ),
        (
            "compressed_sparse_attention",
            5003,
            window + 1250 * 640 * 2 + 4 * 640 * (2 + 4) + 3 * 2 * 2 * 640 * 2,
        ),
        (
            "compressed_sparse_attention",
            3,
            3 * 512 * 2 + 3 * 2 * 2 * 640 * 2,
        ),
    ] {
        let found = cache(&deepseek_v4(&[word]), context, None);
        assert_eq!(found, bytes, "{word}, {context} tokens");
    }
}

#[test]
fn compressed_caches_need_5_23() {
    let config = deepseek_v4(&["sliding_attention", "compressed_sparse_attention"]);
    let model = model(&config, Inventory::default());
    let error = prepare(&Transformers, &model, tokens(100), (Some("5.22"), NONE))
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("5.23"), "{error}");
}

/// Memory in addition to Mistral's caches of 8192 tokens while they grow.
fn growth(parameters: &BTreeMap<String, Value>) -> Interval {
    let mistral = json!({"model_type": "mistral", "torch_dtype": "bfloat16"});
    let model = model(&mistral, Inventory::default());
    let prepared = prepare(&Transformers, &model, tokens(8192), (None, parameters)).unwrap();
    let parts = components(&*prepared, &Split::single(32), 0);
    parts
        .iter()
        .filter(|part| part.detail.starts_with("the cache while it grows"))
        .map(|part| part.bytes)
        .sum()
}

#[test]
fn windows_retain_prompt_behind_them() {
    let token = 8 * 256 * 2;
    let copied = 4095 * token;
    let retained = 32 * (8192 - 4095) * token;
    assert_eq!(
        growth(NONE),
        Interval::new(
            Bytes::ZERO,
            Bytes::new(retained),
            Bytes::new(retained + copied)
        )
    );

    let chunks = BTreeMap::from([("prefill_chunk_size".to_owned(), json!(512))]);
    assert_eq!(
        growth(&chunks).high,
        Bytes::new(32 * 512 * token + copied),
        "a window and a chunk"
    );

    let fixed = BTreeMap::from([("cache_implementation".to_owned(), json!("static"))]);
    assert_eq!(growth(&fixed), Interval::default());
}

#[test]
fn encoders_bound_cross_attention() {
    for (config, context, tokens) in [
        (json!({"model_type": "umt5"}), 5000, 5000),
        (json!({"model_type": "bart"}), 100, 100),
        (
            json!({"model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"]}),
            448,
            1500,
        ),
        (
            json!({"model_type": "whisper", "architectures": ["WhisperForCausalLM"]}),
            448,
            0,
        ),
    ] {
        let architecture =
            crate::model::config::architecture(&config, None, &Inventory::default()).unwrap();
        let layers = u64::from(architecture.layer_count());
        let per_token = cache(&config, context + 1, None) - cache(&config, context, None);
        let per_token = if tokens == context {
            per_token / 2
        } else {
            per_token
        };

        assert_eq!(
            cache(&config, context, None),
            per_token * (context + tokens),
            "{config}, {layers} layers"
        );
    }
}

#[test]
fn falcon_caches_all_query_heads() {
    // The figure of the cache object of 5.24 for falcon-40b.
    let falcon_40b = json!({"model_type": "falcon", "num_hidden_layers": 60, "hidden_size": 8192,
        "num_attention_heads": 128, "num_kv_heads": 8, "new_decoder_architecture": true});
    assert_eq!(cache(&falcon_40b, 2048, None), 4_026_531_840);

    let falcon_7b = json!({"model_type": "falcon", "num_hidden_layers": 32, "hidden_size": 4544,
        "num_attention_heads": 71});
    assert_eq!(cache(&falcon_7b, 2048, None), 2048 * 32 * 128 * 2);
}

#[test]
fn images_are_cached_with_an_image() {
    let mllama = json!({"model_type": "mllama", "text_config": {"model_type": "mllama_text_model"},
        "architectures": ["MllamaForConditionalGeneration"]});
    let cache = part(&mllama, 5000, None, NONE, ComponentName::KvCache);

    // The figure of the cache object of 5.24 for a prompt without an image.
    assert_eq!(cache.low, Bytes::new(655_360_000));
    assert!(cache.likely > cache.low, "{cache:?}");
}
