//! The context that llama-server's `--fit` chooses if none is asked for.
#![allow(clippy::unwrap_used, reason = "test helpers")]

use std::collections::BTreeMap;
use std::time::SystemTime;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::declared;
use hf_mem_core::engines::{AskedWorkload, Engines};
use hf_mem_core::placement::{Ask, Constraints, Plan, Policy, availability, plan};
use hf_mem_core::report::problem::Reason;
use serde_json::{Value, json};
use support::gguf_corpus::{model, parsed};
use support::gguf_writer::{Header, Kv};

mod support {
    pub mod gguf_corpus;
    pub mod gguf_writer;
}

/// A Llama of 8 billion parameters in Q8_0.
fn llama_8b() -> Header {
    let mut header = Header::default().with("general.architecture", Kv::Text("llama".into()));
    let keys = [
        ("block_count", 32),
        ("embedding_length", 4096),
        ("feed_forward_length", 14_336),
        ("attention.head_count", 32),
        ("attention.head_count_kv", 8),
        ("vocab_size", 128_256),
        ("context_length", 131_072),
    ];
    for (key, value) in keys {
        header = header.with(&format!("llama.{key}"), Kv::U32(value));
    }

    let mut tensors = vec![
        ("token_embd.weight".to_owned(), 4096, 128_256),
        ("output.weight".to_owned(), 4096, 128_256),
    ];
    for layer in 0..32 {
        let block = [
            ("attn_q", 4096, 4096),
            ("attn_k", 4096, 1024),
            ("attn_v", 4096, 1024),
            ("attn_output", 4096, 4096),
            ("ffn_gate", 4096, 14_336),
            ("ffn_up", 4096, 14_336),
            ("ffn_down", 14_336, 4096),
        ];
        for (name, row, rows) in block {
            tensors.push((format!("blk.{layer}.{name}.weight"), row, rows));
        }
    }

    for (name, row, rows) in tensors {
        header = header.tensor(&name, &[row, rows], 8, row * rows / 32 * 34);
    }

    header
}

/// Plans without a context on a card of 12 GiB.
fn plan_with(parameters: &[(&str, Value)]) -> Plan {
    plan_on("1x12GiB", Bytes::ZERO, parameters)
}

/// Plans without a context on a host whose first card has `leased` bytes in leases.
fn plan_on(host: &str, leased: Bytes, parameters: &[(&str, Value)]) -> Plan {
    let (model, engines) = (model(parsed(&llama_8b())), Engines::embedded().unwrap());
    let given = parameters.iter();
    let parameters = given.map(|(name, value)| ((*name).to_owned(), value.clone()));
    let parameters: BTreeMap<String, Value> = parameters.collect();
    let host = declared::parse(host, SystemTime::UNIX_EPOCH).unwrap();
    let leased = BTreeMap::from([(host.devices[0].facts.uuid.clone(), leased)]);

    let ask = Ask {
        engine: engines.by_name("llama.cpp").unwrap(),
        model: &model,
        version: None,
        parameters: &parameters,
        asked: AskedWorkload::default(),
        constraints: Constraints::default(),
        policy: Policy::default(),
    };
    plan(&ask, &availability(&host, &leased)).unwrap()
}

#[test]
fn default_context_shrinks_to_fit() {
    let plan = plan_with(&[]);
    assert_eq!(plan.reason, Reason::Fits, "{}", plan.why);
    let context = plan.settled.unwrap().workload.context;
    assert!((4096..131_072).contains(&context), "{context}");
    assert!(context.is_multiple_of(256), "{context}");
    assert!(
        plan.assumptions
            .iter()
            .any(|text| text.contains("shrinks its default")),
        "{:?}",
        plan.assumptions
    );
}

#[test]
fn given_context_stays() {
    for parameters in [[("fit", json!(false))], [("n_ctx", json!(0))]] {
        let plan = plan_with(&parameters);
        assert_eq!(plan.reason, Reason::InsufficientMemory);
        assert_eq!(plan.settled.unwrap().workload.context, 131_072);
    }
}

/// llama-server fits its context to the memory that the driver calls free, leases included.
#[test]
fn context_stays_next_to_leases() {
    let plan = plan_on("1x80GiB", Bytes::gib(60), &[]);
    assert_eq!(plan.reason, Reason::Leased, "{}", plan.why);
    assert_eq!(plan.settled.unwrap().workload.context, 131_072);
}
