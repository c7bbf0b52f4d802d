//! The model of an answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::Format;
use crate::wire_word::{WireWord, Word};

/// The model, as found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ModelAnswer {
    /// `owner/name`, or the path.
    pub repo: String,
    /// The requested revision.
    pub revision: Option<String>,
    /// The commit of the revision.
    pub commit: Option<String>,
    /// The requested or chosen file.
    pub file: Option<String>,
    /// `safetensors`, `gguf`, `diffusers`, `pytorch_bin`, `ctranslate2`.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub format: Option<WireWord<Format>>,
    /// The class or GGUF architecture.
    pub architecture: Option<String>,
    /// `speech_to_text` for a model that transcribes audio; absent for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub task: Option<WireWord<ModelTask>>,
    /// The number of logical parameters.
    pub parameters: Option<u64>,
    /// Stored bytes of the weights.
    pub weights_bytes: Option<u64>,
    /// Stored bytes by dtype.
    pub weights_by_dtype_bytes: BTreeMap<String, u64>,
    /// Stored bytes by component of a pipeline (empty for single models).
    pub weights_by_component_bytes: BTreeMap<String, u64>,
    /// Stored bytes of routed experts, for a mixture of experts.
    pub expert_weights_bytes: Option<u64>,
    /// Quantization method.
    pub quantization: Option<String>,
    /// The longest context that the model is configured for.
    pub max_context: Option<u64>,
    /// The number of files that hold the weights.
    pub weight_files: Option<u32>,
    /// The requested adapter; all other figures are those of its base model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterAnswer>,
    /// The requested draft; no other figure here includes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft: Option<DraftAnswer>,
}

/// The task of a model that does not generate from text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelTask {
    /// Transcribes audio.
    SpeechToText,
}

impl Word for ModelTask {
    const ALL: &'static [Self] = &[Self::SpeechToText];

    fn word(self) -> &'static str {
        match self {
            Self::SpeechToText => "speech_to_text",
        }
    }
}

impl Word for Format {
    const ALL: &'static [Self] = &[
        Self::Safetensors,
        Self::Gguf,
        Self::Diffusers,
        Self::PytorchBin,
        Self::Ctranslate2,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Gguf => "gguf",
            Self::Diffusers => "diffusers",
            Self::PytorchBin => "pytorch_bin",
            Self::Ctranslate2 => "ctranslate2",
        }
    }
}

/// An adapter and its base model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AdapterAnswer {
    /// The base model's `owner/name` or path.
    pub base_repo: String,
    /// The commit of the base model.
    pub base_commit: Option<String>,
    /// `lora`, `loha`, `ia3`, ...
    pub method: String,
    /// The largest rank of its matrices.
    pub rank: Option<u64>,
    /// Stored bytes of the adapter's own tensors.
    pub stored_bytes: u64,
}

/// A draft model, whose proposed tokens the model checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DraftAnswer {
    /// `owner/name`, or the path.
    pub repo: String,
    /// The requested revision.
    pub revision: Option<String>,
    /// The commit of the revision.
    pub commit: Option<String>,
    /// The requested or chosen file.
    pub file: Option<String>,
    /// The class or GGUF architecture.
    pub architecture: Option<String>,
    /// The number of logical parameters.
    pub parameters: Option<u64>,
    /// Stored bytes of the weights.
    pub weights_bytes: u64,
}
