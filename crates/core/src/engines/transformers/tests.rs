use serde_json::json;

use super::*;
use crate::bytes::Bytes;
use crate::engines::sample::{components, device, inventory, model, prepare, sum, tokens};
use crate::engines::{
    AskedWorkload, ComponentName, DeviceSupport, Interval, LaunchDevice, LaunchPlan, Offload, Split,
};
use crate::model::{Dtype, Format, Inventory, PipelineComponent};

const NONE: &BTreeMap<String, Value> = &BTreeMap::new();

fn qwen3() -> Value {
    json!({"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 64,
        "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 100, "torch_dtype": "bfloat16",
        "max_position_embeddings": 1000})
}

fn weights() -> Inventory {
    inventory(&[
        ("", "model.embed_tokens.weight", Dtype::BF16, &[100, 64]),
        ("", "model.layers.0.w", Dtype::F32, &[64, 64]),
        ("", "model.layers.1.w", Dtype::F32, &[64, 64]),
        ("", "model.layers.2.w", Dtype::F32, &[64, 64]),
        ("", "model.layers.3.w", Dtype::F32, &[64, 64]),
    ])
}

const LAYER: u64 = 64 * 64 * 2;
const EMBEDDING: u64 = 100 * 64 * 2;

fn asked_dtype(dtype: &str) -> AskedWorkload {
    AskedWorkload {
        dtype: Some(dtype.to_owned()),
        ..tokens(100)
    }
}

#[test]
fn version_4_loads_in_32_bits() {
    let model = model(&qwen3(), weights());
    let bytes = |asked: AskedWorkload, version| {
        let prepared = prepare(&Transformers, &model, asked, (version, NONE)).unwrap();
        sum(
            &components(prepared.as_ref(), &Split::single(4), 0),
            ComponentName::Weights,
        )
        .likely
        .get()
    };

    assert_eq!(bytes(tokens(100), None), EMBEDDING + 4 * LAYER);
    assert_eq!(
        bytes(asked_dtype("float32"), None),
        2 * (EMBEDDING + 4 * LAYER)
    );

    assert_eq!(
        bytes(tokens(100), Some("4.57")),
        2 * (EMBEDDING + 4 * LAYER)
    );
    assert_eq!(
        bytes(asked_dtype("auto"), Some("4.57")),
        EMBEDDING + 4 * LAYER
    );
}

#[test]
fn caches_hold_all_layers() {
    let model = model(&qwen3(), weights());
    let cache = |parameters: &BTreeMap<String, Value>| {
        let prepared = prepare(&Transformers, &model, tokens(100), (None, parameters)).unwrap();
        sum(
            &components(prepared.as_ref(), &Split::single(4), 0),
            ComponentName::KvCache,
        )
    };

    let layer = 100 * 2 * 32 * 2;
    assert_eq!(cache(NONE), Interval::exact(Bytes::new(4 * layer)));
    let fixed = BTreeMap::from([("cache_implementation".to_owned(), json!("static"))]);
    assert_eq!(cache(&fixed), Interval::exact(Bytes::new(4 * layer)));
    let off = BTreeMap::from([("use_cache".to_owned(), json!(false))]);
    assert_eq!(cache(&off), Interval::default());
}

#[test]
fn sliding_layers_cache_one_window() {
    let mistral = json!({"model_type": "mistral", "torch_dtype": "bfloat16"});
    let model = model(&mistral, Inventory::default());
    let prepared = prepare(&Transformers, &model, tokens(8192), (None, NONE)).unwrap();
    let cache = sum(
        &components(prepared.as_ref(), &Split::single(32), 0),
        ComponentName::KvCache,
    );
    assert_eq!(cache.low, Bytes::new(32 * 4095 * 8 * 256 * 2));
    assert_eq!(prepared.kv_bytes_per_token(), Bytes::ZERO);
}

#[test]
fn version_4_expands_latents() {
    let model = model(
        &json!({"model_type": "deepseek_v3", "torch_dtype": "bfloat16"}),
        Inventory::default(),
    );
    let per_token = |version| {
        let asked = AskedWorkload {
            dtype: Some("auto".to_owned()),
            ..tokens(100)
        };
        prepare(&Transformers, &model, asked, (version, NONE))
            .unwrap()
            .kv_bytes_per_token()
            .get()
    };

    assert_eq!(per_token(None), 61 * 576 * 2);
    assert_eq!(per_token(Some("4.57")), 61 * 128 * (192 + 128) * 2);
}

#[test]
fn eager_attention_counts_token_pairs() {
    let model = model(&qwen3(), weights());
    let step = |attention: &str| {
        let parameters = BTreeMap::from([("attn_implementation".to_owned(), json!(attention))]);
        let prepared = prepare(&Transformers, &model, tokens(1000), (None, &parameters)).unwrap();
        sum(
            &components(prepared.as_ref(), &Split::single(4), 0),
            ComponentName::Activations,
        )
        .likely
        .get()
    };

    assert_eq!(step("eager") - step("sdpa"), 4 * 1000 * 1000 * (2 + 4));
}

#[test]
fn encoders_have_no_cache() {
    let bert = json!({"model_type": "bert", "torch_dtype": "float32"});
    let model = model(&bert, Inventory::default());

    let step = |sequences| {
        let asked = AskedWorkload {
            sequences: Some(sequences),
            ..AskedWorkload::default()
        };

        let prepared = prepare(&Transformers, &model, asked, (None, NONE)).unwrap();
        assert_eq!(prepared.kv_bytes_per_token(), Bytes::ZERO);
        let parts = components(prepared.as_ref(), &Split::single(12), 0);
        assert!(parts.iter().all(|part| part.name != ComponentName::KvCache));

        sum(&parts, ComponentName::Activations).likely.get()
    };

    assert_eq!(step(1), 512 * (2 * 768 + 3 * 3072) * 4);
    assert_eq!(step(32), 32 * step(1));
}

#[test]
fn offloaded_layers_pass_through_device() {
    let model = model(&qwen3(), weights());
    let prepared = prepare(&Transformers, &model, tokens(100), (None, NONE)).unwrap();

    let split = Split {
        offload: Offload::Layers { layers: 3 },
        ..Split::single(4)
    };

    prepared.check(&split).unwrap();
    let on_device = sum(
        &components(prepared.as_ref(), &split, 0),
        ComponentName::Weights,
    )
    .likely
    .get();

    assert_eq!(on_device, EMBEDDING + LAYER + LAYER);
    let host = prepared.host(&split, prepared.workload()).unwrap();
    assert_eq!(sum(&host, ComponentName::Host).likely.get(), 3 * LAYER);

    prepared
        .check(&Split {
            offload: Offload::Components,
            ..Split::single(4)
        })
        .unwrap_err();
}

#[test]
fn launch_line_gives_device_shares() {
    let model = model(&qwen3(), weights());
    let prepared = prepare(&Transformers, &model, tokens(100), (None, NONE)).unwrap();
    let facts = device();
    let one = LaunchDevice {
        facts: &facts,
        available: Bytes::gib(1),
        required: Bytes::gib(1),
        free: None,
    };

    let workload = prepared.workload();
    let single = prepared.launch(&LaunchPlan {
        split: &Split::single(4),
        workload,
        devices: &[one],
    });

    assert_eq!(
        single.args[2],
        "from transformers import AutoModelForCausalLM\nmodel = \
         AutoModelForCausalLM.from_pretrained(\"owner/name\", revision=\"c0ffee\", \
         dtype=\"bfloat16\", device_map={\"\": 0}, attn_implementation=\"sdpa\")"
    );

    let split = Split {
        stages: vec![0..1, 1..4],
        ..Split::single(4)
    };

    let both = prepared.launch(&LaunchPlan {
        split: &split,
        workload,
        devices: &[one, one],
    });
    assert!(
        both.args[2].contains("device_map=\"sequential\", max_memory={0: \"1MiB\", 1: \"1MiB\"}"),
        "{}",
        both.args[2]
    );
}

#[test]
fn pipelines_load_with_sentence_transformers() {
    let component = PipelineComponent {
        name: "0_Transformer".to_owned(),
        class: "Transformer".to_owned(),
        bytes: Bytes::ZERO,
        config: None,
    };
    let model = Model {
        components: vec![component],
        ..model(&qwen3(), weights())
    };

    let prepared = prepare(&Transformers, &model, tokens(100), (None, NONE)).unwrap();
    let launch = prepared.launch(&LaunchPlan {
        split: &Split::single(4),
        workload: prepared.workload(),
        devices: &[],
    });

    assert_eq!(
        launch.args[2],
        "from sentence_transformers import SentenceTransformer\nmodel = \
         SentenceTransformer(\"owner/name\", revision=\"c0ffee\", device=\"cuda\", \
         model_kwargs={\"dtype\": \"bfloat16\"})"
    );
}

#[test]
fn packed_weights_may_unpack() {
    let mut config = qwen3();
    config["quantization_config"] = json!({"quant_method": "mxfp4"});

    let packed = inventory(&[(
        "",
        "model.layers.0.mlp.experts.w_blocks",
        Dtype::U8,
        &[4, 8, 2, 16],
    )]);
    let model = model(&config, packed);
    let prepared = prepare(&Transformers, &model, tokens(1), (None, NONE)).unwrap();
    let weights = sum(
        &components(prepared.as_ref(), &Split::single(4), 0),
        ComponentName::Weights,
    );
    assert_eq!(
        (weights.likely, weights.high),
        (Bytes::new(1024), Bytes::new(4096))
    );

    assert!(
        prepared
            .assumptions()
            .iter()
            .any(|line| line.contains("kernels package"))
    );
}

#[test]
fn mlx_checkpoints_are_refused() {
    let refused = |config: &Value| {
        let model = model(config, Inventory::default());
        prepare(&Transformers, &model, tokens(1), (None, NONE))
            .err()
            .map(|error| error.to_string())
    };

    let mut config = qwen3();
    config["quantization"] = json!({"bits": 4, "group_size": 64});
    assert!(refused(&config).unwrap().contains("mlx"));
    assert_eq!(refused(&qwen3()), None);
}

#[test]
fn pickles_widen_in_version_4() {
    let model = Model {
        format: Format::PytorchBin,
        ..model(&qwen3(), weights())
    };

    let stored = sum_of_weights(&model, tokens(100), None);
    assert_eq!(
        sum_of_weights(&model, tokens(100), Some("4.57")),
        stored * 2 * 2
    );
}

/// The weights on one device.
fn sum_of_weights(model: &Model, asked: AskedWorkload, version: Option<&str>) -> Bytes {
    let prepared = prepare(&Transformers, model, asked, (version, NONE)).unwrap();
    sum(
        &components(prepared.as_ref(), &Split::single(4), 0),
        ComponentName::Weights,
    )
    .likely
}

#[test]
fn unknown_capability_degrades_quantization() {
    let verdict = |method: &str, capability| {
        let config =
            json!({"model_type": "llama", "quantization_config": {"quant_method": method}});
        let architecture =
            crate::model::config::architecture(&config, None, &Inventory::default()).unwrap();
        device_support::device_support(
            &architecture,
            Dtype::F16,
            &DeviceFacts {
                compute_capability: capability,
                ..device()
            },
        )
    };

    assert!(matches!(verdict("fp8", None), DeviceSupport::Degraded(_)));
    assert!(matches!(verdict("gptq", None), DeviceSupport::Able));

    assert!(matches!(
        verdict("fbgemm_fp8", Some((8, 9))),
        DeviceSupport::Unable(_)
    ));
    assert!(matches!(
        verdict("fbgemm_fp8", Some((9, 0))),
        DeviceSupport::Able
    ));
}

#[test]
fn raw_audio_counts_convolutions() {
    let hubert = model(
        &json!({"architectures": ["HubertModel"], "model_type": "hubert",
            "torch_dtype": "float32"}),
        weights(),
    );
    assert_eq!(hubert.architecture.as_ref().unwrap().max_context, None);

    let prepared = prepare(
        &Transformers,
        &hubert,
        AskedWorkload::default(),
        (None, NONE),
    )
    .unwrap();
    assert!(
        prepared
            .assumptions()
            .iter()
            .any(|assumption| assumption.contains("2048")),
        "{:?}",
        prepared.assumptions()
    );

    let step = sum(
        &components(prepared.as_ref(), &Split::single(12), 0),
        ComponentName::Activations,
    );
    assert!(
        step.likely >= Bytes::new(2048 * 64 * 512 * 3 * 4),
        "{step:?}"
    );
}

/// Resident bytes of a 16-bit tensor of 64 x 64 and a router in 32 bits of `rows` x 64.
fn weights_with_router(rows: u64) -> u64 {
    let stored = inventory(&[
        ("", "model.layers.0.w", Dtype::BF16, &[64, 64]),
        (
            "",
            "model.layers.0.mlp.gate.weight",
            Dtype::F32,
            &[rows, 64],
        ),
    ]);
    sum_of_weights(&model(&qwen3(), stored), tokens(100), None).get()
}

#[test]
fn routers_stay_in_32_bits() {
    assert_eq!(weights_with_router(8), LAYER + 8 * 64 * 4);
    assert_eq!(
        weights_with_router(64),
        LAYER + 64 * 64 * 2,
        "most of the file has 32 bits"
    );
}
