//! The adapters that vLLM can load.
//!
//! Sources: vLLM `lora/peft_helper.py` (`validate_legal`), `config/lora.py`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::refusal::{ENGINE, unsupported};
use crate::engines::EngineError;
use crate::model::Adapter;

/// Refuses an adapter that vLLM with these parameters cannot load.
pub(super) fn check(
    adapter: &Adapter,
    parameters: &BTreeMap<String, Value>,
) -> Result<(), EngineError> {
    let Some(rank) = loadable_rank(adapter).map_err(unsupported)? else {
        return Err(unsupported(
            "adapter_config.json: r is missing, so whether a slot holds the adapter is unknown",
        ));
    };

    match parameters.get("max_lora_rank").and_then(Value::as_u64) {
        Some(max_rank) if rank > max_rank => {
            let enough = rank.next_power_of_two().max(8);
            Err(bad_parameter(
                "max_lora_rank",
                max_rank.to_string(),
                format!(
                    "the adapter has rank {rank}; allocate larger slots with --set max_lora_rank={enough}"
                ),
            ))
        }
        Some(_) => Ok(()),
        None => Err(bad_parameter(
            "enable_lora",
            "false".to_owned(),
            "the adapter could not be loaded without it".to_owned(),
        )),
    }
}

/// Returns the rank of an adapter: `None` if its file does not state it, an error if vLLM cannot
/// load its kind.
fn loadable_rank(adapter: &Adapter) -> Result<Option<u64>, String> {
    if adapter.method != "LORA" {
        return Err(format!(
            "vLLM loads LoRA adapters; this one is {}",
            adapter.method
        ));
    }

    if adapter.dora {
        return Err(
            "vLLM does not run DoRA (use_dora in adapter_config.json); merge it into its base model"
                .to_owned(),
        );
    }

    if !adapter.saves.is_empty() {
        return Err(format!(
            "vLLM runs no adapter that holds whole modules (modules_to_save: {}); merge it into its base model",
            adapter.saves.join(", ")
        ));
    }

    Ok(adapter.rank)
}

fn bad_parameter(name: &str, value: String, why: String) -> EngineError {
    EngineError::BadParameter {
        engine: ENGINE,
        name: name.to_owned(),
        value,
        why,
    }
}
