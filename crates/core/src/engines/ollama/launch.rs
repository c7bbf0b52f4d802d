//! The `ollama run` command and the server's environment for an answer.

use std::collections::BTreeMap;

use crate::engines::llama_cpp::LlamaCppPrepared;
use crate::engines::{Launch, LaunchPlan, PreparedEngine};
use crate::model::{Identity, Model};

/// The model name for `ollama run`: Hub repositories with their quantization, files by a Modelfile.
fn source(identity: &Identity) -> String {
    let local = identity.repo.starts_with(['/', '.', '~']);
    let stem = identity
        .file
        .as_deref()
        .and_then(|file| file.strip_suffix(".gguf"));

    if let Some(name) = identity.repo.strip_prefix("ollama:") {
        return name.to_owned();
    }
    // The suffix `-00001-of-00003` of a file in parts is not part of the name.
    let whole = stem.map(|stem| {
        stem.rsplit_once("-of-")
            .and_then(|(first, _)| first.rsplit_once('-'))
            .map_or(stem, |it| it.0)
    });

    let quantization = whole.and_then(|stem| stem.rsplit(['-', '.']).next());
    match quantization {
        _ if local => identity.repo.clone(),
        Some(quantization) => format!("hf.co/{}:{quantization}", identity.repo),
        None => format!("hf.co/{}", identity.repo),
    }
}

/// Environment and arguments for `plan`.
pub(super) fn launch(llama: &LlamaCppPrepared<'_>, model: &Model, plan: &LaunchPlan<'_>) -> Launch {
    let devices = plan
        .devices
        .iter()
        .map(|device| device.facts.uuid.as_str())
        .collect::<Vec<_>>()
        .join(",");
    let mut env = BTreeMap::from([
        ("CUDA_VISIBLE_DEVICES".to_owned(), devices),
        (
            "OLLAMA_CONTEXT_LENGTH".to_owned(),
            plan.workload.context.to_string(),
        ),
        (
            "OLLAMA_NUM_PARALLEL".to_owned(),
            plan.workload.sequences.to_string(),
        ),
    ]);

    let cache_type = llama.kv_cache_dtype();
    if cache_type != "f16" {
        env.insert("OLLAMA_KV_CACHE_TYPE".to_owned(), cache_type);
        env.insert("OLLAMA_FLASH_ATTENTION".to_owned(), "1".to_owned());
    }

    if plan.devices.len() > 1 {
        env.insert("OLLAMA_SCHED_SPREAD".to_owned(), "1".to_owned());
    }
    // The variables are the server's; `ollama run` connects to a server started with them.
    let args = vec![
        "ollama".to_owned(),
        "run".to_owned(),
        source(&model.identity),
    ];

    Launch {
        env,
        args,
        takes: vec![None; plan.devices.len()],
    }
}
