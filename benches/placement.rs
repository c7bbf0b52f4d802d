//! Planning time, including the engine's own arithmetic.
//!
//! Bounds: 16 unequal devices with all strategies within 1 ms, the frontier of 8 devices within 5
//! ms.
#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot plan has nothing to measure"
)]

#[path = "../tests/placement_fake/mod.rs"]
mod fake;

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use fake::{Fake, ask, gpu, host, link};
use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::LinkKind;
use hf_mem_core::engines::Engines;
use hf_mem_core::placement::{Availability, frontier, plan};
use hf_mem_probe::repository::{Auth, HubSettings, ModelReference, SourceClient, SourceSettings};

/// 16 devices of 16 kinds, each with a different size, on two NUMA nodes.
fn unequal() -> Availability {
    let numbered_card = |number: u64| {
        gpu(
            &format!("GPU-{number:02}"),
            &format!("card {number}"),
            Bytes::gib(8 + number),
            Bytes::gib(8 + number),
        )
    };

    let mut host_view = Availability {
        devices: (0..16).map(numbered_card).collect(),
        ..Availability::default()
    };

    for a in 0..16 {
        for b in a + 1..16 {
            let kind = if a / 8 == b / 8 {
                LinkKind::NumaNode
            } else {
                LinkKind::System
            };
            host_view
                .links
                .push(link(&format!("GPU-{a:02}"), &format!("GPU-{b:02}"), kind));
        }
    }

    host_view
}

fn placement(criterion: &mut Criterion) {
    let host_view = unequal();
    let parameters = BTreeMap::new();

    // 12.5 GiB of layers fit on one device, 125 GiB on many, 1250 GiB on none.
    for (size, layer) in [
        ("small", 400 << 20),
        ("large", 4000 << 20),
        ("too large", 40_000 << 20),
    ] {
        for (split, uneven) in [("tensor and pipeline", false), ("layers", true)] {
            let fake = Fake {
                layers: vec![layer; 32],
                uneven,
                ..Fake::default()
            };

            let model = fake.model();
            criterion.bench_function(&format!("16 unequal devices, {split}, {size}"), |bench| {
                bench.iter(|| {
                    black_box(plan(&ask(&fake, &model, &parameters, 8192), &host_view).unwrap())
                });
            });
        }
    }

    let fake = Fake {
        layers: vec![4000 << 20; 32],
        ..Fake::default()
    };

    let (model, host_view) = (fake.model(), host(&[24; 8]));
    let question = ask(&fake, &model, &parameters, 8192);
    let planned = plan(&question, &host_view).unwrap().recommended.unwrap();
    criterion.bench_function("frontier of 8 devices", |bench| {
        bench.iter(|| black_box(frontier(&question, &planned, None).unwrap()));
    });
    criterion.bench_function("8 equal devices, tensor and pipeline", |bench| {
        bench.iter(|| black_box(plan(&question, &host_view).unwrap()));
    });
}

/// The same with the real engines: a model of 36 layers on 16 unequal devices, and the frontier of
/// 8 devices.
fn engines(criterion: &mut Criterion) {
    let engines = Engines::embedded().unwrap();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/Qwen3-8B");

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let client = SourceClient::new(SourceSettings::new(
        HubSettings::from_environment(|_| None).unwrap(),
    ));
    let reference = ModelReference::parse(folder, None, std::path::Path::exists).unwrap();
    let reading = client.describe(
        &reference,
        &Auth::Anonymous,
        std::time::SystemTime::UNIX_EPOCH,
    );

    let model = runtime.block_on(reading).unwrap().model;
    let (parameters, fake) = (BTreeMap::new(), Fake::default());

    for name in ["vllm", "sglang", "transformers", "reference"] {
        let mut question = ask(&fake, &model, &parameters, 8192);
        question.engine = engines.by_name(name).unwrap();
        let host_view = unequal();
        criterion.bench_function(&format!("16 unequal devices, {name}, Qwen3-8B"), |bench| {
            bench.iter(|| black_box(plan(&question, &host_view).unwrap()));
        });

        // The cache exceeds one device, or all of them, so every number of devices is tried.
        for sequences in [64, 1024] {
            let mut question = question.clone();
            question.asked.sequences = Some(sequences);
            criterion.bench_function(
                &format!("16 unequal devices, {name}, Qwen3-8B x {sequences}"),
                |bench| {
                    bench.iter(|| black_box(plan(&question, &host_view).unwrap()));
                },
            );
        }

        let host_view = host(&[6; 8]);
        if let Some(planned) = plan(&question, &host_view).unwrap().recommended {
            criterion.bench_function(
                &format!(
                    "frontier of {} devices, {name}, Qwen3-8B",
                    planned.ranks.len()
                ),
                |bench| {
                    bench.iter(|| black_box(frontier(&question, &planned, None).unwrap()));
                },
            );
        }
    }
}

criterion_group!(benches, placement, engines);
criterion_main!(benches);
