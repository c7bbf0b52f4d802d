use serde_json::{Value, json};

use super::*;
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::engines::{ComponentName, LaunchPlan, Split, sample};
use crate::model::Dtype;

/// A small model of two KV heads whose configuration `changes` extends.
fn small_llama(changes: &Value) -> Model {
    let mut config = json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 4,
        "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 1024,
        "max_position_embeddings": 4096, "torch_dtype": "bfloat16"});
    let all = config.as_object_mut().unwrap();
    all.extend(changes.as_object().unwrap().clone());

    let weights = sample::inventory(&[
        ("", "model.embed_tokens.weight", Dtype::BF16, &[1024, 512]),
        ("", "lm_head.weight", Dtype::BF16, &[1024, 512]),
        (
            "",
            "model.layers.0.mlp.up_proj.weight",
            Dtype::BF16,
            &[1024, 512],
        ),
    ]);

    sample::model(&config, weights)
}

/// vLLM prepared for `model` and 1024 tokens.
fn prepare<'a>(
    model: &'a Model,
    parameters: &'a BTreeMap<String, Value>,
) -> Result<VllmPrepared<'a>, EngineError> {
    let devices: &'a [DeviceFacts] = Box::leak(Box::new([sample::device()]));
    let engine = Vllm::with_profiles(Vllm::profiles().unwrap());
    engine.prepare(&EngineRequest {
        model,
        version: None,
        parameters,
        asked: sample::tokens(1024),
        devices,
    })
}

fn given(name: &str, value: Value) -> BTreeMap<String, Value> {
    BTreeMap::from([(name.to_owned(), value)])
}

#[test]
fn context_parallel_needs_copied_heads() {
    let (model, two) = (
        small_llama(&json!({})),
        given("decode_context_parallel_size", json!(2)),
    );
    let prepared = prepare(&model, &two).unwrap();
    let is_legal = |tensor| prepared.check_split(&Split::tensor(tensor, 4)).is_ok();
    // The model has two KV heads: two ranks hold one each, four ranks hold each twice.
    assert!(!is_legal(2) && is_legal(4) && is_legal(8));
}

/// The start-up figures of `model` on a device of `capability`.
fn log_on(model: &Model, capability: (u32, u32)) -> StartUpLog {
    let device = DeviceFacts {
        compute_capability: Some(capability),
        ..sample::device()
    };
    let devices = [device];
    let engine = Vllm::with_profiles(Vllm::profiles().unwrap());
    let request = EngineRequest {
        model,
        version: None,
        parameters: &BTreeMap::new(),
        asked: sample::tokens(1024),
        devices: &devices,
    };

    let prepared = engine.prepare(&request).unwrap();
    prepared.start_up_log(&Split::single(4), 0, &devices[0])
}

#[test]
fn activations_off_hopper_may_hold_workspace() {
    let model = small_llama(&json!({}));
    let [hopper, others @ ..] =
        [(9, 0), (8, 9), (12, 0), (10, 0)].map(|capability| log_on(&model, capability).activations);

    for (other, mib) in others.iter().zip([450, 450, 394]) {
        assert_eq!(other.likely, hopper.likely);
        assert_eq!(other.high, hopper.high + Bytes::mib(mib));
    }
}

#[test]
fn repacked_experts_widen_weights() {
    let nvfp4 = json!({"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}});
    let experts = json!({"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe",
        "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 256,
        "quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}});

    let mut mxfp4 = experts.clone();
    mxfp4["quantization_config"] = json!({"quant_method": "mxfp4"});

    for (changes, capability, percent) in [
        (&experts, (9, 0), 110),
        (&experts, (10, 0), 102),
        (&nvfp4, (9, 0), 102),
        (&mxfp4, (9, 0), 102),
    ] {
        let weights = log_on(&small_llama(changes), capability).weights;
        let high = weights.likely.scale(percent, 100) + Bytes::mib(64);
        assert_eq!(weights.high, high, "{changes} on {capability:?}");
    }
}

#[test]
fn cpu_offload_moves_layers_alone() {
    let (model, most) = (
        small_llama(&json!({})),
        given("cpu_offload_gb", json!(1000)),
    );
    let parts = prepare(&model, &most)
        .unwrap()
        .fixed(&Split::single(4), 0, &sample::device())
        .unwrap();
    let weights = sample::sum(&parts, ComponentName::Weights);
    assert!(
        weights.likely >= Bytes::new(2 * 1024 * 512 * 2),
        "embedding and head stay on the device: {weights:?}"
    );
}

#[test]
fn draft_tokens_need_prediction_layers() {
    let two = given("num_speculative_tokens", json!(2));
    let refused = prepare(&small_llama(&json!({})), &two).err();
    assert!(
        matches!(refused, Some(EngineError::BadParameter { .. })),
        "{refused:?}"
    );
}

#[test]
fn shared_experts_keep_fp8_blocks() {
    let config = |skipped: Value| {
        json!({"architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next",
            "num_hidden_layers": 4, "num_experts": 64, "num_experts_per_tok": 4,
            "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512,
            "max_position_embeddings": 4096, "torch_dtype": "bfloat16",
            "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128],
            "modules_to_not_convert": skipped}})
    };

    let none = BTreeMap::new();
    let check_split = |skipped: Value, tensor| {
        let model = sample::model(&config(skipped), small_llama(&json!({})).inventory);
        prepare(&model, &none)
            .unwrap()
            .check_split(&Split::tensor(tensor, 4))
    };

    check_split(json!([]), 4).unwrap();
    check_split(json!([]), 8).unwrap_err();
    check_split(json!(["model.layers.0.mlp.shared_expert"]), 8).unwrap();
}

/// NCCL's memory from before vLLM's snapshot is outside the share.
#[test]
fn share_excludes_communication() {
    let (model, share) = (
        small_llama(&json!({})),
        given("gpu_memory_utilization", json!(0.9)),
    );
    let prepared = prepare(&model, &share).unwrap();
    let device = sample::device();

    let taken = |tensor| {
        let share = prepared.share(&Split::tensor(tensor, 4), 0, &device);
        share.unwrap().taken.high
    };

    let communication = prepared
        .communication_before(&Split::tensor(2, 4), &device)
        .high;
    assert_eq!(taken(2), taken(1) + communication);
    assert!(communication > Bytes::gib(1));
}

#[test]
fn unknown_capability_takes_widest_communication() {
    let (model, none) = (small_llama(&json!({})), BTreeMap::new());
    let prepared = prepare(&model, &none).unwrap();

    let communication = |compute_capability| {
        let (split, device) = (
            Split::tensor(2, 4),
            DeviceFacts {
                compute_capability,
                ..sample::device()
            },
        );

        prepared
            .communication_before(&split, &device)
            .plus(prepared.communication_growth(&split, &device))
            .high
    };

    let unknown = communication(None);
    assert!(unknown >= communication(Some((9, 0))));
    assert!(unknown >= communication(Some((10, 0))));
    assert!(unknown > communication(Some((8, 6))));
}

#[test]
fn launch_line_carries_asked_parameters() {
    let (model, split) = (small_llama(&json!({})), Split::single(4));
    let asked = BTreeMap::from([
        ("async_scheduling".to_owned(), json!(false)),
        ("enable_prefix_caching".to_owned(), json!(false)),
        ("mamba_ssm_cache_dtype".to_owned(), json!("float16")),
        ("limit_mm_per_prompt".to_owned(), json!({"image": 0})),
    ]);

    let prepared = prepare(&model, &asked).unwrap();
    let workload = prepared.workload();

    let line = prepared
        .launch(&LaunchPlan {
            split: &split,
            workload,
            devices: &[],
        })
        .args
        .join(" ");

    for flag in [
        "--no-async-scheduling",
        "--no-enable-prefix-caching",
        "--mamba-ssm-cache-dtype float16",
        r#"--limit-mm-per-prompt {"image":0}"#,
    ] {
        assert!(line.contains(flag), "{flag}: {line}");
    }

    let none = BTreeMap::new();
    let plain = prepare(&model, &none).unwrap();
    let plain = plain
        .launch(&LaunchPlan {
            split: &split,
            workload,
            devices: &[],
        })
        .args
        .join(" ");

    assert!(!plain.contains("--no-"), "{plain}");
}

/// Tokens of a block of a DeepSeek-like latent cache on a device of `capability`.
fn latent_block(capability: Option<(u32, u32)>, parameters: &BTreeMap<String, Value>) -> u64 {
    let model = small_llama(&json!({"architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3", "kv_lora_rank": 512, "q_lora_rank": 256,
        "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "n_routed_experts": 8,
        "num_experts_per_tok": 2, "moe_intermediate_size": 256, "n_shared_experts": 1,
        "first_k_dense_replace": 1}));
    let devices = [DeviceFacts {
        compute_capability: capability,
        ..sample::device()
    }];
    let engine = Vllm::with_profiles(Vllm::profiles().unwrap());
    let request = EngineRequest {
        model: &model,
        version: None,
        parameters,
        asked: sample::tokens(1024),
        devices: &devices,
    };

    engine.prepare(&request).unwrap().block_tokens()
}

/// vLLM 0.33 selects the kernel of a latent by the device, and each has its own block.
#[test]
fn unknown_device_has_widest_block() {
    let (plain, fp8) = (BTreeMap::new(), given("kv_cache_dtype", json!("fp8")));
    for (capability, blocks) in [
        (Some((8, 0)), (16, 16)),
        (Some((9, 0)), (16, 64)),
        (Some((10, 0)), (32, 32)),
        (None, (32, 64)),
    ] {
        let found = (
            latent_block(capability, &plain),
            latent_block(capability, &fp8),
        );
        assert_eq!(found, blocks, "{capability:?}");
    }
}
