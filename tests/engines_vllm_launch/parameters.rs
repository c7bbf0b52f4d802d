//! Parameters, their defaults by device, and refusals.

use std::collections::BTreeMap;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::DeviceFacts;
use hf_mem_core::engines::component::device_sum;
use hf_mem_core::engines::{
    AskedWorkload, ComponentName, DeviceSupport, EngineRequest, Engines, Split, by_name,
};
use serde_json::{Value, json};

use super::{asked, device, h100, llama, prepare, t4};

#[test]
fn user_constants_reach_figures() {
    let model = llama(&json!({}));
    let parameters = BTreeMap::new();
    let devices = [h100()];

    let request = EngineRequest {
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
        engine.prepare(&request).unwrap().parameters()["block_size"],
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
fn old_devices_degrade_or_fail() {
    let parameters = BTreeMap::new();
    let devices = [t4()];

    let device_support = |changes: Value| {
        let model = llama(&changes);
        let request = EngineRequest {
            model: &model,
            version: None,
            parameters: &parameters,
            asked: asked(2048, 1),
            devices: &devices,
        };

        prepare(&request).unwrap().device_fitness(&devices[0])
    };

    assert!(
        matches!(device_support(json!({})), DeviceSupport::Degraded(why) if why.contains("float16"))
    );

    let uses_weight_only_kernels = |quantization: Value| {
        let verdict = device_support(json!({"quantization_config": quantization}));
        matches!(verdict, DeviceSupport::Degraded(cost) if cost.contains("weight-only"))
    };

    // Below 8.9 `compressed_tensors.py` selects W8A16, and Marlin for experts.
    assert!(uses_weight_only_kernels(json!({
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "config_groups": {"group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "float", "strategy": "channel"},
            "input_activations": {"num_bits": 8, "type": "float", "dynamic": true}
        }}
    })));
    assert!(uses_weight_only_kernels(
        json!({"quant_method": "fp8", "activation_scheme": "dynamic"})
    ));

    let old = device("Tesla P100", 16_384, (6, 0), 56);
    let model = llama(&json!({}));
    let request = EngineRequest {
        model: &model,
        version: None,
        parameters: &parameters,
        asked: asked(2048, 1),
        devices: &devices,
    };

    assert!(matches!(
        prepare(&request).unwrap().device_fitness(&old),
        DeviceSupport::Unable(_)
    ));
}

#[test]
fn defaults_follow_gpu() {
    let model = llama(&json!({}));
    let parameters = BTreeMap::new();

    let defaults = |device: DeviceFacts, version: Option<&str>| {
        let devices = [device];
        let version = version.map(|version| version.parse().unwrap());
        let request = EngineRequest {
            model: &model,
            version: version.as_ref(),
            parameters: &parameters,
            asked: asked(8192, 1),
            devices: &devices,
        };

        let all = prepare(&request).unwrap().parameters();
        (
            all["max_num_batched_tokens"].as_u64().unwrap(),
            all["max_num_seqs"].as_u64().unwrap(),
        )
    };

    assert_eq!(defaults(h100(), None), (8192, 1024));
    assert_eq!(defaults(t4(), None), (2048, 256));

    assert_eq!(
        defaults(device("NVIDIA A100-SXM4-80GB", 81_920, (8, 0), 108), None),
        (2048, 256)
    );
    assert_eq!(
        defaults(device("NVIDIA B200", 183_359, (10, 0), 148), None),
        (16_384, 1024)
    );
    assert_eq!(defaults(h100(), Some("0.8.5")), (8192, 256));
}

#[test]
fn bad_parameters_are_refused() {
    let model = llama(&json!({}));
    let devices = [h100()];

    let refusal = |name: &str, value: Value| {
        let parameters = BTreeMap::from([(name.to_owned(), value)]);
        let request = EngineRequest {
            model: &model,
            version: None,
            parameters: &parameters,
            asked: AskedWorkload::default(),
            devices: &devices,
        };

        prepare(&request).map(|_| ()).unwrap_err().to_string()
    };

    assert!(refusal("max_num_seq", json!(1)).contains("did you mean 'max_num_seqs'"));
    assert!(refusal("gpu_memory_utilization", json!(1.5)).contains("at most 1"));
    assert!(refusal("max_model_len", json!(200_000)).contains("131072"));
    assert!(refusal("kv_cache_dtype", json!("q8_0")).contains("fp8"));
    assert!(refusal("quantization", json!("awq")).contains("quantizes at load"));
    assert!(refusal("quantization", json!("bitsandbytes")).contains("not in vLLM 0.33"));

    let unknown = Engines::embedded()
        .unwrap()
        .by_name("vlm")
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(unknown.contains("did you mean 'vllm'?"), "{unknown}");
}

#[test]
fn huge_values_never_panic() {
    let huge = u64::MAX;
    let wide = 1_u64 << 32;
    for changes in [
        json!({}),
        json!({"hidden_size": wide, "intermediate_size": wide, "vocab_size": wide,
            "num_attention_heads": wide, "head_dim": wide, "num_key_value_heads": wide,
            "max_position_embeddings": wide}),
        json!({"model_type": "mamba2", "state_size": wide, "n_groups": wide, "num_heads": wide,
            "head_dim": wide, "conv_kernel": wide}),
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

                let request = EngineRequest {
                    model: &model,
                    version: None,
                    parameters: &parameters,
                    asked,
                    devices: &devices,
                };

                let Ok(prepared) = by_name(engine).unwrap().prepare(&request) else {
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
                        // An overflow is an error, or larger than any device.
                        assert!(parts.is_err() || device_sum(&parts.unwrap()).high > Bytes::ZERO);
                    }
                }
            }
        }
    }
}

#[test]
fn parameters_move_figures() {
    let model = llama(&json!({}));
    let devices = [h100()];

    let component_of = |version: Option<&str>, pairs: &[(&str, Value)], name: ComponentName| {
        let parameters: BTreeMap<String, Value> = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect();
        let version = version.map(|version| version.parse().unwrap());
        let version = version.as_ref();
        let request = EngineRequest {
            model: &model,
            version,
            parameters: &parameters,
            asked: asked(8192, 1),
            devices: &devices,
        };

        let prepared = prepare(&request).unwrap();
        let parts = prepared.fixed(&Split::single(32), 0, &devices[0]).unwrap();

        parts
            .iter()
            .find(|part| part.name == name)
            .map_or(Bytes::ZERO, |part| part.bytes.likely)
    };

    let component = |pairs: &[(&str, Value)], name: ComponentName| component_of(None, pairs, name);
    assert_eq!(
        component(&[("enforce_eager", json!(true))], ComponentName::Graphs),
        Bytes::ZERO
    );

    assert!(
        component(&[("max_num_seqs", json!(64))], ComponentName::Activations)
            < component(&[], ComponentName::Activations)
    );
    let fp8 = component(&[("quantization", json!("fp8"))], ComponentName::Weights).as_gib();
    assert!((fp8 - 8.49).abs() < 0.01, "{fp8}");

    // Llama-3-8B takes 5.3128 GiB (a vLLM start-up log); 3.1 has a RoPE table of 131,072 positions
    // instead of 8,192.
    let nf4 = component_of(
        Some("0.19"),
        &[("quantization", json!("bitsandbytes"))],
        ComponentName::Weights,
    )
    .as_gib();
    assert!((nf4 - 5.3128 - 0.0293).abs() < 0.01, "{nf4}");
    let offloaded = component(&[("cpu_offload_gb", json!(4))], ComponentName::Weights);
    assert_eq!(
        offloaded + Bytes::gib(4),
        component(&[], ComponentName::Weights)
    );

    assert!(
        component(
            &[("enable_lora", json!(true)), ("max_loras", json!(4))],
            ComponentName::Runtime
        ) > component(&[], ComponentName::Runtime)
    );
}
