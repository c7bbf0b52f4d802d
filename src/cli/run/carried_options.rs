//! Options of `run` that reach the server, and those that do not.
//!
//! Without `{args}` and `--flags` a server gets its own flags alone: an option that they do not
//! carry would shrink the lease, and not what the server takes.

use std::collections::{BTreeMap, BTreeSet};

use hf_mem_core::report::Question;
use hf_mem_core::report::question::{ContextQuestion, OffloadRule};
use serde_json::Value;

use super::server_line::Server;

/// Parameters of Ollama that `run` passes to the server in variables.
const SET_BY_VARIABLES: &[&str] = &[
    "num_ctx",
    "num_parallel",
    "kv_cache_type",
    "OLLAMA_CONTEXT_LENGTH",
    "OLLAMA_NUM_PARALLEL",
    "OLLAMA_KV_CACHE_TYPE",
];
/// Parameters that keep part of the model in host memory.
const OFFLOADS: &[&str] = &[
    "n_gpu_layers",
    "n_cpu_moe",
    "cpu_moe",
    "cpu_offload_gb",
    "no_kv_offload",
];

/// Takes out of `question` the options that `carried`, the parameters of the command, have no value
/// for. Returns a note that names them.
pub(super) fn drop_uncarried(
    question: &mut Question,
    server: Server,
    carried: &BTreeMap<String, Value>,
) -> Option<String> {
    let by_variables = server == Server::Ollama;
    let workload = &mut question.workload;
    let mut dropped = Vec::new();

    if !by_variables && let Some(context) = workload.context.take() {
        dropped.push(match context {
            ContextQuestion::Tokens(tokens) => format!("--context {tokens}"),
            ContextQuestion::Word(_) => "--context max".to_owned(),
        });
    }

    let holds_sequences = |wanted: u64| by_variables || most_sequences(carried) >= Some(wanted);
    if let Some(sequences) = workload
        .sequences
        .take_if(|wanted| !holds_sequences(*wanted))
    {
        dropped.push(format!("--sequences {sequences}"));
    }

    if !by_variables && let Some(dtype) = workload.kv_cache_dtype.take() {
        dropped.push(format!("--kv-cache-dtype {dtype}"));
    }

    if let Some(dtype) = workload.dtype.take() {
        dropped.push(format!("--dtype {dtype}"));
    }

    let offloads = OFFLOADS.iter().any(|name| carried.contains_key(*name));
    if question.constraints.offload == OffloadRule::Allow && !offloads {
        question.constraints.offload = OffloadRule::Deny;
        dropped.push("--offload allow".to_owned());
    }

    dropped.extend(drop_parameters(question, server, carried));

    if dropped.is_empty() {
        return None;
    }

    Some(format!(
        "CMD does not carry {}: the lease is computed without; give CMD the flags for it, or add --flags",
        dropped.join(", ")
    ))
}

/// The same for `--set`.
fn drop_parameters(
    question: &mut Question,
    server: Server,
    carried: &BTreeMap<String, Value>,
) -> Vec<String> {
    let reaches = |name: &str| {
        let by_variable = server == Server::Ollama && SET_BY_VARIABLES.contains(&name);
        carried.contains_key(name) || by_variable
    };

    // `--set ctx-size=4096` says the same as `-c 4096`.
    let carried_names: BTreeSet<&str> = carried
        .keys()
        .map(|name| server.canonical_name(name))
        .collect();

    let mut dropped = Vec::new();
    question.engine.parameters.retain(|name, value| {
        let canonical = server.canonical_name(name);
        let keeps =
            reaches(name) && (carried.contains_key(name) || !carried_names.contains(canonical));
        if !keeps && !carried_names.contains(canonical) {
            dropped.push(format!("--set {name}={value}"));
        }
        keeps
    });

    dropped
}

/// How many sequences the command holds at once, where it says so and the engine takes more than
/// are asked for.
fn most_sequences(carried: &BTreeMap<String, Value>) -> Option<u64> {
    ["max_num_seqs", "max_running_requests"]
        .iter()
        .find_map(|name| carried.get(*name)?.as_u64())
}
