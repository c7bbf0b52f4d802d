use serde_json::{Value, json};

use super::*;
use crate::device::DeviceFacts;
use crate::engines::sample;
use crate::model::Dtype;

fn qwen(changes: &Value) -> Model {
    let mut config = json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 512,
        "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2,
        "vocab_size": 1024, "max_position_embeddings": 4096, "torch_dtype": "bfloat16"});
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

fn ready<'a>(
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
fn ranks_share_a_sequence_only_where_they_would_copy_its_heads() {
    let (model, two) = (
        qwen(&json!({})),
        given("decode_context_parallel_size", json!(2)),
    );
    let prepared = ready(&model, &two).unwrap();
    let legal = |tensor| prepared.legal(&Split::tensor(tensor, 4)).is_ok();
    // Two KV heads: on two ranks each has its own, on four each is there twice.
    assert!(!legal(2) && legal(4) && legal(8));
}

#[test]
fn what_stays_behind_is_of_layers_only() {
    let (model, most) = (qwen(&json!({})), given("cpu_offload_gb", json!(1000)));
    let parts = ready(&model, &most)
        .unwrap()
        .fixed(&Split::single(4), 0, &sample::device())
        .unwrap();
    let weights = sample::sum(&parts, crate::engines::ComponentName::Weights);
    assert!(
        weights.likely >= Bytes::new(2 * 1024 * 512 * 2),
        "{weights:?}"
    );
}

#[test]
fn draft_tokens_without_prediction_layers_need_a_model_that_is_not_counted() {
    let two = given("num_speculative_tokens", json!(2));
    let refused = ready(&qwen(&json!({})), &two).err();
    assert!(
        matches!(refused, Some(EngineError::BadParameter { .. })),
        "{refused:?}"
    );
}

#[test]
fn shared_experts_are_not_cut_inside_an_fp8_block() {
    let config = |skipped: Value| {
        json!({"architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next", "num_hidden_layers": 4,
            "num_experts": 64, "num_experts_per_tok": 4, "moe_intermediate_size": 512,
            "shared_expert_intermediate_size": 512, "max_position_embeddings": 4096, "torch_dtype": "bfloat16",
            "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128],
            "modules_to_not_convert": skipped}})
    };

    let none = BTreeMap::new();
    let legal = |skipped: Value, tensor| {
        let model = sample::model(&config(skipped), qwen(&json!({})).inventory);
        ready(&model, &none)
            .unwrap()
            .legal(&Split::tensor(tensor, 4))
    };

    assert!(legal(json!([]), 4).is_ok(), "{:?}", legal(json!([]), 4));
    assert!(legal(json!([]), 8).is_err());
    assert!(legal(json!(["model.layers.0.mlp.shared_expert"]), 8).is_ok());
}

/// What NCCL took before vLLM looks is not free any more, and lies outside of the share.
#[test]
fn share_excludes_communicator() {
    let (model, share) = (
        qwen(&json!({})),
        given("gpu_memory_utilization", json!(0.9)),
    );
    let prepared = ready(&model, &share).unwrap();
    let device = sample::device();

    let share = |tensor| {
        prepared
            .share(&Split::tensor(tensor, 4), 0, &device)
            .unwrap()
    };

    let communicator = prepared
        .communication_before(&Split::tensor(2, 4), &device)
        .high;
    assert_eq!(share(2).taken.high, share(1).taken.high + communicator);
    assert!(communicator > Bytes::gib(1));
}

#[test]
fn a_device_that_tells_no_capability_may_need_what_the_largest_do() {
    let (model, none) = (qwen(&json!({})), BTreeMap::new());
    let prepared = ready(&model, &none).unwrap();

    let of = |compute_capability| {
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

    assert!(
        of(None) >= of(Some((9, 0)))
            && of(None) >= of(Some((10, 0)))
            && of(None) > of(Some((8, 6)))
    );
}

#[test]
fn the_launch_line_says_all_that_the_figures_were_asked_for() {
    let (model, split) = (qwen(&json!({})), Split::single(4));
    let asked = BTreeMap::from([
        ("async_scheduling".to_owned(), json!(false)),
        ("enable_prefix_caching".to_owned(), json!(false)),
        ("mamba_ssm_cache_dtype".to_owned(), json!("float16")),
        ("limit_mm_per_prompt".to_owned(), json!({"image": 0})),
    ]);

    let prepared = ready(&model, &asked).unwrap();
    let workload = prepared.workload();

    let line = prepared
        .launch(&crate::engines::LaunchPlan {
            split: &split,
            workload,
            devices: &[],
        })
        .args
        .join(" ");

    for said in [
        "--no-async-scheduling",
        "--no-enable-prefix-caching",
        "--mamba-ssm-cache-dtype float16",
        r#"--limit-mm-per-prompt {"image":0}"#,
    ] {
        assert!(line.contains(said), "{said}: {line}");
    }

    let none = BTreeMap::new();
    let plain = ready(&model, &none).unwrap();
    let plain = plain
        .launch(&crate::engines::LaunchPlan {
            split: &split,
            workload,
            devices: &[],
        })
        .args
        .join(" ");

    assert!(!plain.contains("--no-"), "{plain}");
}
