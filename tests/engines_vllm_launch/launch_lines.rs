//! Launch lines, and the share of the device that they take.

use std::collections::BTreeMap;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::engines::{EngineRequest, Offload, Split};
use serde_json::json;

use super::{asked, h100, launch, llama, prepare};

#[test]
fn shared_card_gets_needed_share() {
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

    // vLLM takes what the answer says, rounded up to a step of the share, and never more than is
    // available.
    assert!(
        taken >= required[0] && taken <= required[0] + Bytes::mib(16),
        "{taken} {}",
        required[0]
    );

    assert!(taken <= Bytes::gib(40));
}

#[test]
fn tight_card_gets_cache_in_bytes() {
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

    // vLLM starts only if its share is free, even if the share does not size the cache.
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
fn splits_reach_launch_line() {
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
fn asked_share_is_taken_whole() {
    let model = llama(&json!({}));
    let devices = [h100()];

    let share = |version, share: f64| {
        let parameters = BTreeMap::from([("gpu_memory_utilization".to_owned(), json!(share))]);
        let request = EngineRequest {
            model: &model,
            version,
            parameters: &parameters,
            asked: asked(8192, 1),
            devices: &devices,
        };

        let prepared = prepare(&request).unwrap();
        prepared.share(&Split::single(32), 0, &devices[0]).unwrap()
    };

    let total = devices[0].cuda_total().unwrap();
    let most = share(None, 0.9);
    assert_eq!(most.taken.high, total.scale(9, 10) + most.outside.high);

    assert_eq!(
        share(None, 0.1).taken.high,
        total.scale(1, 10) + most.outside.high
    );

    // Before 0.21 CUDA graphs are outside the share.
    let older = "0.19".parse().unwrap();
    assert!(share(Some(&older), 0.9).outside.high > most.outside.high + Bytes::mib(100));
    assert_eq!(most.to_string(), "gpu_memory_utilization = 0.9");
}
