//! An answer covers the whole request: engines ignore no parameter in silence, accept none that the
//! real engine rejects, and use its defaults.

#![allow(clippy::unwrap_used, reason = "test helpers")]

use std::collections::BTreeMap;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{DeviceFacts, DeviceKind};
use hf_mem_core::engines::{
    AskedContext, AskedWorkload, ComponentName, DeviceSupport, EngineError, EngineRequest, Launch,
    LaunchDevice, LaunchPlan, PreparedEngine, Split, by_name,
};
use hf_mem_core::model::{Format, Inventory, Model, config};
use hf_mem_core::report::question::Question;
use serde_json::{Value, json};

fn device(name: &str, mib: u64, capability: (u32, u32)) -> DeviceFacts {
    DeviceFacts {
        uuid: "GPU-0".to_owned(),
        index: 0,
        name: name.to_owned(),
        kind: DeviceKind::Gpu,
        total_bytes: Bytes::mib(mib),
        reserved_bytes: Some(Bytes::mib(400)),
        compute_capability: Some(capability),
        multiprocessors: Some(132),
        parent_uuid: None,
        pci_bus_id: None,
        numa_node: None,
    }
}

fn h100() -> DeviceFacts {
    device("NVIDIA H100 80GB HBM3", 81_559, (9, 0))
}

fn model(config: &Value) -> Model {
    Model::bare(
        "owner/name",
        Format::Safetensors,
        config::architecture(config, None, &Inventory::default()),
        Inventory::default(),
    )
}

fn llama() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256,
        "max_position_embeddings": 131_072, "tie_word_embeddings": false, "torch_dtype": "bfloat16"
    })
}

/// Prepares `engine` for `config` on `device` and calls `use_prepared` with the result.
fn ask<T>(
    (engine, config, device): (&str, &Value, &DeviceFacts),
    asked: AskedWorkload,
    parameters: &[(&str, Value)],
    use_prepared: impl FnOnce(&dyn PreparedEngine) -> T,
) -> Result<T, EngineError> {
    let model = model(config);
    let parameters: BTreeMap<String, Value> = parameters
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    let devices = [device.clone()];
    let engine = by_name(engine).unwrap();
    let prepared = engine.prepare(&EngineRequest {
        model: &model,
        version: None,
        parameters: &parameters,
        asked,
        devices: &devices,
    })?;

    Ok(use_prepared(&*prepared))
}

fn rejection(engine: &str, name: &str, value: &Value) -> String {
    let asked = ask(
        (engine, &llama(), &h100()),
        AskedWorkload::default(),
        &[(name, value.clone())],
        |_| (),
    );

    match asked {
        Err(error @ EngineError::BadParameter { .. }) => error.to_string(),
        other => format!("not rejected: {other:?}"),
    }
}

fn dtype(name: &str) -> AskedWorkload {
    AskedWorkload {
        dtype: Some(name.to_owned()),
        ..AskedWorkload::default()
    }
}

fn context(tokens: u64) -> AskedWorkload {
    AskedWorkload {
        context: Some(AskedContext::Tokens(tokens)),
        ..AskedWorkload::default()
    }
}

#[test]
fn parameters_set_elsewhere_are_rejected() {
    for (engine, name) in [
        ("vllm", "kv_cache_memory_bytes"),
        ("vllm", "tensor_parallel_size"),
        ("sglang", "max_total_tokens"),
        ("sglang", "tp_size"),
        ("sglang", "tensor-parallel-size"),
    ] {
        let message = rejection(engine, name, &json!(2));
        assert!(
            message.contains(name) && !message.starts_with("not rejected"),
            "{message}"
        );
    }
}

#[test]
fn uncounted_parameters_are_unsupported() {
    for (engine, name, value) in [
        ("vllm", "enable_sleep_mode", json!(true)),
        ("vllm", "speculative_config", json!({"model": "draft"})),
        ("vllm", "data_parallel_size", json!(2)),
        ("vllm", "kv_offloading_size", json!(10)),
        ("vllm", "load_format", json!("tensorizer")),
        ("sglang", "enable_dp_attention", json!(true)),
        ("sglang", "speculative_algorithm", json!("EAGLE")),
        ("transformers", "num_beams", json!(4)),
    ] {
        let asked = ask(
            (engine, &llama(), &h100()),
            AskedWorkload::default(),
            &[(name, value)],
            |_| (),
        );
        let Err(EngineError::UnsupportedParameter { name: rejected, .. }) = asked else {
            panic!("{engine} {name}: {asked:?}")
        };

        assert_eq!(rejected, name);
    }
}

#[test]
fn parameters_without_memory_change_nothing() {
    let figures_with = |engine: &str, parameters: &[(&str, Value)]| {
        let facts = h100();
        ask(
            (engine, &llama(), &facts),
            context(4096),
            parameters,
            |prepared| {
                prepared
                    .variable_sum(&Split::single(32), 0, &facts, prepared.workload())
                    .unwrap()
            },
        )
    };

    for (engine, parameters) in [
        (
            "vllm",
            vec![
                ("served-model-name", json!("x")),
                ("api_server_count", json!(4)),
                ("enable_sleep_mode", json!(false)),
            ],
        ),
        (
            "vllm",
            vec![
                ("data_parallel_size", json!(1)),
                ("speculative_config", Value::Null),
                ("load_format", json!("auto")),
            ],
        ),
        (
            "sglang",
            vec![
                ("log-level", json!("debug")),
                ("enable_dp_attention", json!(false)),
                ("dp", json!(1)),
            ],
        ),
        (
            "transformers",
            vec![("temperature", json!(0.7)), ("num_beams", json!(1))],
        ),
    ] {
        assert_eq!(
            figures_with(engine, &parameters).unwrap(),
            figures_with(engine, &[]).unwrap(),
            "{engine}"
        );
    }
}

#[test]
fn engines_reject_unknown_names() {
    let name = "no_such_parameter";
    for (engine, format) in [
        ("vllm", Format::Safetensors),
        ("sglang", Format::Safetensors),
        ("transformers", Format::Safetensors),
        ("llama.cpp", Format::Gguf),
        ("ollama", Format::Gguf),
        ("diffusers", Format::Diffusers),
    ] {
        let model = Model {
            format,
            ..model(&llama())
        };

        let parameters = BTreeMap::from([(name.to_owned(), json!(1))]);
        let devices = [h100()];
        let asked = AskedWorkload::default();

        let request = EngineRequest {
            model: &model,
            version: None,
            parameters: &parameters,
            asked,
            devices: &devices,
        };

        let error = by_name(engine).unwrap().prepare(&request).err();
        assert!(
            matches!(error, Some(EngineError::UnknownParameter { .. })),
            "{engine}: {error:?}"
        );
    }
}

#[test]
fn vllm_parameters_belong_to_releases() {
    let (model, devices) = (model(&llama()), [h100()]);
    let rejection_at = |name: &str, version: Option<&str>| {
        let parameters = BTreeMap::from([(name.to_owned(), json!(1))]);
        let version = version.map(|version| version.parse().unwrap());
        let (version, asked) = (version.as_ref(), AskedWorkload::default());
        let request = EngineRequest {
            model: &model,
            version,
            parameters: &parameters,
            asked,
            devices: &devices,
        };

        by_name("vllm")
            .unwrap()
            .prepare(&request)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };

    assert!(rejection_at("kv_offloading_size", Some("0.7")).contains("releases from"));
    assert!(rejection_at("swap_space", None).contains("only releases before 0.21 have it"));
    assert!(rejection_at("swap_space", Some("0.8.5")).contains("not counted yet"));
}

#[test]
fn question_rejects_invalid_version() {
    let parse_version = |version: &str| {
        let body =
            json!({"model": {"repo": "a/b"}, "engine": {"name": "vllm", "version": version}});
        serde_json::from_value::<Question>(body)
            .map(|question| json!(question)["engine"]["version"].clone())
    };

    assert_eq!(parse_version("v0.33.0+cu128").unwrap(), "v0.33.0+cu128");
    assert!(
        parse_version("banana")
            .unwrap_err()
            .to_string()
            .contains("'banana' is not a version")
    );
}

#[test]
fn vllm_rejects_invalid_block_and_step() {
    assert!(rejection("vllm", "block_size", &json!(7)).contains("multiple of 16"));
    let few = [
        ("max_num_batched_tokens", json!(8)),
        ("max_num_seqs", json!(16)),
    ];

    let answer = ask(
        ("vllm", &llama(), &h100()),
        AskedWorkload::default(),
        &few,
        |_| (),
    );
    assert!(
        matches!(answer, Err(EngineError::BadParameter { ref name, .. }) if name == "max_num_batched_tokens")
    );

    // A default number of sequences is lowered to the tokens of a step.
    let step = [("max_num_batched_tokens", json!(512))];
    let sequences = ask(
        ("vllm", &llama(), &h100()),
        AskedWorkload::default(),
        &step,
        |prepared| prepared.parameters().get("max_num_seqs").cloned(),
    );

    assert_eq!(sequences.unwrap(), Some(json!(512)));
}

#[test]
fn requested_bfloat16_vetoes_old_devices() {
    let t4 = device("Tesla T4", 15_360, (7, 5));
    let engine = "vllm";
    let fitness = ask(
        (engine, &llama(), &t4),
        dtype("bfloat16"),
        &[],
        |prepared| prepared.device_fitness(&t4),
    );

    assert!(
        matches!(fitness, Ok(DeviceSupport::Unable(_))),
        "{engine}: {fitness:?}"
    );
    let fitness = ask((engine, &llama(), &t4), dtype("auto"), &[], |prepared| {
        prepared.device_fitness(&t4)
    });
    assert!(
        matches!(fitness, Ok(DeviceSupport::Degraded(_))),
        "{engine}: {fitness:?}"
    );
}

#[test]
fn requested_dtype_is_in_launch_line() {
    for engine in ["vllm", "sglang"] {
        let facts = h100();
        let launch: Launch = ask(
            (engine, &llama(), &facts),
            dtype("float32"),
            &[],
            |prepared| {
                let split = Split::single(32);
                let device = LaunchDevice {
                    facts: &facts,
                    free: Some(facts.total_bytes),
                    available: facts.total_bytes,
                    required: Bytes::gib(40),
                };

                prepared.launch(&LaunchPlan {
                    split: &split,
                    devices: &[device],
                    workload: prepared.workload(),
                })
            },
        )
        .unwrap();

        let index = launch
            .args
            .iter()
            .position(|argument| argument == "--dtype")
            .unwrap();
        assert_eq!(
            launch.args.get(index + 1).map(String::as_str),
            Some("float32"),
            "{engine}"
        );
    }
}

#[test]
fn longrope_defaults_to_original_context() {
    let phi = json!({
        "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32_064,
        "max_position_embeddings": 131_072, "original_max_position_embeddings": 4096, "torch_dtype": "bfloat16",
        "rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}
    });
    let context_for = |asked| {
        ask(("vllm", &phi, &h100()), asked, &[], |prepared| {
            prepared.workload().context
        })
        .unwrap()
    };

    assert_eq!(context_for(AskedWorkload::default()), 4096);
    assert_eq!(context_for(context(65_536)), 65_536);

    assert_eq!(
        context_for(AskedWorkload {
            context: Some(AskedContext::Max),
            ..AskedWorkload::default()
        }),
        131_072
    );
}

#[test]
fn shared_indexer_layers_cache_no_keys() {
    let glm = json!({
        "architectures": ["GlmMoeDsaForCausalLM"], "model_type": "glm_moe_dsa", "hidden_size": 6144,
        "intermediate_size": 12288, "num_hidden_layers": 4, "num_attention_heads": 64, "num_key_value_heads": 64,
        "vocab_size": 154_880, "max_position_embeddings": 202_752, "kv_lora_rank": 512, "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 192, "v_head_dim": 256, "q_lora_rank": 2048, "index_head_dim": 128, "index_n_heads": 32,
        "index_topk": 2048, "indexer_types": ["full", "shared", "shared", "full"], "torch_dtype": "bfloat16"
    });

    for (engine, dtype) in [("vllm", "fp8"), ("sglang", "fp8")] {
        let asked = AskedWorkload {
            kv_cache_dtype: Some(dtype.to_owned()),
            ..context(4096)
        };

        let bytes = ask((engine, &glm, &h100()), asked, &[], |prepared| {
            prepared.kv_bytes_per_token()
        })
        .unwrap();
        assert_eq!(bytes.get(), 4 * 656 + 2 * 132, "{engine}");
    }
}

#[test]
fn full_window_adds_no_token() {
    let mut sliding = llama();
    sliding["model_type"] = json!("mistral");
    sliding["architectures"] = json!(["MistralForCausalLM"]);
    sliding["sliding_window"] = json!(4096);

    let added_bytes = |tokens| {
        ask(
            ("vllm", &sliding, &h100()),
            context(tokens),
            &[],
            |prepared| prepared.kv_bytes_per_token(),
        )
        .unwrap()
    };

    // A window also holds the tokens in flight: 4096 + 2 x 8192 tokens.
    assert_eq!(added_bytes(16_384).get(), 131_072);
    assert_eq!(added_bytes(32_768), Bytes::ZERO);
}

#[test]
fn sglang_divides_budget_by_ratio() {
    let next = json!({
        "architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next", "hidden_size": 2048,
        "intermediate_size": 5120, "num_hidden_layers": 48, "num_attention_heads": 16, "num_key_value_heads": 2,
        "head_dim": 256, "vocab_size": 151_936, "max_position_embeddings": 262_144, "linear_num_key_heads": 16,
        "linear_num_value_heads": 32, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4, "full_attention_interval": 4, "num_experts": 512, "num_experts_per_tok": 10,
        "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512, "torch_dtype": "bfloat16"
    });
    let bytes_with = |parameters: &[(&str, Value)]| {
        ask(
            ("sglang", &next, &h100()),
            context(262_144),
            parameters,
            |prepared| {
                let parts = prepared
                    .variable(&Split::single(48), 0, &h100(), prepared.workload())
                    .unwrap();
                let bytes_of = |name| {
                    parts
                        .iter()
                        .filter(|part| part.name == name)
                        .map(|part| part.bytes.likely.get())
                        .sum()
                };

                let (tokens, states): (u64, u64) = (
                    bytes_of(ComponentName::KvCache),
                    bytes_of(ComponentName::State),
                );

                (tokens, states)
            },
        )
        .unwrap()
    };

    // 12 full layers x 2 heads x 512 x 2 bytes, plus one page of 1 token. States get 0.9 of the
    // tokens' bytes.
    let tokens: u64 = 24_576 * 262_145;
    assert_eq!(bytes_with(&[]), (tokens, (tokens * 9).div_ceil(10)));

    assert_eq!(
        bytes_with(&[("mamba_full_memory_ratio", json!(0.5))]),
        (tokens, tokens / 2)
    );
}

#[test]
fn unknown_quantization_is_unsupported() {
    let mut alien = llama();
    alien["quantization_config"] = json!({"quant_method": "alien", "bits": 3});

    for engine in ["vllm", "sglang"] {
        let answer = ask(
            (engine, &alien, &h100()),
            AskedWorkload::default(),
            &[],
            |_| (),
        );
        assert!(
            matches!(answer, Err(EngineError::Unsupported { ref why, .. }) if why.contains("alien")),
            "{engine}"
        );
    }
}
