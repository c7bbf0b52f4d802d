//! vLLM through the seam: launch lines, shares, legality, fitness, refusals and the time an answer
//! takes.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test's helpers")]

use std::collections::BTreeMap;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{DeviceFacts, DeviceKind};
use hf_mem_core::engines::component::device_sum;
use hf_mem_core::engines::{
    AskedContext, AskedWorkload, ComponentName, DeviceSupport, EngineError, EngineRequest, Engines,
    Launch, LaunchDevice, LaunchPlan, Offload, PreparedEngine, Split, by_name,
};
use hf_mem_core::model::tensors::InventoryBuilder;
use hf_mem_core::model::{Dtype, Format, Model, Storage, config};
use serde_json::{Value, json};

fn device(name: &str, mib: u64, capability: (u32, u32), multiprocessors: u32) -> DeviceFacts {
    DeviceFacts {
        uuid: format!("GPU-{name}"),
        index: 0,
        name: name.to_owned(),
        kind: DeviceKind::Gpu,
        total_bytes: Bytes::mib(mib),
        reserved_bytes: Some(Bytes::mib(400)),
        compute_capability: Some(capability),
        multiprocessors: Some(multiprocessors),
        parent_uuid: None,
        pci_bus_id: None,
        numa_node: None,
    }
}

fn h100() -> DeviceFacts {
    device("NVIDIA H100 80GB HBM3", 81_559, (9, 0), 132)
}

fn t4() -> DeviceFacts {
    device("Tesla T4", 15_360, (7, 5), 40)
}

fn llama(changes: &Value) -> Model {
    let mut settings = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256,
        "max_position_embeddings": 131_072, "tie_word_embeddings": false, "torch_dtype": "bfloat16"
    });
    for (key, value) in changes.as_object().unwrap() {
        settings[key] = value.clone();
    }

    let mut builder = InventoryBuilder::default();
    let mut put = |name: &str, shape: &[u64]| {
        let bytes = Dtype::BF16.stored(shape.iter().product()).unwrap();
        builder.add("", name, Storage::Known(Dtype::BF16), shape, bytes);
    };

    put("model.embed_tokens.weight", &[128_256, 4096]);
    put("lm_head.weight", &[128_256, 4096]);
    put("model.norm.weight", &[4096]);

    for layer in 0..32 {
        let mut at =
            |name: &str, shape: &[u64]| put(&format!("model.layers.{layer}.{name}.weight"), shape);
        at("input_layernorm", &[4096]);
        at("post_attention_layernorm", &[4096]);
        at("self_attn.q_proj", &[4096, 4096]);
        at("self_attn.k_proj", &[1024, 4096]);
        at("self_attn.v_proj", &[1024, 4096]);
        at("self_attn.o_proj", &[4096, 4096]);
        at("mlp.gate_proj", &[14_336, 4096]);
        at("mlp.up_proj", &[14_336, 4096]);
        at("mlp.down_proj", &[4096, 14_336]);
    }

    let inventory = builder.finish();
    Model {
        weight_files: 4,
        ..Model::bare(
            "meta-llama/Llama-3.1-8B-Instruct",
            Format::Safetensors,
            config::architecture(&settings, None, &inventory),
            inventory,
        )
    }
}

fn prepare<'a>(case: &EngineRequest<'a>) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
    static ENGINES: std::sync::LazyLock<Engines> =
        std::sync::LazyLock::new(|| Engines::embedded().unwrap());
    ENGINES.by_name("vllm").unwrap().prepare(case)
}

fn asked(context: u64, sequences: u64) -> AskedWorkload {
    AskedWorkload {
        context: Some(AskedContext::Tokens(context)),
        sequences: Some(sequences),
        ..AskedWorkload::default()
    }
}

/// The launch line on devices of which `available` bytes may be taken, and what is required of
/// each.
fn launch(
    parameters: &BTreeMap<String, Value>,
    devices: &[DeviceFacts],
    split: &Split,
    available: Bytes,
) -> (Launch, Vec<Bytes>) {
    let model = llama(&json!({}));
    let case = EngineRequest {
        model: &model,
        version: None,
        parameters,
        asked: asked(8192, 4),
        devices,
    };

    let prepared = prepare(&case).unwrap();
    let workload = prepared.workload();

    let required: Vec<Bytes> = devices
        .iter()
        .enumerate()
        .map(|(rank, device)| {
            let mut parts = prepared.fixed(split, rank, device).unwrap();
            parts.extend(prepared.variable(split, rank, device, workload).unwrap());
            device_sum(&parts).high
        })
        .collect();
    let devices: Vec<LaunchDevice<'_>> = devices
        .iter()
        .zip(&required)
        .map(|(facts, required)| LaunchDevice {
            facts,
            available,
            required: *required,
            free: Some(available),
        })
        .collect();

    (
        prepared.launch(&LaunchPlan {
            split,
            workload,
            devices: &devices,
        }),
        required,
    )
}

#[test]
fn a_shared_card_is_given_the_share_that_the_answer_needs() {
    let (launch, required) = launch(
        &BTreeMap::new(),
        &[h100()],
        &Split::single(32),
        Bytes::gib(40),
    );
    let line = launch.args.join(" ");
    assert!(
        line.starts_with("vllm serve meta-llama/Llama-3.1-8B-Instruct --max-model-len 8192"),
        "{line}"
    );

    let share: f64 = line
        .split("--gpu-memory-utilization ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!((0.25..0.5).contains(&share), "{line}");

    assert_eq!(
        launch.env["CUDA_VISIBLE_DEVICES"],
        "GPU-NVIDIA H100 80GB HBM3"
    );
    assert_eq!(launch.env["CUDA_DEVICE_ORDER"], "PCI_BUS_ID");
    let taken = launch.takes[0].unwrap();

    // It takes what was answered, to the step of the share, and never more than it may.
    assert!(
        taken >= required[0] && taken <= required[0] + Bytes::mib(16),
        "{taken} {}",
        required[0]
    );

    assert!(taken <= Bytes::gib(40));
}

#[test]
fn where_the_share_would_round_over_what_is_free_the_cache_is_given_in_bytes() {
    let (_, required) = launch(
        &BTreeMap::new(),
        &[h100()],
        &Split::single(32),
        Bytes::gib(40),
    );
    let (tight, _) = launch(&BTreeMap::new(), &[h100()], &Split::single(32), required[0]);
    let line = tight.args.join(" ");
    assert!(
        line.contains("--kv-cache-memory-bytes 4297064448"),
        "{line}"
    );

    // vLLM starts only where its share is free, even if that does not size the cache.
    let share = line
        .split("--gpu-memory-utilization ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    let taken_gib = h100().cuda_total().unwrap().as_gib() * share.parse::<f64>().unwrap();
    let free_gib = required[0].as_gib();
    assert!(taken_gib < free_gib && taken_gib > 0.9 * free_gib, "{line}");
    assert_eq!(tight.takes, [None]);
}

#[test]
fn tensor_and_uneven_pipeline_stages_reach_the_line() {
    let devices = [h100(), h100()];
    let (tensor, _) = launch(
        &BTreeMap::new(),
        &devices,
        &Split::tensor(2, 32),
        Bytes::gib(70),
    );

    assert!(tensor.args.join(" ").contains("--tensor-parallel-size 2"));
    let uneven = Split {
        tensor: 1,
        stages: vec![0..20, 20..32],
        expert_parallel: false,
        offload: Offload::None,
    };

    let (pipeline, _) = launch(&BTreeMap::new(), &devices, &uneven, Bytes::gib(70));
    assert!(
        pipeline
            .args
            .join(" ")
            .contains("--pipeline-parallel-size 2")
    );

    assert_eq!(pipeline.env["VLLM_PP_LAYER_PARTITION"], "20,12");
}

#[test]
fn asked_share_is_taken_as_whole() {
    let model = llama(&json!({}));
    let devices = [h100()];

    let share = |version, share: f64| {
        let parameters = BTreeMap::from([("gpu_memory_utilization".to_owned(), json!(share))]);
        let case = EngineRequest {
            model: &model,
            version,
            parameters: &parameters,
            asked: asked(8192, 1),
            devices: &devices,
        };

        let prepared = prepare(&case).unwrap();
        prepared.share(&Split::single(32), 0, &devices[0]).unwrap()
    };

    let total = devices[0].cuda_total().unwrap();
    let most = share(None, 0.9);
    assert_eq!(most.taken.high, total.scale(9, 10) + most.outside.high);

    assert_eq!(
        share(None, 0.1).taken.high,
        total.scale(1, 10) + most.outside.high
    );

    // Before 0.21 CUDA graphs lie outside of the share.
    let older = "0.19".parse().unwrap();
    assert!(share(Some(&older), 0.9).outside.high > most.outside.high + Bytes::mib(100));
    assert_eq!(most.to_string(), "gpu_memory_utilization = 0.9");
}

#[test]
fn splits_that_do_not_divide_are_refused_with_the_numbers() {
    let model =
        llama(&json!({"num_attention_heads": 24, "head_dim": 128, "num_key_value_heads": 8}));
    let parameters = BTreeMap::new();
    let devices = [h100()];

    let case = EngineRequest {
        model: &model,
        version: None,
        parameters: &parameters,
        asked: asked(8192, 1),
        devices: &devices,
    };

    let prepared = prepare(&case).unwrap();
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

    // Sixteen devices are left to pipelines.
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
fn blocks_of_fp8_experts_are_refined_or_left_whole() {
    // Experts 768 wide, as those of Qwen3-30B-A3B-FP8.
    let model = llama(&json!({
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "intermediate_size": 6144,
        "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8,
        "moe_intermediate_size": 768, "decoder_sparse_step": 1, "mlp_only_layers": [],
        "quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    }));

    let parameters = BTreeMap::new();
    let devices = [h100()];

    let case = EngineRequest {
        model: &model,
        version: None,
        parameters: &parameters,
        asked: asked(8192, 1),
        devices: &devices,
    };

    let prepared = prepare(&case).unwrap();

    // By 8 a rank has 96 columns: scales on a grid of 32. By 16 it has 48: only whole experts will
    // do.
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
fn a_users_constants_reach_the_figures() {
    let model = llama(&json!({}));
    let parameters = BTreeMap::new();
    let devices = [h100()];

    let case = EngineRequest {
        model: &model,
        version: None,
        parameters: &parameters,
        asked: asked(8192, 1),
        devices: &devices,
    };

    let table = "constants.block_tokens = 64".parse().unwrap();
    let engine = by_name("vllm")
        .unwrap()
        .with_constants(&table)
        .unwrap()
        .unwrap();
    assert_eq!(
        engine.prepare(&case).unwrap().parameters()["block_size"],
        json!(64)
    );
    let wrong = "constants.block_token = 64".parse().unwrap();
    let message = by_name("vllm")
        .unwrap()
        .with_constants(&wrong)
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("profiles.vllm.constants.block_token"),
        "{message}"
    );
}

#[test]
fn old_devices_fall_back_or_are_vetoed() {
    let parameters = BTreeMap::new();
    let devices = [t4()];

    let fitness = |changes: Value| {
        let model = llama(&changes);
        let case = EngineRequest {
            model: &model,
            version: None,
            parameters: &parameters,
            asked: asked(2048, 1),
            devices: &devices,
        };

        prepare(&case).unwrap().device_fitness(&devices[0])
    };

    assert!(matches!(fitness(json!({})), DeviceSupport::Degraded(why) if why.contains("float16")));
    let w8a8 = json!({"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"group_0": {
        "targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel"},
        "input_activations": {"num_bits": 8, "type": "float", "dynamic": true}}}});

    // `compressed_tensors.py` takes W8A16 below 8.9, and Marlin for experts.
    assert!(
        matches!(fitness(json!({"quantization_config": w8a8})), DeviceSupport::Degraded(why) if why.contains("weight-only"))
    );
    let fp8 = json!({"quant_method": "fp8", "activation_scheme": "dynamic"});
    assert!(
        matches!(fitness(json!({"quantization_config": fp8})), DeviceSupport::Degraded(why) if why.contains("weight-only"))
    );
    let old = device("Tesla P100", 16_384, (6, 0), 56);
    let model = llama(&json!({}));
    let case = EngineRequest {
        model: &model,
        version: None,
        parameters: &parameters,
        asked: asked(2048, 1),
        devices: &devices,
    };

    assert!(matches!(
        prepare(&case).unwrap().device_fitness(&old),
        DeviceSupport::Unable(_)
    ));
}

#[test]
fn defaults_follow_the_gpu() {
    let model = llama(&json!({}));
    let parameters = BTreeMap::new();

    let of = |device: DeviceFacts, version: Option<&str>| {
        let devices = [device];
        let version = version.map(|version| version.parse().unwrap());
        let case = EngineRequest {
            model: &model,
            version: version.as_ref(),
            parameters: &parameters,
            asked: asked(8192, 1),
            devices: &devices,
        };

        let all = prepare(&case).unwrap().parameters();
        (
            all["max_num_batched_tokens"].as_u64().unwrap(),
            all["max_num_seqs"].as_u64().unwrap(),
        )
    };

    assert_eq!(of(h100(), None), (8192, 1024));
    assert_eq!(of(t4(), None), (2048, 256));

    assert_eq!(
        of(device("NVIDIA A100-SXM4-80GB", 81_920, (8, 0), 108), None),
        (2048, 256)
    );
    assert_eq!(
        of(device("NVIDIA B200", 183_359, (10, 0), 148), None),
        (16_384, 1024)
    );
    assert_eq!(of(h100(), Some("0.8.5")), (8192, 256));
}

#[test]
fn what_cannot_be_meant_is_refused_by_name() {
    let model = llama(&json!({}));
    let devices = [h100()];

    let refuse = |name: &str, value: Value| {
        let parameters = BTreeMap::from([(name.to_owned(), value)]);
        let case = EngineRequest {
            model: &model,
            version: None,
            parameters: &parameters,
            asked: AskedWorkload::default(),
            devices: &devices,
        };

        prepare(&case).map(|_| ()).unwrap_err().to_string()
    };

    assert!(refuse("max_num_seq", json!(1)).contains("did you mean 'max_num_seqs'"));
    assert!(refuse("gpu_memory_utilization", json!(1.5)).contains("at most 1"));
    assert!(refuse("max_model_len", json!(200_000)).contains("131072"));
    assert!(refuse("kv_cache_dtype", json!("q8_0")).contains("fp8"));
    assert!(refuse("quantization", json!("awq")).contains("quantises at load"));
    assert!(refuse("quantization", json!("bitsandbytes")).contains("not in vLLM 0.33"));

    let unknown = Engines::embedded()
        .unwrap()
        .by_name("vlm")
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(unknown.contains("did you mean 'vllm'?"), "{unknown}");
}

#[test]
fn huge_values_refuse_or_overflow_and_never_panic() {
    let huge = u64::MAX;
    let wide = 1_u64 << 32;
    for changes in [
        json!({}),
        json!({"hidden_size": wide, "intermediate_size": wide, "vocab_size": wide, "num_attention_heads": wide, "head_dim": wide,
               "num_key_value_heads": wide, "max_position_embeddings": wide}),
        json!({"model_type": "mamba2", "state_size": wide, "n_groups": wide, "num_heads": wide, "head_dim": wide, "conv_kernel": wide}),
    ] {
        let model = llama(&changes);
        for engine in ["vllm", "sglang"] {
            for name in [
                "max_num_seqs",
                "max_num_batched_tokens",
                "block_size",
                "num_speculative_tokens",
                "max_lora_rank",
                "decode_context_parallel_size",
                "max_running_requests",
                "chunked_prefill_size",
                "page_size",
                "cuda_graph_max_bs",
            ] {
                let parameters = BTreeMap::from([
                    (name.to_owned(), json!(huge)),
                    ("enable_lora".to_owned(), json!(true)),
                ]);
                let parameters = if engine == "vllm" {
                    parameters
                } else {
                    BTreeMap::from([(name.to_owned(), json!(huge))])
                };

                let devices = [h100()];
                let asked = AskedWorkload {
                    sequences: Some(1),
                    ..AskedWorkload::default()
                };

                let case = EngineRequest {
                    model: &model,
                    version: None,
                    parameters: &parameters,
                    asked,
                    devices: &devices,
                };

                let Ok(prepared) = by_name(engine).unwrap().prepare(&case) else {
                    continue;
                };

                for split in prepared.splits(8).unwrap_or_default() {
                    let workload = hf_mem_core::engines::Workload {
                        context: huge,
                        sequences: huge,
                    };

                    for parts in [
                        prepared.fixed(&split, 0, &devices[0]),
                        prepared.variable(&split, 0, &devices[0], workload),
                    ] {
                        // What overflowed is larger than any device.
                        assert!(parts.is_err() || device_sum(&parts.unwrap()).high > Bytes::ZERO);
                    }
                }
            }
        }
    }
}

#[test]
fn parameters_move_the_figures_the_right_way() {
    let model = llama(&json!({}));
    let devices = [h100()];

    let by = |version: Option<&str>, pairs: &[(&str, Value)], name: ComponentName| {
        let parameters: BTreeMap<String, Value> = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect();
        let version = version.map(|version| version.parse().unwrap());
        let version = version.as_ref();
        let case = EngineRequest {
            model: &model,
            version,
            parameters: &parameters,
            asked: asked(8192, 1),
            devices: &devices,
        };

        let prepared = prepare(&case).unwrap();
        let parts = prepared.fixed(&Split::single(32), 0, &devices[0]).unwrap();

        parts
            .iter()
            .find(|part| part.name == name)
            .map_or(Bytes::ZERO, |part| part.bytes.likely)
    };

    let of = |pairs: &[(&str, Value)], name: ComponentName| by(None, pairs, name);
    assert_eq!(
        of(&[("enforce_eager", json!(true))], ComponentName::Graphs),
        Bytes::ZERO
    );

    assert!(
        of(&[("max_num_seqs", json!(64))], ComponentName::Activations)
            < of(&[], ComponentName::Activations)
    );
    let fp8 = of(&[("quantization", json!("fp8"))], ComponentName::Weights).as_gib();
    assert!((fp8 - 8.49).abs() < 0.01, "{fp8}");

    // Llama-3-8B took 5.3128 GiB (a vLLM start-up log); 3.1 has a RoPE table of 131,072 positions
    // instead of 8,192.
    let nf4 = by(
        Some("0.19"),
        &[("quantization", json!("bitsandbytes"))],
        ComponentName::Weights,
    )
    .as_gib();
    assert!((nf4 - 5.3128 - 0.0293).abs() < 0.01, "{nf4}");
    let offloaded = of(&[("cpu_offload_gb", json!(4))], ComponentName::Weights);
    assert_eq!(offloaded + Bytes::gib(4), of(&[], ComponentName::Weights));

    assert!(
        of(
            &[("enable_lora", json!(true)), ("max_loras", json!(4))],
            ComponentName::Runtime
        ) > of(&[], ComponentName::Runtime)
    );
}

#[test]
fn sixteen_devices_are_planned_on_every_rank() {
    let model = llama(&json!({}));
    let parameters = BTreeMap::new();
    let devices: Vec<DeviceFacts> = (0..16).map(|_| h100()).collect();

    let case = EngineRequest {
        model: &model,
        version: None,
        parameters: &parameters,
        asked: asked(8192, 1),
        devices: &devices,
    };

    let prepared = prepare(&case).unwrap();
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
