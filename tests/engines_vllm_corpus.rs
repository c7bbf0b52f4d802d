//! Every model of the metadata folder `../shared/hub`, where it is there, through vLLM and SGLang:
//! an answer or a reason, and weights that agree with what is stored.

#![allow(clippy::print_stdout, reason = "says what it skips")]

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{DeviceFacts, DeviceKind};
use hf_mem_core::engines::{
    AskedWorkload, ComponentName, EngineError, EngineRequest, Split, by_name,
};
use hf_mem_core::model::architecture::Task;
use hf_mem_core::model::tensors::InventoryBuilder;
use hf_mem_core::model::{Dtype, Format, Model, Storage, config};
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

fn read(folder: &Path, repo: &str) -> Option<Model> {
    let json = |name: &str| -> Option<Value> {
        serde_json::from_slice(&std::fs::read(folder.join(name)).ok()?).ok()
    };

    let settings = json("config.json")?;
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
        config::architecture(&settings, json("hf_quant_config.json").as_ref(), &inventory),
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
            found.extend(read(&name.path(), &repo));
        }
    }

    found.sort_by(|a, b| a.identity.repo.cmp(&b.identity.repo));
    found
}

/// Who is refused, by whom, and a word of the reason.
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

fn expected(engine: &str, repo: &str, why: &str) -> bool {
    REFUSED
        .iter()
        .any(|(part, by, word)| repo.contains(part) && engine.contains(by) && why.contains(word))
}

/// One model through one engine: the reason of a refusal, or what is wrong with the answer.
fn hold(engine: &str, model: &Model, device: &DeviceFacts) -> Result<(), String> {
    let parameters = BTreeMap::new();
    let devices = std::slice::from_ref(device);

    let case = EngineRequest {
        model,
        version: None,
        parameters: &parameters,
        asked: AskedWorkload::default(),
        devices,
    };

    let say = |error: EngineError| error.to_string();
    let prepared = by_name(engine).map_err(say)?.prepare(&case).map_err(say)?;

    let layers = model
        .architecture
        .as_ref()
        .map_err(ToString::to_string)?
        .layer_count();

    let weights = |split: &Split| -> Result<u64, String> {
        let parts = prepared.fixed(split, 0, device).map_err(say)?;
        let part = parts
            .iter()
            .find(|part| part.name == ComponentName::Weights);
        Ok(part.map_or(0, |part| part.bytes.likely.get()))
    };

    let single = weights(&Split::single(layers))?;
    let stored = model.inventory.bytes().get();

    // Not less than half (32 bits cast to 16, masks left out), not more than a tenth above (tables,
    // padding, copies).
    if single < stored / 100 * 45 || single > stored / 100 * 110 {
        return Err(format!("{single} bytes of weights, {stored} are stored"));
    }

    for tensor in [2, 4, 8] {
        let split = Split::tensor(tensor, layers);
        if prepared.check(&split).is_err() {
            continue;
        }

        let all = weights(&split)? * u64::from(tensor);
        let whole = Split {
            expert_parallel: true,
            ..split.clone()
        };

        if model
            .architecture
            .as_ref()
            .is_ok_and(|a| a.experts.is_some())
            && prepared.check(&whole).is_ok()
        {
            let experts = weights(&whole)? * u64::from(tensor);
            if experts.abs_diff(all) > all / 20 {
                return Err(format!(
                    "{experts} bytes with whole experts by {tensor}, {all} with slices"
                ));
            }
        }
        // Replicated: RoPE tables (all but a third of a 2B model's at TP8), latents' inputs, norms,
        // KV heads.
        if all < single || all > single / 100 * 145 {
            return Err(format!(
                "TP{tensor}: {all} bytes on all ranks, {single} on one"
            ));
        }
    }

    let parts = prepared
        .variable(&Split::single(layers), 0, device, prepared.workload())
        .map_err(say)?;
    let cached = parts.iter().any(|part| part.name == ComponentName::KvCache);

    let generates = model
        .architecture
        .as_ref()
        .is_ok_and(|architecture| architecture.task == Task::Generate);

    if generates && !cached {
        Err("no cache".to_owned())
    } else {
        Ok(())
    }
}

#[test]
fn every_model_is_answered_or_refused_with_a_reason() {
    let device = h200();
    let mut answered = 0;

    for model in models() {
        for engine in ["vllm", "sglang"] {
            let repo = &model.identity.repo;
            match hold(engine, &model, &device) {
                Ok(()) => answered += 1,
                Err(why) => assert!(expected(engine, repo, &why), "{engine} {repo}: {why}"),
            }
        }
    }

    println!("{answered} answers");
}
