//! transformers' own caches and weights against the engine's answers.
//!
//! The rows of `../shared/measured` hold the bytes of the cache object after one forward pass on
//! the meta device. `HF_MEM_CACHE_ROWS` names another file of such rows, as `referees/transformers`
//! prints them. Without rows the test is skipped.

#![allow(clippy::print_stdout, reason = "people read the table of rows")]

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{DeviceFacts, DeviceKind};
use hf_mem_core::engines::{
    AskedContext, AskedWorkload, ComponentName, EngineRequest, Interval, Split, by_name,
};
use hf_mem_core::model::tensors::InventoryBuilder;
use hf_mem_core::model::{Format, Model, config, safetensors};
use serde_json::Value;

type Failure = Box<dyn std::error::Error>;

/// How a figure compares to the row's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Equal,
    Inside,
    Near,
    Wrong,
    Refused,
}

/// The answer's weights and caches for one row.
struct Figures {
    weights: Interval,
    caches: Interval,
}

fn h200() -> DeviceFacts {
    DeviceFacts {
        uuid: "GPU-0".to_owned(),
        index: 0,
        name: "NVIDIA H200".to_owned(),
        kind: DeviceKind::Gpu,
        total_bytes: Bytes::mib(143_771),
        reserved_bytes: None,
        compute_capability: Some((9, 0)),
        multiprocessors: Some(132),
        parent_uuid: None,
        pci_bus_id: None,
        numa_node: None,
    }
}

/// The rows of a file and the folder that their `folder` is relative to; `None` without the file.
fn rows() -> Option<(Vec<Value>, PathBuf)> {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let (file, root) = match std::env::var_os("HF_MEM_CACHE_ROWS").map(PathBuf::from) {
        Some(file) => {
            let root = file.parent().map(Path::to_owned).unwrap_or_default();
            (file, root)
        }
        None => (
            shared.join("measured/transformers_5.24_caches.jsonl"),
            shared.join("hub"),
        ),
    };

    let text = std::fs::read_to_string(file).ok()?;
    let rows = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    Some((rows, root))
}

/// The model of a row: its configuration and the header of its weights.
fn read_model(folder: &Path) -> Result<Model, Failure> {
    let settings: Value = serde_json::from_slice(&std::fs::read(folder.join("config.json"))?)?;
    let mut header = Vec::new();
    let file = std::fs::File::open(folder.join("model.safetensors.header.gz"))?;
    flate2::read::GzDecoder::new(file).read_to_end(&mut header)?;

    let length = usize::try_from(safetensors::header_length(&header, None)?)?;
    let json = header.get(8..8 + length).ok_or("a short header")?;
    let mut builder = InventoryBuilder::default();
    safetensors::parse(json, None)?.add_to("", &mut builder);

    let inventory = builder.finish();
    let architecture = config::architecture(&settings, None, &inventory);
    Ok(Model::bare(
        "",
        Format::Safetensors,
        architecture,
        inventory,
    ))
}

/// The figures of `engine` for a row's model and tokens.
fn figures(engine: &str, model: &Model, tokens: u64) -> Result<Figures, Failure> {
    let device = h200();
    let parameters = BTreeMap::new();
    let request = EngineRequest {
        model,
        version: None,
        parameters: &parameters,
        asked: AskedWorkload {
            context: Some(AskedContext::Tokens(tokens)),
            ..AskedWorkload::default()
        },
        devices: std::slice::from_ref(&device),
    };

    let prepared = by_name(engine)?.prepare(&request)?;
    let architecture = model.architecture.as_ref().map_err(ToString::to_string)?;
    let split = Split::single(architecture.layer_count());
    let fixed = prepared.fixed(&split, 0, &device)?;
    let variable = prepared.variable(&split, 0, &device, prepared.workload())?;
    let sum_of = |names: &[ComponentName]| {
        fixed
            .iter()
            .chain(&variable)
            .filter(|part| names.contains(&part.name))
            .map(|part| part.bytes)
            .sum::<Interval>()
    };

    Ok(Figures {
        weights: sum_of(&[ComponentName::Weights]),
        caches: sum_of(&[ComponentName::KvCache, ComponentName::State]),
    })
}

fn verdict(ours: Interval, theirs: u64) -> Verdict {
    let is_near = |bytes: Bytes| bytes.get().abs_diff(theirs) <= theirs / 50;
    if ours.likely.get() == theirs {
        Verdict::Equal
    } else if (ours.low.get()..=ours.high.get()).contains(&theirs) {
        Verdict::Inside
    } else if is_near(ours.low) || is_near(ours.high) {
        Verdict::Near
    } else {
        Verdict::Wrong
    }
}

/// Verdicts on the weights and, if the row has one, the cache.
fn verdicts(row: &Value, root: &Path) -> Result<Vec<(&'static str, Verdict)>, Failure> {
    let folder = root.join(row["folder"].as_str().unwrap_or_default());
    let tokens = row["tokens"].as_u64().ok_or("no tokens")?;
    let found = figures("transformers", &read_model(&folder)?, tokens)?;

    let compared = [
        ("weights", found.weights, row["stored_bytes"].as_u64()),
        ("caches", found.caches, row["cache_bytes"].as_u64()),
    ];
    let mut verdicts = Vec::new();
    for (name, ours, theirs) in compared {
        let Some(theirs) = theirs else { continue };
        let verdict = verdict(ours, theirs);
        if verdict != Verdict::Equal {
            println!(
                "{} {tokens}: {name} {verdict:?}: {theirs}, here {} to {}, likely {}",
                row["class"],
                ours.low.get(),
                ours.high.get(),
                ours.likely.get()
            );
        }

        verdicts.push((name, verdict));
    }

    Ok(verdicts)
}

#[test]
fn caches_match_engines_own_objects() {
    let Some((rows, root)) = rows() else {
        println!("skipped: no rows");
        return;
    };

    let mut counts: BTreeMap<(&str, Verdict), u32> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.get("error").is_none()) {
        let found = verdicts(row, &root).unwrap_or_else(|why| {
            println!("{}: refused: {why}", row["class"]);
            vec![("rows", Verdict::Refused)]
        });

        for verdict in found {
            *counts.entry(verdict).or_default() += 1;
        }
    }

    println!("{counts:?}");
    assert!(
        counts.keys().all(|(_, verdict)| *verdict != Verdict::Wrong),
        "rows without `refused` above"
    );
}
