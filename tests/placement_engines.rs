//! Placement with the real engines on real models.
//!
//! Placements are legal, within their bytes and monotonic. Their limits hold when asked as
//! questions. The models come from an optional folder of metadata.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a panic is a failed test; skips are printed"
)]

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;
use std::time::SystemTime;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::declared;
use hf_mem_core::engines::component::device_sum;
use hf_mem_core::engines::{AskedContext, AskedWorkload, EngineRequest, Engines, Split, prepare};
use hf_mem_core::evaluate;
use hf_mem_core::evaluate::{HostView, Rules};
use hf_mem_core::model::tensors::InventoryBuilder;
use hf_mem_core::model::{Dtype, Format, Model, Storage, config};
use hf_mem_core::placement::{
    Ask, Availability, Constraints, Plan, Policy, availability, frontier, plan,
};
use hf_mem_core::report::answer::{Answer, Verdict};
use hf_mem_probe::repository::{Auth, HubSettings, ModelReference, SourceClient, SourceSettings};
use serde_json::{Value, json};
use support::gguf_corpus;

mod support {
    pub(crate) mod gguf_corpus;
    pub(crate) mod gguf_writer;
}

const HOSTS: [&str; 8] = [
    "1x24GiB",
    "2x24GiB",
    "1x24GiB,1x12GiB",
    "8xH100-80GB",
    "8xH200",
    "4xL4",
    "2xA100-40GB,2xA100-80GB",
    "5x16GiB,1x48GiB",
];
const ENGINES: [&str; 4] = ["vllm", "sglang", "transformers", "reference"];
const MODELS: [&str; 4] = [
    "Qwen/Qwen3-8B",
    "Qwen/Qwen3-30B-A3B",
    "google/gemma-3-27b-it",
    "openai/gpt-oss-120b",
];

/// Reads a model of the metadata folder; prints a line and returns `None` if it does not exist.
fn hub(repo: &str) -> Option<Model> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../shared/hub/models")
        .join(repo);
    let Ok(settings) = std::fs::read(folder.join("config.json")) else {
        println!("skipped: no metadata of {repo}");
        return None;
    };

    let settings: Value = serde_json::from_slice(&settings).unwrap();
    let mut text = String::new();
    let file = std::fs::File::open(folder.join("tensors.json.gz")).unwrap();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .unwrap();
    let rows: Vec<(String, String, String, Vec<u64>)> = serde_json::from_str(&text).unwrap();
    let mut builder = InventoryBuilder::default();
    for (_, name, dtype, shape) in &rows {
        let dtype = Dtype::from_safetensors(dtype).unwrap();
        builder.add(
            "",
            name,
            Storage::Known(dtype),
            shape,
            dtype.stored(shape.iter().product()).unwrap(),
        );
    }

    let inventory = builder.finish();
    Some(Model::bare(
        repo,
        Format::Safetensors,
        config::architecture(&settings, None, &inventory),
        inventory,
    ))
}

struct Questions<'q> {
    engines: &'q Engines,
    parameters: BTreeMap<String, Value>,
}

impl Questions<'_> {
    fn ask<'a>(
        &'a self,
        engine: &str,
        model: &'a Model,
        (context, sequences): (u64, u64),
    ) -> Ask<'a> {
        Ask {
            engine: self.engines.by_name(engine).unwrap(),
            model,
            version: None,
            parameters: &self.parameters,
            asked: AskedWorkload {
                context: Some(AskedContext::Tokens(context)),
                sequences: Some(sequences),
                ..AskedWorkload::default()
            },
            constraints: Constraints::default(),
            policy: Policy::default(),
        }
    }
}

fn here(host: &str) -> Availability {
    availability(
        &declared::parse(host, SystemTime::UNIX_EPOCH).unwrap(),
        &BTreeMap::new(),
    )
}

/// Judges the same split and devices with another workload by the engine's own figures.
fn fits_again(ask: &Ask<'_>, plan: &Plan) -> bool {
    let placement = plan.recommended.as_ref().unwrap();
    let devices = [placement.ranks[0].device.clone()];

    let case = EngineRequest {
        model: ask.model,
        version: None,
        parameters: ask.parameters,
        asked: ask.asked.clone(),
        devices: &devices,
    };

    let prepared = prepare(ask.engine, &case).unwrap();
    assert_eq!(
        prepared.check(&placement.split),
        Ok(()),
        "{}",
        ask.engine.name()
    );

    placement.ranks.iter().enumerate().all(|(number, rank)| {
        let fixed = device_sum(
            &prepared
                .fixed(&placement.split, number, &rank.device)
                .unwrap(),
        );

        let variable = device_sum(
            &prepared
                .variable(&placement.split, number, &rank.device, prepared.workload())
                .unwrap(),
        );

        assert_eq!(
            prepared.fixed_sum(&placement.split, number, &rank.device),
            Ok(fixed)
        );
        assert_eq!(
            prepared.variable_sum(&placement.split, number, &rank.device, prepared.workload()),
            Ok(variable)
        );

        prepared
            .must_be_available(&placement.split, &rank.device, fixed.plus(variable))
            .high
            <= rank.available
    })
}

/// Plans `model` on every host and checks the plan against its own figures.
fn on_every_host(engines: &[&str], name: &str, model: &Model) {
    let all = Engines::embedded().unwrap();
    let questions = Questions {
        engines: &all,
        parameters: BTreeMap::new(),
    };

    for engine in engines {
        for host in HOSTS {
            let at = here(host);
            let ask = questions.ask(engine, model, (8192, 1));
            match plan(&ask, &at) {
                Ok(planned) => holds(
                    &questions,
                    &ask,
                    &at,
                    &planned,
                    &format!("{name} {engine} {host}"),
                ),
                Err(error) => println!("{name} {engine} {host}: {error}"),
            }
        }
    }
}

fn holds(questions: &Questions<'_>, ask: &Ask<'_>, at: &Availability, planned: &Plan, what: &str) {
    let Some(placement) = &planned.recommended else {
        println!("{what}: {:?} {}", planned.reason, planned.why);
        return;
    };

    println!(
        "{what}: {:?} {} tp{} {:?} context {:?} sequences {:?} short {}",
        placement.verdict,
        placement.strategy,
        placement.split.tensor,
        placement.split.stages,
        placement.max_context,
        placement.max_sequences,
        planned.short_by,
    );

    assert_eq!(
        fits_again(ask, planned),
        placement.verdict == Verdict::Fits,
        "{what}"
    );

    let (engine, longest) = (
        ask.engine.name(),
        ask.model.architecture.as_ref().unwrap().max_context,
    );
    if let Some(reached) = placement.max_context.filter(|reached| *reached > 0) {
        let fits = |context| fits_again(&questions.ask(engine, ask.model, (context, 1)), planned);
        assert!(fits(reached), "{what}: {reached} does not fit");
        let more = longest.map_or(reached + 1, |longest| longest.min(reached + 1));
        assert!(
            more == reached || !fits(more),
            "{what}: more than {reached} fits"
        );
    }

    if let Some(most) = placement.max_sequences.filter(|most| *most > 0) {
        let fits = |sequences| {
            fits_again(
                &questions.ask(engine, ask.model, (8192, sequences)),
                planned,
            )
        };
        assert!(fits(most) && !fits(most + 1), "{what}: {most} sequences");
    }

    let points = frontier(ask, placement, at.host).unwrap();
    assert!(
        points
            .windows(2)
            .all(|pair| pair[0].context >= pair[1].context)
    );

    for point in [points.first(), points.get(points.len() / 2), points.last()]
        .into_iter()
        .flatten()
    {
        let fits = |context| {
            fits_again(
                &questions.ask(engine, ask.model, (context, point.sequences)),
                planned,
            )
        };

        assert!(fits(point.context), "{what}: {point:?} does not fit");
        let more = longest.map_or(point.context + 1, |longest| longest.min(point.context + 1));
        assert!(
            more == point.context || !fits(more),
            "{what}: more than {point:?} fits"
        );
    }
    // More memory never turns a yes into a no.
    let mut roomier = at.clone();

    for device in &mut roomier.devices {
        device.free = device.free.map(|free| free + Bytes::gib(3));
        device.available = device.available.map(|bytes| bytes + Bytes::gib(3));
    }

    let roomier = plan(ask, &roomier).unwrap().verdict();
    assert!(
        placement.verdict != Verdict::Fits || roomier == Verdict::Fits,
        "{what}"
    );
}

/// Checks that a rank's bytes depend only on its own stage, and are those of its whole tensor
/// group. The search caches them by these facts.
fn follow_from_the_stage(engines: &[&str], model: &Model) {
    let all = Engines::embedded().unwrap();
    let at = here("8xH100-80GB");
    let devices = [at.devices[0].facts.clone()];
    let parameters = BTreeMap::new();

    for engine in engines {
        let asked = AskedWorkload {
            context: Some(AskedContext::Tokens(8192)),
            ..AskedWorkload::default()
        };

        let case = EngineRequest {
            model,
            version: None,
            parameters: &parameters,
            asked,
            devices: &devices,
        };

        let Ok(prepared) = all.by_name(engine).unwrap().prepare(&case) else {
            continue;
        };

        let need = |split: &Split, rank| {
            let fixed = prepared.fixed_sum(split, rank, &devices[0]).unwrap();
            (
                fixed,
                prepared
                    .variable_sum(split, rank, &devices[0], prepared.workload())
                    .unwrap(),
            )
        };

        for tensor in [1, 2, 4, 8] {
            for split in prepared
                .splits(tensor)
                .unwrap_or_default()
                .iter()
                .filter(|it| !it.expert_parallel)
            {
                for rank in 0..split.ranks() {
                    let first = rank - rank % split.tensor as usize;
                    assert_eq!(
                        need(split, rank),
                        need(split, first),
                        "{engine} {split:?} {rank}"
                    );
                }
            }
        }

        let end = prepared.splits(1).unwrap()[0].stages[0].end;
        let cut = |a, b| Split {
            stages: vec![0..a, a..b, b..end],
            ..Split::single(end)
        };

        if prepared.uneven() && end > 8 {
            assert_eq!(need(&cut(2, 7), 2), need(&cut(5, 7), 2), "{engine}");
            assert_eq!(need(&cut(2, 5), 0), need(&cut(2, 7), 0), "{engine}");
        }
    }
}

#[test]
fn real_model_placements_hold() {
    for repo in MODELS {
        if let Some(model) = hub(repo) {
            on_every_host(&ENGINES, repo, &model);
            follow_from_the_stage(&ENGINES, &model);
        }
    }
}

#[test]
fn gguf_placements_hold() {
    let Some(folder) = gguf_corpus::corpus() else {
        return;
    };

    for (name, description) in gguf_corpus::descriptions(&folder) {
        let model = gguf_corpus::model(gguf_corpus::parsed(&gguf_corpus::header(&description)));
        on_every_host(&["llama.cpp", "ollama"], &name, &model);
        follow_from_the_stage(&["llama.cpp"], &model);
    }
}

/// Answers for the fixture model on a host, through the public path.
fn answered(engine: &str, host: &str, context: Option<u64>, parameters: &Value) -> Answer {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/Qwen3-8B");
    let client = SourceClient::new(SourceSettings::new(
        HubSettings::from_environment(|_| None).unwrap(),
    ));
    let reference = ModelReference::parse(folder, None, std::path::Path::exists).unwrap();

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let model = runtime
        .block_on(client.describe(&reference, &Auth::Anonymous, SystemTime::UNIX_EPOCH))
        .unwrap()
        .model;

    let rules = Rules {
        engines: Engines::embedded().unwrap(),
        policy: Policy::default(),
    };

    let question = json!({
        "model": {"repo": "local"},
        "engine": {"name": engine, "parameters": parameters},
        "workload": {"context": context},
    });
    let question = serde_json::from_value(question).unwrap();

    evaluate::answer(
        &question,
        &model,
        &HostView::declared(host, SystemTime::UNIX_EPOCH).unwrap(),
        &rules,
    )
    .unwrap()
}

#[test]
fn required_bytes_match_total_in_share() {
    let share = json!({"gpu_memory_utilization": 0.9});
    for (engine, host, context, parameters) in [
        ("vllm", "RTX-4090", None, &share),
        ("vllm", "RTX-4090", Some(8192), &share),
        ("vllm", "RTX-4090@18GiB", Some(2048), &share),
        (
            "vllm",
            "40GiB",
            None,
            &json!({"gpu_memory_utilization": 0.3}),
        ),
        ("vllm", "2xRTX-4090", None, &share),
        (
            "sglang",
            "RTX-4090",
            Some(8192),
            &json!({"mem_fraction_static": 0.8}),
        ),
    ] {
        let answer = answered(engine, host, context, parameters);
        let placement = answer.placement.as_ref().unwrap();
        let total = answer.requirement.as_ref().unwrap().total.unwrap();

        let required: u64 = placement
            .devices
            .iter()
            .map(|share| share.required_bytes)
            .sum();
        assert_eq!(required, total.high_bytes, "{engine} {host} {context:?}");

        assert!(
            answer.message.contains(&Bytes::new(required).to_string()),
            "{}",
            answer.message
        );

        // The figures in the column of the table add up.
        let likely: u64 = answer
            .requirement
            .unwrap()
            .components
            .iter()
            .map(|part| part.likely_bytes)
            .sum();
        assert_eq!(likely, total.likely_bytes, "{engine} {host} {context:?}");
    }
}

#[test]
fn outgrown_share_is_named() {
    let answer = answered(
        "vllm",
        "RTX-4090",
        None,
        &json!({"gpu_memory_utilization": 0.9}),
    );
    assert_eq!(answer.verdict, Some(Verdict::DoesNotFit));

    let (need, taken) = (
        "would take 24.82 GiB",
        "gpu_memory_utilization = 0.9 leaves it 22.25 GiB of 23.36 GiB",
    );
    assert!(
        answer.message.contains(need) && answer.message.contains(taken),
        "{}",
        answer.message
    );

    assert!(
        answer.message.ends_with("2.57 GiB short"),
        "{}",
        answer.message
    );

    let answer = answered(
        "vllm",
        "80GiB",
        None,
        &json!({"gpu_memory_utilization": 0.2}),
    );
    assert_eq!(
        answer.verdict,
        Some(Verdict::DoesNotFit),
        "free memory does not make a share larger"
    );
}

#[test]
fn share_reports_cache_and_reach() {
    let placement = answered(
        "vllm",
        "40GiB",
        None,
        &json!({"gpu_memory_utilization": 0.9}),
    )
    .placement
    .unwrap();
    assert_eq!(
        (placement.max_context, placement.max_sequences),
        (Some(40_960), Some(3))
    );

    let (tokens, low, concurrency) = (
        placement.kv_cache_tokens.unwrap(),
        placement.kv_cache_low_tokens.unwrap(),
        placement.max_concurrency.unwrap(),
    );

    // 0.9 of 40 GiB, less weights of 15.27 GiB, a step, graphs and libraries, by 144 KiB a token.
    assert!(
        (130_000..140_000).contains(&tokens) && low < tokens,
        "{tokens} {low}"
    );
    let held = f64::from(u32::try_from(tokens).unwrap()) / 40_960.0;
    assert!((concurrency - held).abs() < 0.02, "{concurrency}");

    // The context that surely fits is the lowest size of the cache.
    assert!(low / 40_960 >= 3 && low / 40_960 < 4, "{low}");

    let sized = answered("vllm", "40GiB", None, &json!({}))
        .placement
        .unwrap();
    assert_eq!(
        (sized.kv_cache_tokens, sized.max_concurrency),
        (None, None),
        "the workload sizes the cache"
    );

    let pool = answered(
        "sglang",
        "RTX-4090",
        Some(8192),
        &json!({"mem_fraction_static": 0.8}),
    )
    .placement
    .unwrap();
    assert_eq!(
        (pool.kv_cache_tokens, pool.max_concurrency),
        (Some(8192), Some(1.0))
    );
}
