//! Each suggestion is asked as a question, which must have the stated verdict.
#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::collections::BTreeSet;
use std::time::SystemTime;

use hf_mem_core::engines::Engines;
use hf_mem_core::evaluate;
use hf_mem_core::evaluate::{HostView, Rules};
use hf_mem_core::model::Model;
use hf_mem_core::placement::Policy;
use hf_mem_core::report::answer::{Answer, Verdict};
use hf_mem_core::report::question::Question;
use hf_mem_probe::repository::{Auth, HubSettings, ModelReference, SourceClient, SourceSettings};
use serde_json::{Value, json};

fn model() -> std::sync::Arc<Model> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/Qwen3-8B");
    let client = SourceClient::new(SourceSettings::new(
        HubSettings::from_environment(|_| None).unwrap(),
    ));
    let reference = ModelReference::parse(folder, None, std::path::Path::exists).unwrap();

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();

    runtime
        .block_on(client.describe(&reference, &Auth::Anonymous, SystemTime::UNIX_EPOCH))
        .unwrap()
        .model
}

fn answer(rules: &Rules, model: &Model, question: &Value, host: &str) -> Answer {
    let question: Question = serde_json::from_value(question.clone()).unwrap();
    evaluate::answer(
        &question,
        model,
        &HostView::declared(host, SystemTime::UNIX_EPOCH).unwrap(),
        rules,
    )
    .unwrap()
}

/// Applies exactly the words of `change` to the question and the host.
fn changed(question: &Value, host: &str, change: &str) -> (Value, String) {
    let (mut question, mut host) = (question.clone(), host.to_owned());
    if let Some(freed) = change.strip_prefix("free ") {
        assert!(freed.contains(" on "), "{change}");
        return (question, host.split('@').next().unwrap().to_owned());
    }

    for word in change.split(' ') {
        let (name, value) = word.split_once('=').unwrap();
        let given: Value = value.parse().unwrap_or_else(|_| value.into());
        match name {
            "context" | "sequences" | "kv_cache_dtype" | "dtype" => {
                question["workload"][name] = given;
            }
            "offload" | "tensor_parallel" | "pipeline_parallel" => {
                question["constraints"][name] = given;
            }
            "engine" => {
                question["engine"]["name"] = value.into();
                question["engine"]["version"] = Value::Null;
            }
            "devices" if given.is_null() => question["constraints"][name] = given,
            "devices" => {
                host = format!(
                    "{value}x{}",
                    host.split_once('x').map_or(host.as_str(), |(_, card)| card)
                );
            }
            "host_memory_bytes" => {
                host = format!(
                    "{host},host:{}GiB",
                    given.as_u64().unwrap().div_ceil(1 << 30)
                );
            }
            _ if given.is_null() => {
                question["engine"]["parameters"]
                    .as_object_mut()
                    .unwrap()
                    .remove(name);
            }
            _ => question["engine"]["parameters"][name] = given,
        }
    }

    (question, host)
}

/// Checks every suggestion of `question`; returns the kinds of changes.
fn follow(
    rules: &Rules,
    model: &Model,
    question: &Value,
    host: &str,
    kinds: &mut BTreeSet<String>,
) {
    let first = answer(rules, model, question, host);
    for suggestion in &first.suggestions {
        let (followed, there) = changed(question, host, &suggestion.change);
        let then = answer(rules, model, &followed, &there);
        assert_eq!(
            then.verdict,
            Some(suggestion.verdict),
            "{question} on {host}: {}",
            suggestion.change
        );

        let same = suggestion
            .change
            .starts_with("engine=")
            .then_some((first.workload.as_ref(), then.workload.as_ref()));
        if let Some((Some(before), Some(after))) = same {
            assert_eq!(
                (before.context, before.sequences),
                (after.context, after.sequences),
                "{}",
                suggestion.change
            );
        }

        kinds.extend(
            suggestion
                .change
                .split(' ')
                .filter_map(|word| Some(word.split_once('=')?.0.to_owned())),
        );

        kinds.insert(
            suggestion
                .change
                .split(['=', ' '])
                .next()
                .unwrap()
                .to_owned(),
        );

        kinds.extend(
            suggestion
                .change
                .split(' ')
                .filter(|word| word.ends_with("=null"))
                .map(str::to_owned),
        );
    }
}

#[test]
fn every_suggestion_holds() {
    let rules = Rules {
        engines: Engines::embedded().unwrap(),
        policy: Policy::default(),
    };

    let model = model();
    let mut kinds = BTreeSet::new();

    for (engine, host, context, sequences, offload) in [
        ("vllm", "24GiB", 40_960, 1, "deny"),
        ("vllm", "RTX-4090", 32_768, 4, "deny"),
        ("vllm", "T4", 40_960, 1, "deny"),
        ("vllm", "2xT4", 8192, 16, "deny"),
        ("vllm", "H100-80GB@62GiB", 8192, 1, "deny"),
        ("sglang", "RTX-4090", 40_960, 2, "deny"),
        ("vllm", "18GiB", 2048, 1, "deny"),
        ("transformers", "T4,host:64GiB", 8192, 1, "deny"),
        ("transformers", "T4", 8192, 1, "allow"),
        ("transformers", "T4", 8192, 1, "deny"),
    ] {
        let question = json!({
            "model": {"repo": "local"},
            "engine": {"name": engine, "parameters": {}},
            "workload": {"context": context, "sequences": sequences},
            "constraints": {"offload": offload},
        });
        let first = answer(&rules, &model, &question, host);
        assert_ne!(
            first.verdict,
            Some(Verdict::Fits),
            "{engine} {host}: nothing to suggest"
        );

        follow(&rules, &model, &question, host, &mut kinds);
    }
    // The loop has covered every kind of change.
    for kind in [
        "context",
        "sequences",
        "kv_cache_dtype",
        "max_num_seqs",
        "quantization",
        "devices",
        "engine",
        "free",
    ] {
        assert!(kinds.contains(kind), "no question led to {kind}: {kinds:?}");
    }
}

/// Picks one of `values`, in a repeatable sequence.
fn pick<'v>(state: &mut u64, values: &'v [Value]) -> &'v Value {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    &values[(*state >> 33) as usize % values.len()]
}

#[test]
fn random_question_suggestions_hold() {
    let rules = Rules {
        engines: Engines::embedded().unwrap(),
        policy: Policy::default(),
    };

    let model = model();
    let values = |list: Value| list.as_array().unwrap().clone();
    let engines = values(json!([
        ["vllm", null],
        ["vllm", null],
        ["vllm", "0.19"],
        ["sglang", null],
        ["transformers", null]
    ]));

    let hosts = values(json!([
        "T4",
        "2xT4",
        "3xT4",
        "RTX-4090",
        "2x12GiB",
        "24GiB",
        "4xT4",
        "L4,host:16GiB",
        "2xRTX-4090"
    ]));

    let contexts = values(json!([null, null, 2048, 40_960, "max"]));
    let sequences = values(json!([null, null, 4, 40, 8_589_934_592_u64]));
    let dtypes = values(json!([null, null, null, "auto", "fp8"]));
    let tensors = values(json!([null, null, null, 1, 2, 3]));
    let stages = values(json!([null, null, null, 1, 2]));
    let only = values(json!([null, null, ["declared-0"]]));
    let shares = values(json!([null, null, 0.5, 0.9, 0.99]));

    let (mut state, mut kinds) = (7, BTreeSet::new());
    for _ in 0..150 {
        let engine = pick(&mut state, &engines);
        let share = pick(&mut state, &shares);
        let mut parameters = json!({});
        match engine[0].as_str() {
            Some("vllm") if !share.is_null() => {
                parameters["gpu_memory_utilization"] = share.clone();
            }
            Some("sglang") if !share.is_null() => parameters["mem_fraction_static"] = share.clone(),
            _ => {}
        }

        let question = json!({
            "model": {"repo": "local"},
            "engine": {"name": engine[0], "version": engine[1], "parameters": parameters},
            "workload": {
                "context": pick(&mut state, &contexts),
                "sequences": pick(&mut state, &sequences),
                "kv_cache_dtype": pick(&mut state, &dtypes),
            },
            "constraints": {
                "tensor_parallel": pick(&mut state, &tensors),
                "pipeline_parallel": pick(&mut state, &stages),
                "devices": pick(&mut state, &only),
            },
        });

        let host = pick(&mut state, &hosts).as_str().unwrap().to_owned();
        let parsed: Question = serde_json::from_value(question.clone()).unwrap();
        let here = HostView::declared(&host, SystemTime::UNIX_EPOCH).unwrap();

        // A question that the engine rejects has no suggestions.
        if evaluate::answer(&parsed, &model, &here, &rules).is_ok() {
            follow(&rules, &model, &question, &host, &mut kinds);
        }
    }

    for kind in [
        "context",
        "sequences",
        "kv_cache_dtype",
        "gpu_memory_utilization",
        "devices",
        "engine",
        "tensor_parallel=null",
        "pipeline_parallel=null",
        "devices=null",
        "gpu_memory_utilization=null",
    ] {
        assert!(kinds.contains(kind), "no question led to {kind}: {kinds:?}");
    }
}

#[test]
fn split_is_kept_by_other_engines() {
    let rules = Rules {
        engines: Engines::embedded().unwrap(),
        policy: Policy::default(),
    };

    let question = json!({
        "model": {"repo": "local"},
        "engine": {"name": "vllm", "parameters": {}},
        "constraints": {"tensor_parallel": 3},
    });
    let answer = answer(&rules, &model(), &question, "2xH100-80GB");
    let changes: Vec<&str> = answer
        .suggestions
        .iter()
        .map(|it| it.change.as_str())
        .collect();

    assert_eq!(
        changes,
        ["tensor_parallel=null"],
        "no engine splits over 3 of 2 devices"
    );
}

#[test]
fn context_suggestion_names_one_number() {
    let rules = Rules {
        engines: Engines::embedded().unwrap(),
        policy: Policy::default(),
    };

    let question =
        json!({"model": {"repo": "local"}, "engine": {"name": "vllm", "parameters": {}}});
    let answer = answer(&rules, &model(), &question, "RTX-4090");
    let context = answer
        .suggestions
        .iter()
        .find(|it| it.change.starts_with("context="))
        .unwrap();

    assert!(
        !context
            .message
            .contains(|letter: char| letter.is_ascii_digit()),
        "{}",
        context.message
    );
}

#[test]
fn huge_figures_name_their_field() {
    let rules = Rules {
        engines: Engines::embedded().unwrap(),
        policy: Policy::default(),
    };

    let model = model();
    let here = HostView::declared("2xH100-80GB", SystemTime::UNIX_EPOCH).unwrap();

    let asked = |engine: &str, workload: &Value, parameters: &Value, tensor: Option<u32>| {
        let question = json!({
            "model": {"repo": "local"},
            "engine": {"name": engine, "parameters": parameters},
            "workload": workload,
            "constraints": {"tensor_parallel": tensor},
        });

        evaluate::answer(
            &serde_json::from_value(question).unwrap(),
            &model,
            &here,
            &rules,
        )
    };

    for (workload, parameters, fields) in [
        (
            json!({"sequences": 1_u64 << 33}),
            json!({}),
            &["workload.sequences = 8589934592"][..],
        ),
        (
            json!({"sequences": u64::MAX, "context": 40_960}),
            json!({}),
            &["workload.sequences"],
        ),
        (
            json!({"sequences": 1_u64 << 33, "context": 20_000}),
            json!({}),
            &["workload.sequences", "workload.context"],
        ),
        (
            json!({"context": 8192}),
            json!({"max_num_seqs": i64::MAX}),
            &["engine.parameters.max_num_seqs"],
        ),
    ] {
        let problem = asked("vllm", &workload, &parameters, None).unwrap_err();
        assert_eq!(
            (problem.status, problem.reason.word()),
            (422, "usage"),
            "{problem}"
        );

        assert!(
            fields.iter().all(|field| problem.detail.contains(field)),
            "{problem}"
        );
        assert!(!problem.detail.contains("this model"), "{problem}");
    }

    // No figure of a question makes the program fail, on any engine.
    for engine in ["vllm", "sglang", "transformers", "reference"] {
        for sequences in [1 << 20, 1 << 33, 1 << 53, i64::MAX as u64, u64::MAX] {
            for context in [1_u64, 512, 20_000, 40_960, 1 << 33, 1 << 53, u64::MAX] {
                let workload = json!({"sequences": sequences, "context": context});
                for tensor in [None, Some(2)] {
                    if let Err(problem) = asked(engine, &workload, &json!({}), tensor) {
                        assert!(
                            (400..500).contains(&problem.status),
                            "{engine} {workload}: {problem}"
                        );
                        assert_eq!(
                            problem.reason.word(),
                            "usage",
                            "{engine} {workload}: {problem}"
                        );
                    }
                }
            }
        }
    }
}
