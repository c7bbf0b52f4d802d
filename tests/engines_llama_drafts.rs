//! llama.cpp's drafts against b12032's own dry run of made models: next-token layers of the model
//! itself (`draft-mtp`), second models (`draft-simple`), and n-grams.
//!
//! `fixtures/llama_drafts.jsonl` holds the rows as the dry run printed them.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test helpers")]

use std::collections::BTreeMap;
use std::sync::Arc;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{DeviceFacts, DeviceKind};
use hf_mem_core::engines::llama_cpp::LlamaCpp;
use hf_mem_core::engines::{
    AskedWorkload, Component, ComponentName, Engine, EngineError, EngineRequest, Interval,
    LaunchDevice, LaunchPlan, PreparedEngine, companions,
};
use hf_mem_core::model::Model;
use serde_json::{Value, json};
use support::gguf_corpus::{corpus, model, packed_header, whole};

mod support {
    pub mod gguf_corpus;
    pub mod gguf_writer;
}

const ROWS: &str = include_str!("fixtures/llama_drafts.jsonl");

/// Figures of one kind, compared.
#[derive(Default)]
struct Tally {
    equal: u32,
    inside: u32,
    outside: Vec<String>,
}

impl Tally {
    fn add(&mut self, measured: u64, ours: Interval, row: &Value) {
        // The model's own buffer may be a little below, as without a draft (GLM-DSA).
        let least = ours.low.scale(97, 100).get();
        if measured == ours.likely.get() {
            self.equal += 1;
        } else if (least..=ours.high.get()).contains(&measured) {
            self.inside += 1;
        } else {
            self.outside.push(format!(
                "{measured}, {ours:?} {} {} {}",
                row["model"], row["draft_model"], row["settings"]
            ));
        }
    }
}

fn card(index: u32) -> DeviceFacts {
    DeviceFacts {
        uuid: format!("GPU-{index}"),
        index,
        name: "NVIDIA GeForce RTX 4090".into(),
        kind: DeviceKind::Gpu,
        total_bytes: Bytes::gib(80),
        reserved_bytes: None,
        compute_capability: Some((8, 9)),
        multiprocessors: Some(128),
        parent_uuid: None,
        pci_bus_id: None,
        numa_node: None,
    }
}

/// The settings of a row, by llama.cpp's names.
fn settings(row: &Value) -> BTreeMap<String, Value> {
    let given = row["settings"].as_object().unwrap().iter();
    given
        .map(|(name, value)| {
            let text = value.as_str().unwrap();
            let value = text
                .parse::<u64>()
                .map_or(json!(text), |number| json!(number));
            (name.clone(), value)
        })
        .collect()
}

fn prepare<'a>(
    model: &'a Model,
    parameters: &'a BTreeMap<String, Value>,
    devices: &'a [DeviceFacts],
) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
    let version = Box::leak(Box::new("b12032".parse().unwrap()));
    let request = EngineRequest {
        model,
        version: Some(version),
        parameters,
        asked: AskedWorkload::default(),
        devices,
    };

    companions::prepare(&LlamaCpp as &dyn Engine, &request)
}

/// The sum of the components named in `names`, those of the draft or the others.
fn sum(parts: &[Component], names: &[ComponentName], draft: bool) -> Interval {
    let parts = parts.iter();
    parts
        .filter(|part| names.contains(&part.name))
        .filter(|part| part.detail.starts_with("draft: ") == draft)
        // No dry run shows these.
        .filter(|part| !part.detail.contains("copies of states"))
        .map(|part| part.bytes)
        .sum()
}

fn detailed(parts: &[Component], detail: &str) -> Interval {
    let parts = parts.iter();
    parts
        .filter(|part| part.detail.starts_with(detail))
        .map(|part| part.bytes)
        .sum()
}

fn made(name: &str, file_bytes: Option<u64>) -> Option<Model> {
    let bytes = packed_header(&corpus()?.join("made"), name);
    Some(model(whole(&bytes, file_bytes.unwrap_or(u64::MAX >> 8))))
}

/// The models of a row: with its draft, if another model drafts.
fn models(row: &Value) -> Option<Model> {
    let target = made(row["model"].as_str()?, row["file_bytes"].as_u64())?;
    let Some(draft) = row["draft_model"].as_str() else {
        return Some(target);
    };

    Some(target.with_draft(Arc::new(made(draft, row["draft_file_bytes"].as_u64())?)))
}

fn compare(row: &Value, tallies: &mut BTreeMap<&'static str, Tally>) -> Option<()> {
    let (model, parameters) = (models(row)?, settings(row));
    let devices: Vec<DeviceFacts> = (0..4).map(card).collect();
    let prepared = prepare(&model, &parameters, &devices).unwrap();

    let measured = row["devices"].as_array().unwrap();
    let count = u32::try_from(measured.len()).unwrap();
    let split = prepared.splits(count).unwrap().remove(0);
    prepared.check(&split).unwrap();
    let workload = prepared.workload();
    let mut add = |name: &'static str, measured: &Value, ours: Interval| {
        let tally = tallies.entry(name).or_default();
        tally.add(measured.as_u64().unwrap(), ours, row);
    };

    let caches = [ComponentName::KvCache, ComponentName::State];
    for (rank, facts) in devices.iter().take(measured.len()).enumerate() {
        let mut parts = prepared.fixed(&split, rank, facts).unwrap();
        parts.extend(prepared.variable(&split, rank, facts, workload).unwrap());

        let rows = [
            (&measured[rank], false),
            (&row["draft"]["devices"][rank], true),
        ];
        for (row, draft) in rows.into_iter().filter(|(row, _)| !row.is_null()) {
            let names: [&'static str; 3] = if draft {
                ["draft weights", "draft caches", "draft compute"]
            } else {
                ["weights", "caches", "compute"]
            };
            let ours = |names: &[ComponentName]| sum(&parts, names, draft);
            add(
                names[0],
                &row["model_bytes"],
                ours(&[ComponentName::Weights]),
            );
            add(names[1], &row["context_bytes"], ours(&caches));
            add(
                names[2],
                &row["compute_bytes"],
                ours(&[ComponentName::Activations]),
            );
        }
    }

    let parts = prepared.host(&split, workload).unwrap();
    for (name, key, detail) in [
        ("host weights", "model_bytes", "weights"),
        ("host caches", "context_bytes", "cache"),
        ("host compute", "compute_bytes", "input"),
    ] {
        add(name, &row["host"][key], detailed(&parts, detail));
    }
    if row["draft"].is_null() {
        return Some(());
    }
    for (name, key, detail) in [
        ("draft host weights", "model_bytes", "draft: weights"),
        ("draft host caches", "context_bytes", "draft: cache"),
        ("draft host compute", "compute_bytes", "draft: input"),
    ] {
        add(name, &row["draft"]["host"][key], detailed(&parts, detail));
    }

    Some(())
}

#[test]
fn dry_run_is_inside_intervals() {
    let mut tallies = BTreeMap::new();
    for line in ROWS.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        if compare(&row, &mut tallies).is_none() {
            return;
        }
    }

    println!("figure               equal inside outside");
    let mut outside = 0;
    for (name, tally) in &tallies {
        println!(
            "{name:20} {:5} {:6} {:7}",
            tally.equal,
            tally.inside,
            tally.outside.len()
        );
        for row in &tally.outside {
            println!("  {row}");
        }

        outside += tally.outside.len();
        if !name.ends_with("compute") {
            assert_eq!(tally.inside, 0, "{name} is exact");
        }
    }
    assert_eq!(outside, 0);
}

fn refusal(model: &Model, version: &str, given: &[(&str, &str)]) -> String {
    let parameters = given
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect();
    let devices = [card(0)];
    let version = version.parse().unwrap();
    let request = EngineRequest {
        model,
        version: Some(&version),
        parameters: &parameters,
        asked: AskedWorkload::default(),
        devices: &devices,
    };

    match companions::prepare(&LlamaCpp as &dyn Engine, &request) {
        Ok(_) => "prepared".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn unusable_drafts_are_refused() {
    let Some((target, small)) = made("qwen3moe", None).zip(made("smollm3", None)) else {
        return;
    };
    let with = |draft: &Model| target.clone().with_draft(Arc::new(draft.clone()));
    let pair = with(&small);

    let mut other = small.clone();
    other.architecture.as_mut().unwrap().vocab_size += 129;
    let encoder = made("bert", None).unwrap();
    let mtp = [("spec_type", "draft-mtp")];
    for (model, version, given, says) in [
        (&pair, "b12032", &[][..], "prepared"),
        (&pair, "b11999", &[], "from build 12000 on"),
        (&pair, "b12032", &mtp, "the model's own layers"),
        (
            &pair,
            "b12032",
            &[("spec_type", "ngram-mod")],
            "add draft-simple",
        ),
        (
            &target,
            "b12032",
            &[("spec_type", "draft-simple")],
            "as the model's draft",
        ),
        (&target, "b12032", &mtp, "no next-token layers"),
        (&with(&other), "b12032", &[], "differ by 128 at most"),
        (&with(&encoder), "b12032", &[], "does not generate text"),
        (&pair, "b12032", &[("ctkd", "fp8")], "spec_draft_type_k"),
    ] {
        let refused = refusal(model, version, given);
        assert!(refused.contains(says), "{given:?}: {refused}");
    }
}

#[test]
fn token_costs_both_caches() {
    let Some((target, small)) = made("qwen3moe", None).zip(made("smollm3", None)) else {
        return;
    };
    let (none, devices) = (BTreeMap::new(), [card(0)]);
    let each = |model: &Model| {
        let prepared = prepare(model, &none, &devices).unwrap();
        prepared.kv_bytes_per_token()
    };

    let own = each(&target) + each(&small);
    assert_eq!(
        each(&target.clone().with_draft(Arc::new(small.clone()))),
        own
    );
}

#[test]
fn server_starts_with_draft() {
    let Some((target, small)) = made("qwen3moe", None).zip(made("smollm3", None)) else {
        return;
    };
    let model = target.with_draft(Arc::new(small));
    let parameters = BTreeMap::from([
        ("ctkd".to_owned(), json!("q8_0")),
        ("spec_draft_n_max".to_owned(), json!(5)),
    ]);
    let devices = [card(0)];
    let prepared = prepare(&model, &parameters, &devices).unwrap();
    let split = prepared.splits(1).unwrap().remove(0);
    let chosen = [LaunchDevice {
        facts: &devices[0],
        available: Bytes::gib(80),
        required: Bytes::gib(10),
        free: None,
    }];
    let launch = prepared.launch(&LaunchPlan {
        devices: &chosen,
        split: &split,
        workload: prepared.workload(),
    });

    let line = launch.args.join(" ");
    for flags in [
        "-hfd owner/name-GGUF -md name-Q8_0.gguf",
        "--spec-type draft-simple",
        "--spec-draft-n-max 5",
        "--spec-draft-type-k q8_0 --spec-draft-type-v f16",
    ] {
        assert!(line.contains(flags), "{flags}: {line}");
    }
}
