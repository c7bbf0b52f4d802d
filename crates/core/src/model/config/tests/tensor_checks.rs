//! Tests of configurations against the tensors of their files.

use serde_json::json;

use super::super::super::tensors::{InventoryBuilder, Storage};
use super::*;
use crate::bytes::Bytes;

/// Returns an inventory of plain layers with KV projections of `rows` rows.
fn plain_layers(layers: u32, rows: u64, extra: &[&str]) -> Inventory {
    let mut builder = InventoryBuilder::default();
    for layer in 0..layers {
        let mut add_weight = |name: &str, rows: u64| {
            let name = format!("model.layers.{layer}.{name}.weight");
            builder.add(
                "",
                &name,
                Storage::Known(Dtype::BF16),
                &[rows, 1024],
                Bytes::new(rows * 2048),
            );
        };

        add_weight("self_attn.q_proj", 2048);
        add_weight("self_attn.k_proj", rows);
        add_weight("self_attn.v_proj", rows);
        add_weight("self_attn.o_proj", 1024);
        add_weight("mlp.up_proj", 3072);

        for name in extra {
            add_weight(name, 64);
        }
    }

    builder.finish()
}

#[test]
fn stored_projections_reveal_wrong_configuration() {
    architecture(&qwen3(), None, &plain_layers(4, 1024, &[])).unwrap();
    let error = architecture(&qwen3(), None, &plain_layers(4, 512, &[]))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "num_key_value_heads x head_dim = 1024: layer 0 stores a k_proj of 512 rows"
    );
    architecture(&qwen3(), None, &plain_layers(4, 2048, &[])).unwrap_err();
    let error = architecture(&qwen3(), None, &plain_layers(6, 1024, &[]))
        .unwrap_err()
        .to_string();
    assert_eq!(error, "num_hidden_layers = 4: the files hold 6 layers");
    architecture(&qwen3(), None, &plain_layers(3, 1024, &[])).unwrap_err();
}

#[test]
fn missing_layers_are_rejected() {
    architecture(&qwen3(), None, &plain_layers(4, 1024, &[])).unwrap();
    let error = architecture(&qwen3(), None, &plain_layers(3, 1024, &[]))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "num_hidden_layers = 4: the weights hold no tensor of layer 3; \
         the download may be incomplete"
    );

    // A first shard that holds only the embedding.
    let mut first_shard = InventoryBuilder::default();
    let rows = 151_936;

    first_shard.add(
        "",
        "model.embed_tokens.weight",
        Storage::Known(Dtype::BF16),
        &[rows, 1024],
        Bytes::new(rows * 2048),
    );

    let error = architecture(&qwen3(), None, &first_shard.finish())
        .unwrap_err()
        .to_string();
    assert!(error.contains("no tensor of layer 0"), "{error}");
}

#[test]
fn unlisted_type_needs_matching_tensors() {
    let unknown = qwen3_with("model_type", json!("brandnew"));
    let plain = architecture(
        &unknown,
        None,
        &plain_layers(4, 1024, &["self_attn.q_norm"]),
    )
    .unwrap();
    assert_eq!(attention(&plain.layers[0].mixer).kv_heads, 8);

    // Without tensors, nothing confirms the usual attention.
    architecture(&unknown, None, &Inventory::default()).unwrap_err();

    // An unknown module in its layers.
    let error = architecture(&unknown, None, &plain_layers(4, 1024, &["mixer.in_proj"]))
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with(
            "(brandnew): module mixer is not understood, so the size of its cache is unknown"
        ),
        "{error}"
    );

    // Keys that could affect the cache.
    for (key, value) in [
        ("attention_sink_tokens", json!(4)),
        ("kv_lora_rank", json!(512)),
        ("ssm_state_size", json!(128)),
        ("sliding_window", json!(4096)),
        ("cross_layer_kv_sharing", json!(true)),
        ("linear_attn_config", json!({"a": 1})),
    ] {
        let mut config = unknown.clone();
        config[key] = value;
        let error = architecture(&config, None, &plain_layers(4, 1024, &[])).unwrap_err();
        assert!(
            matches!(&error, Unsupported::Family { key: named, .. } if named.contains(key)),
            "{key}: {error}"
        );
    }

    // Keys that are switched off, or that cannot affect the cache.
    let mut config = unknown;
    config["kv_lora_rank"] = json!(null);
    config["brand_new_loss_weight"] = json!(0.5);
    config["image_token_index"] = json!(7);
    architecture(&config, None, &plain_layers(4, 1024, &[])).unwrap();
}

#[test]
fn known_type_ignores_unknown_keys() {
    read(&qwen3_with("attention_something_new", json!(3))).unwrap();
}

#[test]
fn longcat_may_store_zero_experts() {
    let config = json!({"model_type": "longcat_flash", "num_layers": 1, "zero_expert_num": 256});
    let stacked = |experts| {
        let mut builder = InventoryBuilder::default();
        builder.add(
            "",
            "model.layers.0.mlp.experts.gate_up_proj",
            Storage::Known(Dtype::BF16),
            &[experts, 4096, 6144],
            Bytes::new(experts * 4096 * 6144 * 2),
        );
        architecture(&config, None, &builder.finish())
    };

    for experts in [512, 768] {
        stacked(experts).unwrap();
    }
    let error = stacked(600).unwrap_err().to_string();
    assert!(error.contains("600 experts"), "{error}");
}
