//! Model options from the request and the Modelfile, and the default context.

use std::collections::BTreeMap;

use serde_json::Value;

use super::parameters;
use super::profile::{self, OllamaProfile};
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::engines::{EngineError, EngineVersion};
use crate::model::Model;
use crate::model::architecture::Architecture;

/// The given options; the Modelfile fills missing ones.
pub(super) fn options(
    model: &Model,
    version: Option<&EngineVersion>,
    given: &BTreeMap<String, Value>,
) -> Result<BTreeMap<String, Value>, EngineError> {
    let mut options = parameters::read(version, given)?;
    let modelfile = model
        .components
        .iter()
        .find(|part| part.name == "parameters" && part.class == "ollama");
    let modelfile = modelfile.and_then(|part| part.config.as_ref()?.as_object());
    for name in ["num_ctx", "num_batch", "num_gpu", "use_mmap"] {
        if let Some(value) = modelfile.and_then(|modelfile| modelfile.get(name)) {
            options
                .entry(name.to_owned())
                .or_insert_with(|| value.clone());
        }
    }

    Ok(options)
}

/// The default `num_ctx`: by the memory of all devices together (`server/routes.go`), within the
/// model's own maximum.
pub(super) fn context_by_memory<'d>(
    profile: &OllamaProfile,
    options: &BTreeMap<String, Value>,
    architecture: &Architecture,
    devices: impl Iterator<Item = &'d DeviceFacts>,
) -> Result<u64, EngineError> {
    let overhead = parameters::whole(options, "gpu_overhead")?
        .map_or(Bytes::mib(profile.gpu_overhead_mib), Bytes::new);
    let memory: Bytes = devices
        .map(|device| device.total_bytes.less(overhead).unwrap_or(Bytes::ZERO))
        .sum();

    Ok(profile
        .default_context(memory)
        .min(architecture.max_context.unwrap_or(u64::MAX)))
}

/// The default context of Ollama's server for `model` on a host with `devices`.
///
/// `None` if the parameters set a context. Errors in them are reported when the engine is prepared.
pub(super) fn context_by_host(
    model: &Model,
    parameters: &BTreeMap<String, Value>,
    devices: &[&DeviceFacts],
) -> Option<u64> {
    let options = options(model, None, parameters)
        .ok()
        .filter(|options| !options.contains_key("num_ctx"))?;
    let architecture = model.architecture.as_ref().ok()?;

    context_by_memory(
        &profile::profile().ok()?,
        &options,
        architecture,
        devices.iter().copied(),
    )
    .ok()
}
