//! What was asked is what is answered for: no parameter is taken in silence, none that the engine
//! refuses is accepted, and defaults are the engine's own.

#![allow(clippy::unwrap_used, reason = "a test's helpers")]

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

/// Asks `engine` of `config` on `device`.
fn ask<T>(
    (engine, config, device): (&str, &Value, &DeviceFacts),
    asked: AskedWorkload,
    parameters: &[(&str, Value)],
    then: impl FnOnce(&dyn PreparedEngine) -> T,
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

    Ok(then(&*prepared))
}

fn refused(engine: &str, name: &str, value: &Value) -> String {
    let asked = ask(
        (engine, &llama(), &h100()),
        AskedWorkload::default(),
        &[(name, value.clone())],
        |_| (),
    );

    match asked {
        Err(error @ EngineError::BadParameter { .. }) => error.to_string(),
        other => format!("not refused: {other:?}"),
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
fn a_parameter_that_no_figure_follows_is_refused() {
    for (engine, name) in [
        ("vllm", "kv_cache_memory_bytes"),
        ("vllm", "tensor_parallel_size"),
        ("sglang", "max_total_tokens"),
        ("sglang", "tp_size"),
        ("sglang", "tensor-parallel-size"),
    ] {
        let said = refused(engine, name, &json!(2));
        assert!(
            said.contains(name) && !said.starts_with("not refused"),
            "{said}"
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
        let Err(EngineError::UnsupportedParameter { name: said, .. }) = asked else {
            panic!("{engine} {name}: {asked:?}")
        };

        assert_eq!(said, name);
    }
}

#[test]
fn parameters_without_memory_change_nothing() {
    let figures = |engine: &str, parameters: &[(&str, Value)]| {
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
            figures(engine, &parameters).unwrap(),
            figures(engine, &[]).unwrap(),
            "{engine}"
        );
    }
}

#[test]
fn every_engine_reads_its_list() {
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

        let case = EngineRequest {
            model: &model,
            version: None,
            parameters: &parameters,
            asked,
            devices: &devices,
        };

        let refused = by_name(engine).unwrap().prepare(&case).err();
        assert!(
            matches!(refused, Some(EngineError::UnknownParameter { .. })),
            "{engine}: {refused:?}"
        );
    }
}

#[test]
fn vllm_parameters_belong_to_releases() {
    let (model, devices) = (model(&llama()), [h100()]);
    let refused = |name: &str, version: Option<&str>| {
        let parameters = BTreeMap::from([(name.to_owned(), json!(1))]);
        let version = version.map(|version| version.parse().unwrap());
        let (version, asked) = (version.as_ref(), AskedWorkload::default());
        let case = EngineRequest {
            model: &model,
            version,
            parameters: &parameters,
            asked,
            devices: &devices,
        };

        by_name("vllm")
            .unwrap()
            .prepare(&case)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };

    assert!(refused("kv_offloading_size", Some("0.7")).contains("releases from"));
    assert!(refused("swap_space", None).contains("only releases before 0.21 have it"));
    assert!(refused("swap_space", Some("0.8.5")).contains("not counted yet"));
}

#[test]
fn question_rejects_text_that_is_no_version() {
    let read = |version: &str| {
        let body =
            json!({"model": {"repo": "a/b"}, "engine": {"name": "vllm", "version": version}});
        serde_json::from_value::<Question>(body)
            .map(|question| json!(question)["engine"]["version"].clone())
    };

    assert_eq!(read("v0.33.0+cu128").unwrap(), "v0.33.0+cu128");
    assert!(
        read("banana")
            .unwrap_err()
            .to_string()
            .contains("'banana' is no version")
    );
}

#[test]
fn vllm_takes_no_block_or_step_that_it_would_refuse() {
    assert!(refused("vllm", "block_size", &json!(7)).contains("multiple of 16"));
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

    // A number of sequences that nobody asked for gives way to the tokens of a step.
    let step = [("max_num_batched_tokens", json!(512))];
    let most = ask(
        ("vllm", &llama(), &h100()),
        AskedWorkload::default(),
        &step,
        |prepared| prepared.parameters().get("max_num_seqs").cloned(),
    );

    assert_eq!(most.unwrap(), Some(json!(512)));
}

#[test]
fn bfloat16_asked_for_by_the_workload_is_refused_below_8_0() {
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
fn a_dtype_asked_for_is_on_the_launch_line() {
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

        let at = launch
            .args
            .iter()
            .position(|argument| argument == "--dtype")
            .unwrap();
        assert_eq!(
            launch.args.get(at + 1).map(String::as_str),
            Some("float32"),
            "{engine}"
        );
    }
}

#[test]
fn a_longrope_model_is_served_at_the_context_before_its_stretching() {
    let phi = json!({
        "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32_064,
        "max_position_embeddings": 131_072, "original_max_position_embeddings": 4096, "torch_dtype": "bfloat16",
        "rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}
    });
    let at = |asked| {
        ask(("vllm", &phi, &h100()), asked, &[], |prepared| {
            prepared.workload().context
        })
        .unwrap()
    };

    assert_eq!(at(AskedWorkload::default()), 4096);
    assert_eq!(at(context(65_536)), 65_536);

    assert_eq!(
        at(AskedWorkload {
            context: Some(AskedContext::Max),
            ..AskedWorkload::default()
        }),
        131_072
    );
}

#[test]
fn layers_that_share_an_indexers_choice_keep_sparse_latents_without_keys() {
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
fn one_more_token_is_kept_while_windows_are_not_full() {
    let mut sliding = llama();
    sliding["model_type"] = json!("mistral");
    sliding["architectures"] = json!(["MistralForCausalLM"]);
    sliding["sliding_window"] = json!(4096);

    let at = |tokens| {
        ask(
            ("vllm", &sliding, &h100()),
            context(tokens),
            &[],
            |prepared| prepared.kv_bytes_per_token(),
        )
        .unwrap()
    };

    // A window keeps what is in flight besides: 4096 + 2 x 8192 tokens.
    assert_eq!(at(16_384).get(), 131_072);
    assert_eq!(at(32_768), Bytes::ZERO);
}

#[test]
fn sglang_cuts_its_budget_between_states_and_tokens() {
    let next = json!({
        "architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next", "hidden_size": 2048,
        "intermediate_size": 5120, "num_hidden_layers": 48, "num_attention_heads": 16, "num_key_value_heads": 2,
        "head_dim": 256, "vocab_size": 151_936, "max_position_embeddings": 262_144, "linear_num_key_heads": 16,
        "linear_num_value_heads": 32, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4, "full_attention_interval": 4, "num_experts": 512, "num_experts_per_tok": 10,
        "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512, "torch_dtype": "bfloat16"
    });
    let parts = |parameters: &[(&str, Value)]| {
        ask(
            ("sglang", &next, &h100()),
            context(262_144),
            parameters,
            |prepared| {
                let parts = prepared
                    .variable(&Split::single(48), 0, &h100(), prepared.workload())
                    .unwrap();
                let of = |name| {
                    parts
                        .iter()
                        .filter(|part| part.name == name)
                        .map(|part| part.bytes.likely.get())
                        .sum()
                };

                let (tokens, states): (u64, u64) =
                    (of(ComponentName::KvCache), of(ComponentName::State));

                (tokens, states)
            },
        )
        .unwrap()
    };

    // 12 full layers x 2 heads x 512 x 2 bytes, one page of 1 token besides; states get 0.9 of what
    // tokens get.
    let tokens: u64 = 24_576 * 262_145;
    assert_eq!(parts(&[]), (tokens, (tokens * 9).div_ceil(10)));

    assert_eq!(
        parts(&[("mamba_full_memory_ratio", json!(0.5))]),
        (tokens, tokens / 2)
    );
}

#[test]
fn a_quantisation_that_nobody_knows_is_not_answered_for() {
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
