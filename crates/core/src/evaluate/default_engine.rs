//! The default engine of a question, by the format and the task of the model.

use crate::engines::vllm;
use crate::model::architecture::Task;
use crate::model::{Format, Model};

/// Returns the default engine for `model`.
pub fn default_engine(model: &Model) -> &'static str {
    match model.format {
        Format::Gguf => "llama.cpp",
        Format::Diffusers => "diffusers",
        Format::Safetensors | Format::PytorchBin => match &model.architecture {
            Ok(architecture) => match architecture.task {
                // The library that defined the model runs what vLLM does not.
                Task::Generate | Task::EncodeDecode if vllm::serves(architecture) => "vllm",
                Task::Generate | Task::EncodeDecode => "transformers",
                Task::Encode | Task::Pool => "transformers",
            },
            Err(_) => "vllm",
        },
    }
}
