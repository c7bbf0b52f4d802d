//! The default engine of a question, by the format and the task of the model.

use crate::engines::{architectures, vllm};
use crate::model::architecture::Task;
use crate::model::{Format, Model};

/// Returns the default engine for `model`.
pub fn default_engine(model: &Model) -> &'static str {
    match model.format {
        Format::Gguf => "llama.cpp",
        Format::Diffusers => "diffusers",
        Format::Ctranslate2 => "ctranslate2",
        _ if defaults_to_vllm(model) => "vllm",
        // The library that defined a model runs what vLLM does not.
        Format::Safetensors | Format::PytorchBin => "transformers",
    }
}

/// Whether vLLM is the default engine for `model`, so that a site can choose another server.
pub fn defaults_to_vllm(model: &Model) -> bool {
    if !matches!(model.format, Format::Safetensors | Format::PytorchBin) {
        return false;
    }

    model
        .architecture
        .as_ref()
        .map_or(true, |architecture| match architecture.task {
            Task::Generate | Task::EncodeDecode => {
                vllm::serves(architecture)
                    && architectures::check("vllm", None, architecture).is_ok()
            }
            Task::Encode | Task::Pool => false,
        })
}
