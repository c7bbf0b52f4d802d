//! Which engine a question means when it names none: by format first, then by what the model is
//! for.

use crate::engines::vllm;
use crate::model::architecture::Task;
use crate::model::{Format, Model};

/// The default engine for `model`.
pub fn default_engine(model: &Model) -> &'static str {
    match model.format {
        Format::Gguf => "llama.cpp",
        Format::Diffusers => "diffusers",
        Format::Safetensors | Format::PytorchBin => match &model.architecture {
            Ok(architecture) => match architecture.task {
                // What vLLM does not run, the library that defined it does.
                Task::Generate | Task::EncodeDecode if vllm::serves(architecture) => "vllm",
                Task::Generate | Task::EncodeDecode => "transformers",
                Task::Encode | Task::Pool => "transformers",
            },
            Err(_) => "vllm",
        },
    }
}
