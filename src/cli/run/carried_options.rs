//! Options of `run` that do not reach the server.
//!
//! Without `{args}` and `--flags` a server gets only its own flags. An option that these do not
//! repeat would shrink the lease, but not the memory that the server takes.

use std::collections::{BTreeMap, BTreeSet};

use hf_mem_core::report::Question;
use hf_mem_core::report::question::{ContextQuestion, OffloadRule};
use serde_json::Value;

use super::draft::drop_uncarried_draft;
use super::server::Server;

/// Ollama parameters that `run` passes to the server in environment variables.
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

/// Removes the options of `question` that are not in `carried`, the command's own parameters.
///
/// Returns a note that names the removed options.
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

    let max_sequences = max_sequences(carried);
    if let Some(sequences) = workload
        .sequences
        .take_if(|wanted| !by_variables && max_sequences < Some(*wanted))
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

    dropped.extend(drop_uncarried_draft(question, server, carried));
    dropped.extend(drop_parameters(question, server, carried));

    // llama-server fits an unset context to the memory that the driver calls free, leases included.
    // The lease must hold what it takes at the most: the default.
    let has_context = carried
        .keys()
        .any(|name| server.canonical_name(name) == "n_ctx");
    if server == Server::Llama && !has_context {
        let parameters = &mut question.engine.parameters;
        parameters.insert("fit".to_owned(), Value::from(false));
    }

    if dropped.is_empty() {
        return None;
    }

    Some(format!(
        "CMD does not set {}, so the lease ignores it: add the flags to CMD, or use --flags",
        dropped.join(", ")
    ))
}

/// Removes the parameters of `--set` that do not reach the server.
fn drop_parameters(
    question: &mut Question,
    server: Server,
    carried: &BTreeMap<String, Value>,
) -> Vec<String> {
    // `--set ctx-size=4096` means the same as `-c 4096`.
    let carried_names: BTreeSet<&str> = carried
        .keys()
        .map(|name| server.canonical_name(name))
        .collect();

    let mut dropped = Vec::new();
    question.engine.parameters.retain(|name, value| {
        if carried.contains_key(name) {
            return true;
        }

        // The command's own value replaces one under another spelling of the name.
        if carried_names.contains(server.canonical_name(name)) {
            return false;
        }

        let is_variable = server == Server::Ollama && SET_BY_VARIABLES.contains(&name.as_str());
        if !is_variable {
            dropped.push(format!("--set {name}={value}"));
        }

        is_variable
    });

    dropped
}

/// Returns the command's limit of sequences, for engines whose limit may exceed `--sequences`.
fn max_sequences(carried: &BTreeMap<String, Value>) -> Option<u64> {
    ["max_num_seqs", "max_running_requests"]
        .iter()
        .find_map(|name| carried.get(*name)?.as_u64())
}
