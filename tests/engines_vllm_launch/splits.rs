//! Legal splits, and the figures on every rank of them.

use std::collections::BTreeMap;

use hf_mem_core::device::DeviceFacts;
use hf_mem_core::engines::{EngineRequest, Split};
use serde_json::json;

use super::{asked, h100, llama, prepare};

#[test]
fn indivisible_splits_are_refused() {
    let model =
        llama(&json!({"num_attention_heads": 24, "head_dim": 128, "num_key_value_heads": 8}));
    let parameters = BTreeMap::new();
    let devices = [h100()];

    let request = EngineRequest {
        model: &model,
        version: None,
        parameters: &parameters,
        asked: asked(8192, 1),
        devices: &devices,
    };

    let prepared = prepare(&request).unwrap();
    let why = prepared
        .check(&Split::tensor(16, 32))
        .unwrap_err()
        .to_string();
    assert_eq!(
        why,
        "24 attention heads do not divide by tensor parallelism 16"
    );

    let why = prepared
        .check(&Split::tensor(3, 32))
        .unwrap_err()
        .to_string();
    assert!(
        why.contains("does not divide") || why.contains("neither divide"),
        "{why}"
    );

    // Only pipelines can use sixteen devices.
    let found = prepared.splits(16).unwrap();
    assert!(
        found
            .iter()
            .all(|split| split.tensor <= 8 && split.ranks() == 16)
    );

    assert_eq!(found[0].tensor, 8);
    assert!(
        prepared
            .check(&Split {
                stages: vec![0..10, 12..32],
                ..Split::tensor(1, 32)
            })
            .is_err()
    );
}

#[test]
fn fp8_expert_blocks_are_refined() {
    // The experts have width 768, like those of Qwen3-30B-A3B-FP8.
    let model = llama(&json!({
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe",
        "intermediate_size": 6144, "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8,
        "moe_intermediate_size": 768, "decoder_sparse_step": 1, "mlp_only_layers": [],
        "quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic",
        "weight_block_size": [128, 128]}
    }));

    let parameters = BTreeMap::new();
    let devices = [h100()];

    let request = EngineRequest {
        model: &model,
        version: None,
        parameters: &parameters,
        asked: asked(8192, 1),
        devices: &devices,
    };

    let prepared = prepare(&request).unwrap();

    // On 8 ranks, a rank has 96 columns, with scales on a grid of 32. On 16 it has 48, and only
    // whole experts work.
    assert!(prepared.check(&Split::tensor(8, 32)).is_ok());
    let why = prepared
        .check(&Split::tensor(16, 32))
        .unwrap_err()
        .to_string();
    assert!(why.contains("expert parallelism"), "{why}");
    let found = prepared.splits(16).unwrap();
    assert!(found[0].expert_parallel && found[0].tensor == 16);
}

#[test]
fn sixteen_devices_have_figures() {
    let model = llama(&json!({}));
    let parameters = BTreeMap::new();
    let devices: Vec<DeviceFacts> = (0..16).map(|_| h100()).collect();

    let request = EngineRequest {
        model: &model,
        version: None,
        parameters: &parameters,
        asked: asked(8192, 1),
        devices: &devices,
    };

    let prepared = prepare(&request).unwrap();
    let mut ranks = 0;
    for count in 1..=16 {
        for split in prepared.splits(count).unwrap_or_default() {
            for (rank, device) in devices.iter().enumerate().take(split.ranks()) {
                assert!(
                    prepared.fixed(&split, rank, device).is_ok(),
                    "{split:?}, rank {rank}"
                );
                assert!(
                    prepared
                        .variable(&split, rank, device, prepared.workload())
                        .is_ok(),
                    "{split:?}, rank {rank}"
                );

                ranks += 1;
            }
        }
    }

    println!("{ranks} ranks");
    assert!(ranks > 16, "{ranks}");
}
