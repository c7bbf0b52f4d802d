//! Each suggestion is put back as a question: the verdict that it promises comes true.
#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::time::SystemTime;

use hf_mem_probe::api::answer::{Answer, Verdict};
use hf_mem_probe::api::question::Question;
use hf_mem_probe::engines::Engines;
use hf_mem_probe::model::Model;
use hf_mem_probe::model::source::{Auth, HubSettings, ModelReference, SourceClient, SourceSettings};
use hf_mem_probe::placement::Policy;
use hf_mem_probe::probe::{self, Here, Rules};
use serde_json::{Value, json};

fn model() -> std::sync::Arc<Model> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/Qwen3-8B");
    let client = SourceClient::new(SourceSettings::new(HubSettings::from_environment(|_| None).unwrap()));
    let reference = ModelReference::parse(folder, None, std::path::Path::exists).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(client.describe(&reference, &Auth::Anonymous, SystemTime::UNIX_EPOCH)).unwrap().model
}

fn answer(rules: &Rules, model: &Model, question: &Value, host: &str) -> Answer {
    let question: Question = serde_json::from_value(question.clone()).unwrap();
    probe::answer(&question, model, &Here::declared(host, SystemTime::UNIX_EPOCH).unwrap(), rules).unwrap()
}

/// The question and the host with `change` made.
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
            "context" | "sequences" | "kv_cache_dtype" | "dtype" => question["workload"][name] = given,
            "offload" => question["constraints"][name] = given,
            "engine" => {
                question["engine"] = json!({"name": value});
                question["workload"]["kv_cache_dtype"] = Value::Null;
            }
            "devices" => host = format!("{value}x{}", host.split_once('x').map_or(host.as_str(), |(_, card)| card)),
            "host_memory_bytes" => host = format!("{host},host:{}GiB", given.as_u64().unwrap().div_ceil(1 << 30)),
            _ => question["engine"]["parameters"][name] = given,
        }
    }
    (question, host)
}

#[test]
fn every_suggestion_keeps_its_promise() {
    let rules = Rules { engines: Engines::embedded().unwrap(), policy: Policy::default() };
    let model = model();
    let mut kinds = std::collections::BTreeSet::new();
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
    ] {
        let question = json!({
            "model": {"repo": "local"},
            "engine": {"name": engine, "parameters": {}},
            "workload": {"context": context, "sequences": sequences},
            "constraints": {"offload": offload},
        });
        let first = answer(&rules, &model, &question, host);
        assert_ne!(first.verdict, Some(Verdict::Fits), "{engine} {host}: nothing to suggest");
        for suggestion in &first.suggestions {
            let (question, host) = changed(&question, host, &suggestion.change);
            let then = answer(&rules, &model, &question, &host);
            assert_eq!(then.verdict, Some(suggestion.verdict), "{engine} {host}: {}", suggestion.change);
            kinds.insert(suggestion.change.split(['=', ' ']).next().unwrap().to_owned());
        }
    }
    // The loop has seen what it is there for.
    for kind in ["context", "sequences", "kv_cache_dtype", "max_num_seqs", "quantization", "devices", "engine", "free"]
    {
        assert!(kinds.contains(kind), "no question led to {kind}: {kinds:?}");
    }
}
