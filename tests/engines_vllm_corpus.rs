//! Every model of the metadata folder `../shared/hub` through vLLM and SGLang.
//!
//! Each gets an answer or a reason, and its weights agree with the stored bytes. Without the folder
//! the test is skipped.

#![allow(clippy::print_stdout, reason = "prints what it skips")]

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{DeviceFacts, DeviceKind};
use hf_mem_core::engines::{
    AskedWorkload, ComponentName, EngineError, EngineRequest, PreparedEngine, Split, by_name,
};
use hf_mem_core::model::architecture::Task;
use hf_mem_core::model::tensors::InventoryBuilder;
use hf_mem_core::model::{Architecture, Dtype, Format, Model, Storage, config};
use serde_json::Value;

fn h200() -> DeviceFacts {
    DeviceFacts {
        uuid: "GPU-0".to_owned(),
        index: 0,
        name: "NVIDIA H200".to_owned(),
        kind: DeviceKind::Gpu,
        total_bytes: Bytes::mib(143_771),
        reserved_bytes: Some(Bytes::mib(600)),
        compute_capability: Some((9, 0)),
        multiprocessors: Some(132),
        parent_uuid: None,
        pci_bus_id: None,
        numa_node: None,
    }
}

fn read_json(folder: &Path, name: &str) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(folder.join(name)).ok()?).ok()
}

/// The model whose metadata `folder` holds.
fn read_model(folder: &Path, repo: &str) -> Option<Model> {
    let settings = read_json(folder, "config.json")?;
    let mut text = String::new();
    let file = std::fs::File::open(folder.join("tensors.json.gz")).ok()?;
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .ok()?;
    let rows: Vec<(String, String, String, Vec<u64>)> = serde_json::from_str(&text).ok()?;
    let mut builder = InventoryBuilder::default();
    for (_, name, dtype, shape) in &rows {
        let dtype = Dtype::from_safetensors(dtype)?;
        builder.add(
            "",
            name,
            Storage::Known(dtype),
            shape,
            dtype.stored(shape.iter().product())?,
        );
    }

    let inventory = builder.finish();
    Some(Model::bare(
        repo,
        Format::Safetensors,
        config::architecture(
            &settings,
            read_json(folder, "hf_quant_config.json").as_ref(),
            &inventory,
        ),
        inventory,
    ))
}

fn models() -> Vec<Model> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/hub/models");
    let Ok(owners) = std::fs::read_dir(root) else {
        println!("skipped: no metadata folder");
        return Vec::new();
    };

    let mut found = Vec::new();
    for owner in owners.flatten() {
        for name in std::fs::read_dir(owner.path())
            .into_iter()
            .flatten()
            .flatten()
        {
            let repo = format!(
                "{}/{}",
                owner.file_name().display(),
                name.file_name().display()
            );
            found.extend(read_model(&name.path(), &repo));
        }
    }

    found.sort_by(|a, b| a.identity.repo.cmp(&b.identity.repo));
    found
}

/// Refusals: a part of the repository's name, a part of the engine's name, a word of the reason.
const REFUSED: &[(&str, &str, &str)] = &[
    ("mlx-community/", "", "MLX"),
    ("bnb-4bit", "vllm", "bitsandbytes"),
    ("Vision-Instruct", "vllm", "dropped"),
    ("Qwen/Qwen-7B", "vllm", "dropped"),
    ("Baichuan2-7B-Base", "vllm", "dropped"),
    ("facebook/hubert", "", "hubert"),
    ("DeepSeek-V4", "sglang", "compress_ratios"),
    ("Llama-3.1-405B-Instruct-FP8", "sglang", "fbgemm_fp8"),
    ("Baichuan2-7B-Base", "", "no tensor"),
];

fn is_expected_refusal(engine: &str, repo: &str, why: &str) -> bool {
    REFUSED.iter().any(|(repo_part, engine_part, word)| {
        repo.contains(repo_part) && engine.contains(engine_part) && why.contains(word)
    })
}

/// Weights on the first rank of `split`, in bytes.
fn weight_bytes(
    prepared: &dyn PreparedEngine,
    split: &Split,
    device: &DeviceFacts,
) -> Result<u64, EngineError> {
    let parts = prepared.fixed(split, 0, device)?;
    let weights = parts
        .iter()
        .find(|part| part.name == ComponentName::Weights);
    Ok(weights.map_or(0, |part| part.bytes.likely.get()))
}

/// Checks one model with one engine; the error is the reason of a refusal, or the wrong figure.
fn check_model(
    engine: &str,
    model: &Model,
    device: &DeviceFacts,
) -> Result<(), Box<dyn std::error::Error>> {
    let parameters = BTreeMap::new();
    let request = EngineRequest {
        model,
        version: None,
        parameters: &parameters,
        asked: AskedWorkload::default(),
        devices: std::slice::from_ref(device),
    };

    let prepared = by_name(engine)?.prepare(&request)?;
    let prepared = prepared.as_ref();
    let architecture = model.architecture.as_ref().map_err(ToString::to_string)?;
    let layers = architecture.layer_count();

    let single = weight_bytes(prepared, &Split::single(layers), device)?;
    let stored = model.inventory.bytes().get();

    // At least half (32 bits cast to 16, masks left out), and at most a tenth above (tables,
    // padding, copies).
    if single < stored / 100 * 45 || single > stored / 100 * 110 {
        return Err(format!("{single} bytes of weights, {stored} are stored").into());
    }

    for tensor in [2, 4, 8] {
        let split = Split::tensor(tensor, layers);
        if prepared.check(&split).is_ok() {
            check_split(prepared, architecture, &split, device, single)?;
        }
    }

    let parts = prepared.variable(&Split::single(layers), 0, device, prepared.workload())?;
    let has_cache = parts.iter().any(|part| part.name == ComponentName::KvCache);
    if architecture.task == Task::Generate && !has_cache {
        return Err("no cache".into());
    }

    Ok(())
}

/// Checks the weights of all ranks of `split` against the `single` device's.
fn check_split(
    prepared: &dyn PreparedEngine,
    architecture: &Architecture,
    split: &Split,
    device: &DeviceFacts,
    single: u64,
) -> Result<(), Box<dyn std::error::Error>> {
    let tensor = u64::from(split.tensor);
    let all = weight_bytes(prepared, split, device)? * tensor;
    let whole_experts = Split {
        expert_parallel: true,
        ..split.clone()
    };

    if architecture.experts.is_some() && prepared.check(&whole_experts).is_ok() {
        let experts = weight_bytes(prepared, &whole_experts, device)? * tensor;
        if experts.abs_diff(all) > all / 20 {
            return Err(format!(
                "{experts} bytes with whole experts by {tensor}, {all} with slices"
            )
            .into());
        }
    }

    // Ranks replicate RoPE tables (all but a third of a 2B model's at TP8), latents' inputs, norms
    // and KV heads.
    if all < single || all > single / 100 * 145 {
        return Err(format!("TP{tensor}: {all} bytes on all ranks, {single} on one").into());
    }

    Ok(())
}

#[test]
fn every_model_has_answer_or_reason() {
    let device = h200();
    let mut answered = 0;

    for model in models() {
        for engine in ["vllm", "sglang"] {
            let repo = &model.identity.repo;
            match check_model(engine, &model, &device) {
                Ok(()) => answered += 1,
                Err(why) => assert!(
                    is_expected_refusal(engine, repo, &why.to_string()),
                    "{engine} {repo}: {why}"
                ),
            }
        }
    }

    println!("{answered} answers");
}
