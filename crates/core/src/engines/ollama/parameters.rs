//! Ollama's parameters: the model options of its API and the variables of its server.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::engines::shared::parameter_names::ParameterList;
use crate::engines::{EngineError, EngineVersion};

/// The engine's name.
pub(crate) const ENGINE: &str = "ollama";

/// Ollama's parameters by name.
static PARAMETERS: ParameterList =
    ParameterList::new(ENGINE, include_str!("../profiles/parameters/ollama.toml"));

/// The given parameters, by canonical name.
pub(crate) fn read(
    version: Option<&EngineVersion>,
    given: &BTreeMap<String, Value>,
) -> Result<BTreeMap<String, Value>, EngineError> {
    PARAMETERS.counted(version, given)
}

/// The error for an invalid value of a parameter.
pub(crate) fn bad(name: &str, value: &Value, why: impl Into<String>) -> EngineError {
    EngineError::BadParameter {
        engine: ENGINE,
        name: name.to_owned(),
        value: value.to_string(),
        why: why.into(),
    }
}

/// The value of `name` as a whole number; `None` if it is not given.
pub(crate) fn whole(all: &BTreeMap<String, Value>, name: &str) -> Result<Option<u64>, EngineError> {
    let Some(value) = all.get(name) else {
        return Ok(None);
    };

    let number = value
        .as_u64()
        .or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()));

    match number {
        Some(number) if number <= 1 << 50 => Ok(Some(number)),
        _ => Err(bad(name, value, "not a whole number")),
    }
}

/// llama-server's parameters for Ollama's: `-c num_ctx x parallel -np parallel`, the rest
/// unchanged.
pub(crate) fn for_llama(
    all: &BTreeMap<String, Value>,
    batch: u64,
    slots: u64,
) -> BTreeMap<String, Value> {
    let mut given = BTreeMap::from([
        ("n_parallel".to_owned(), json!(slots)),
        ("n_batch".to_owned(), json!(batch)),
        ("n_ubatch".to_owned(), json!(batch)),
        // Whether Ollama saves prompts is unknown, and no option limits it.
        ("cache_ram".to_owned(), json!(0)),
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
