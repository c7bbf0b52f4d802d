use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::device::DeviceFacts;
use crate::engines::{AskedWorkload, ComponentName, LaunchPlan, Workload, sample};
use crate::model::Inventory;

/// A small Llama whose configuration `changes` extends.
fn llama(changes: &Value) -> Model {
    let mut config = json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 4,
        "num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": 1024,
        "max_position_embeddings": 131_072, "torch_dtype": "bfloat16"});
    let all = config.as_object_mut().unwrap();
    all.extend(changes.as_object().unwrap().clone());

    let weights = sample::inventory(&[
        ("", "model.embed_tokens.weight", Dtype::BF16, &[1024, 512]),
        (
            "",
            "model.layers.0.mlp.up_proj.weight",
            Dtype::BF16,
            &[16_384, 512],
        ),
    ]);

    sample::model(&config, weights)
}

/// SGLang prepared for `model` on an 80 GB card.
fn prepare<'a>(
    model: &'a Model,
    asked: AskedWorkload,
    parameters: &'a BTreeMap<String, Value>,
) -> Result<SglangPrepared<'a>, EngineError> {
    let devices: &'a [DeviceFacts] = Box::leak(Box::new([sample::device()]));
    let engine = Sglang::with_profiles(Sglang::profiles().unwrap());
    engine.prepare(&EngineRequest {
        model,
        version: None,
        parameters,
        asked,
        devices,
    })
}

#[test]
fn auto_cache_dtype_follows_model_optimizer() {
    let none = BTreeMap::new();
    let scheme = json!({"num_bits": 8, "type": "float", "strategy": "tensor"});

    let dtype = |quantization: Value| {
        let model = llama(&json!({"quantization_config": quantization}));
        prepare(&model, sample::tokens(1024), &none)
            .unwrap()
            .kv_cache_dtype()
    };

    let compressed = json!({"quant_method": "compressed-tensors", "format": "float-quantized",
        "kv_cache_scheme": scheme});
    assert_eq!(dtype(compressed), "bfloat16");

    assert_eq!(
        dtype(
            json!({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"})
        ),
        "fp8"
    );

    assert_eq!(
        dtype(
            json!({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "NVFP4"})
        ),
        "bfloat16"
    );

    let asked = AskedWorkload {
        kv_cache_dtype: Some("int4_per_token_head".to_owned()),
        ..sample::tokens(1024)
    };

    let refused = prepare(&llama(&json!({})), asked, &none).err();
    assert!(
        matches!(refused, Some(EngineError::BadParameter { .. })),
        "{refused:?}"
    );
}

#[test]
fn request_table_grows_with_sequences() {
    let (model, none) = (llama(&json!({})), BTreeMap::new());
    let prepared = prepare(&model, sample::tokens(131_072), &none).unwrap();
    let table = |sequences| {
        prepared
            .request_table(Workload {
                context: 131_072,
                sequences,
            })
            .get()
    };

    assert_eq!(table(1), 2049 * 131_076 * 4);
    assert_eq!(table(4), table(1));
    assert_eq!(table(6), 3073 * 131_076 * 4);
    assert_eq!(table(64), 4097 * 131_076 * 4);
}

/// Experts of width 2880 on eight ranks have width 360, which kernels pad to 384 or 512 by 3072.
#[test]
fn small_fp4_shards_are_padded() {
    let config = json!({"architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss",
        "hidden_size": 2880, "intermediate_size": 2880, "num_hidden_layers": 1,
        "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 1024,
        "num_local_experts": 1024, "num_experts_per_tok": 4, "sliding_window": 128,
        "max_position_embeddings": 131_072, "torch_dtype": "bfloat16",
        "quantization_config": {"quant_method": "mxfp4"}});
    let weights = sample::inventory(&[
        (
            "",
            "model.layers.0.mlp.experts.gate_up_proj_blocks",
            Dtype::U8,
            &[1024, 5760, 90, 16],
        ),
        (
            "",
            "model.layers.0.mlp.experts.down_proj_blocks",
            Dtype::U8,
            &[1024, 2880, 90, 16],
        ),
    ]);

    let (model, none) = (sample::model(&config, weights), BTreeMap::new());
    let prepared = prepare(&model, sample::tokens(1024), &none).unwrap();
    let weights = prepared.weights(&Split::tensor(8, 1), 0);
    assert!(
        weights.high > Bytes::new(1024 * 3 * 512 * 3072 / 2),
        "{weights:?}"
    );
    assert!(
        weights.likely < weights.high.scale(8, 10),
        "small shards pad by more than a tenth"
    );
}

/// The window pool of gpt-oss is 0.8 of the full one, and both hold a prompt of one step.
#[test]
fn window_pool_holds_step_in_flight() {
    let config = json!({"architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss",
        "max_position_embeddings": 131_072, "torch_dtype": "bfloat16"});
    let (model, none) = (
        sample::model(&config, Inventory::default()),
        BTreeMap::new(),
    );
    let prepared = prepare(&model, sample::tokens(4096), &none).unwrap();
    let slots = |context, sequences| prepared.token_slots(Workload { context, sequences });
    assert_eq!(slots(4096, 1), 5120);

    // The window pool never needs more than 128 + 8192 tokens.
    assert_eq!(slots(131_072, 1), 131_072);
    assert_eq!(slots(9000, 1), 10_400);
    let (plain, none) = (llama(&json!({"sliding_window": 128})), BTreeMap::new());
    let prepared = prepare(&plain, sample::tokens(4096), &none).unwrap();
    assert_eq!(
        prepared.token_slots(Workload {
            context: 4096,
            sequences: 2
        }),
        8192
    );
}

#[test]
fn pickles_widen_to_asked_dtype() {
    let model = Model {
        format: Format::PytorchBin,
        ..llama(&json!({}))
    };

    let none = BTreeMap::new();
    let weight_bytes = |asked: AskedWorkload| {
        prepare(&model, asked, &none)
            .unwrap()
            .weights(&Split::single(4), 0)
            .likely
    };

    let wide = weight_bytes(AskedWorkload {
        dtype: Some("float32".to_owned()),
        ..sample::tokens(1024)
    });
    assert!(wide >= weight_bytes(sample::tokens(1024)) + model.inventory.bytes());
}

#[test]
fn launch_line_carries_asked_parameters() {
    let (model, split) = (llama(&json!({})), Split::single(4));
    let asked = BTreeMap::from([
        ("quantization".to_owned(), json!("fp8")),
        ("page_size".to_owned(), json!(64)),
        ("cuda_graph_max_bs".to_owned(), json!(8)),
    ]);

    let asked_cache = AskedWorkload {
        kv_cache_dtype: Some("nvfp4".to_owned()),
        ..sample::tokens(1024)
    };

    let prepared = prepare(&model, asked_cache, &asked).unwrap();
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
        "--quantization fp8",
        "--page-size 64",
        "--cuda-graph-max-bs-decode 8",
        "--kv-cache-dtype fp4_e2m1",
    ] {
        assert!(line.contains(flag), "{flag}: {line}");
    }
}

/// A fraction of 0.999 leaves 80 MiB, which is too little for a step of 8192 tokens.
#[test]
fn excessive_fraction_still_counts_step() {
    let model = llama(&json!({}));
    let most = BTreeMap::from([("mem_fraction_static".to_owned(), json!(0.999))]);

    let activations = |parameters: &BTreeMap<String, Value>| {
        let prepared = prepare(&model, sample::tokens(1024), parameters).unwrap();
        let parts = prepared
            .fixed(&Split::single(4), 0, &sample::device())
            .unwrap();
        sample::sum(&parts, ComponentName::Activations)
    };

    let asked = activations(&most);
    assert!(
        asked.likely < Bytes::mib(100) && asked.high > Bytes::gib(1),
        "{asked:?}"
    );

    let default = activations(&BTreeMap::new());
    assert_eq!(
        default.likely, default.high,
        "the default fraction leaves enough"
    );
}
