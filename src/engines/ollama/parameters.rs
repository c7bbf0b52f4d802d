//! Ollama's parameters: the model options of its API and the variables of its server.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::engines::{EngineError, nearest_name};

/// The engine's name.
pub(crate) const ENGINE: &str = "ollama";

/// Canonical names and the server's variables that mean the same.
const NAMES: &[(&str, &[&str])] = &[
    ("num_ctx", &["OLLAMA_CONTEXT_LENGTH"]),
    ("num_batch", &[]),
    ("num_parallel", &["OLLAMA_NUM_PARALLEL"]),
    ("num_gpu", &[]),
    ("flash_attention", &["OLLAMA_FLASH_ATTENTION"]),
    ("kv_cache_type", &["OLLAMA_KV_CACHE_TYPE"]),
    ("gpu_overhead", &["OLLAMA_GPU_OVERHEAD"]),
    ("use_mmap", &[]),
];

/// What was set, by canonical name.
pub(crate) fn read(given: &BTreeMap<String, Value>) -> Result<BTreeMap<&'static str, Value>, EngineError> {
    let mut all = BTreeMap::new();
    for (given_name, value) in given {
        let found = NAMES.iter().find(|(name, others)| name == given_name || others.contains(&given_name.as_str()));
        let Some((name, _)) = found else {
            let known = NAMES.iter().flat_map(|(name, others)| std::iter::once(*name).chain(others.iter().copied()));
            let nearest = nearest_name(given_name, known);
            return Err(EngineError::UnknownParameter { engine: ENGINE, name: given_name.clone(), nearest });
        };
        if all.insert(*name, value.clone()).is_some() {
            return Err(bad(given_name, value, "given twice, under two names"));
        }
    }
    Ok(all)
}

/// A parameter's refusal.
pub(crate) fn bad(name: &str, value: &Value, why: impl Into<String>) -> EngineError {
    EngineError::BadParameter { engine: ENGINE, name: name.to_owned(), value: value.to_string(), why: why.into() }
}

/// A whole number, where it was given.
pub(crate) fn whole(all: &BTreeMap<&'static str, Value>, name: &str) -> Result<Option<u64>, EngineError> {
    let Some(value) = all.get(name) else { return Ok(None) };
    let number = value.as_u64().or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()));
    match number {
        Some(number) if number <= 1 << 50 => Ok(Some(number)),
        _ => Err(bad(name, value, "not a whole number")),
    }
}

/// llama-server's parameters for what Ollama was given: `-c num_ctx x parallel -np parallel`, the rest as they are.
pub(crate) fn for_llama(all: &BTreeMap<&'static str, Value>, batch: u64, slots: u64) -> BTreeMap<String, Value> {
    let mut given = BTreeMap::from([
        ("n_parallel".to_owned(), json!(slots)),
        ("n_batch".to_owned(), json!(batch)),
        ("n_ubatch".to_owned(), json!(batch)),
    ]);
    let same = [
        ("num_gpu", "n_gpu_layers"),
        ("flash_attention", "flash_attn"),
        ("kv_cache_type", "type_k"),
        ("kv_cache_type", "type_v"),
        ("use_mmap", "use_mmap"),
    ];
    for (ours, theirs) in same {
        if let Some(value) = all.get(ours) {
            given.insert(theirs.to_owned(), value.clone());
        }
    }
    given
}
