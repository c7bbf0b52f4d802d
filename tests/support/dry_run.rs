//! The figures of a dry run of llama.cpp b12032 (`no_alloc`) next to ours.
#![allow(
    unreachable_pub,
    missing_docs,
    reason = "shared by test binaries, each using a part"
)]
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "helpers of tests"
)]

use std::collections::BTreeMap;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{DeviceFacts, DeviceKind};
use hf_mem_core::engines::llama_cpp::LlamaCpp;
use hf_mem_core::engines::{
    AskedWorkload, Component, ComponentName, Engine, EngineRequest, EngineVersion, Interval,
};
use hf_mem_core::model::Model;
use serde_json::{Value, json};

/// A measured figure and the interval for it.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// `weights`, `caches` or `compute`, behind `host` for the host's.
    pub name: &'static str,
    pub measured: u64,
    pub ours: Interval,
}

impl Figure {
    /// Whether the dry run contradicts the interval.
    ///
    /// Buffers may be smaller; other figures are equal.
    pub fn is_wrong(&self) -> bool {
        let may_differ = self.name.ends_with("compute");
        let is_exact = self.ours == Interval::exact(Bytes::new(self.measured));
        self.measured > self.ours.high.get() || !(may_differ || is_exact)
    }
}

/// The settings of a row, by llama.cpp's names; the dry run has one sequence by default.
pub fn settings(row: &Value) -> BTreeMap<String, Value> {
    let given = row["settings"].as_object().unwrap().iter();
    let default = std::iter::once(("n_parallel".to_owned(), json!(1)));
    let given = given.map(|(name, value)| {
        let text = value.as_str().unwrap();
        let value = text
            .parse::<u64>()
            .map_or(json!(text), |number| json!(number));
        (name.clone(), value)
    });
    default.chain(given).collect()
}

/// A card of compute capability 8.9, as the dry run simulates.
pub fn card(index: u32) -> DeviceFacts {
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

/// Returns a question about `model` on build `version`.
pub fn question<'a>(
    model: &'a Model,
    version: &'a EngineVersion,
    parameters: &'a BTreeMap<String, Value>,
    devices: &'a [DeviceFacts],
) -> EngineRequest<'a> {
    EngineRequest {
        model,
        version: Some(version),
        parameters,
        asked: AskedWorkload::default(),
        devices,
    }
}

fn sum_named(components: &[Component], names: &[ComponentName]) -> Interval {
    let parts = components.iter();
    parts
        .filter(|part| names.contains(&part.name))
        .map(|part| part.bytes)
        .sum()
}

fn sum_detailed(components: &[Component], detail: &str) -> Interval {
    let parts = components.iter();
    parts
        .filter(|part| part.detail.starts_with(detail))
        .map(|part| part.bytes)
        .sum()
}

/// Returns the figures of `row` in the order of its devices, the host's last.
pub fn figures(row: &Value, model: &Model) -> Vec<Figure> {
    let devices: Vec<DeviceFacts> = (0..).map(card).take(4).collect();
    let (version, parameters) = ("b12032".parse().unwrap(), settings(row));
    let prepared = LlamaCpp
        .prepare(&question(model, &version, &parameters, &devices))
        .unwrap();
    let measured = row["devices"].as_array().unwrap();
    let count = u32::try_from(measured.len()).unwrap();
    let split = prepared.splits(count).unwrap().remove(0);
    let workload = prepared.workload();

    let mut figures = Vec::new();
    let mut add = |name, measured: &Value, ours| {
        let measured = measured.as_u64().unwrap();
        figures.push(Figure {
            name,
            measured,
            ours,
        });
    };

    for (rank, device) in measured.iter().enumerate() {
        let facts = &devices[rank];
        let mut parts = prepared.fixed(&split, rank, facts).unwrap();
        parts.extend(prepared.variable(&split, rank, facts, workload).unwrap());

        let weights = sum_named(&parts, &[ComponentName::Weights]);
        let caches = sum_named(&parts, &[ComponentName::KvCache, ComponentName::State]);
        let buffer = sum_named(&parts, &[ComponentName::Activations]);
        add("weights", &device["model_bytes"], weights);
        add("caches", &device["context_bytes"], caches);
        add("compute", &device["compute_bytes"], buffer);
    }

    let (parts, host) = (prepared.host(&split, workload).unwrap(), &row["host"]);
    let (weights, caches) = (
        sum_detailed(&parts, "weights"),
        sum_detailed(&parts, "cache"),
    );
    add("host weights", &host["model_bytes"], weights);
    add("host caches", &host["context_bytes"], caches);
    let buffer = sum_detailed(&parts, "input");
    add("host compute", &host["compute_bytes"], buffer);

    figures
}
