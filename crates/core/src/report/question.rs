//! The question. Only `model` is required.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::bounded;
use super::raw_json::RawJson;
use crate::engines::EngineVersion;

/// A question: a model, an engine, a workload, constraints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The model.
    pub model: ModelQuestion,
    /// The draft model that proposes tokens for the model to check.
    // Left out if absent, because earlier daemons reject a field that they do not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft: Option<ModelQuestion>,
    /// The engine; the default for the model's format if absent.
    #[serde(default)]
    pub engine: EngineQuestion,
    /// The workload to hold.
    #[serde(default)]
    pub workload: WorkloadQuestion,
    /// The constraints that the placement must satisfy.
    #[serde(default)]
    pub constraints: Constraints,
    /// Declared devices (`8xH100-80GB`) instead of this host's.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1))]
    pub gpus: Option<String>,
    /// Whether to compute the whole frontier of context by sequences.
    #[serde(default)]
    pub frontier: bool,
}

/// The model or the draft of a question.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ModelQuestion {
    /// `owner/name`, or with `metadata` the name under which a local model is reported.
    #[cfg_attr(feature = "openapi", schema(min_length = 1))]
    pub repo: String,
    /// Branch, tag or commit; `main` if absent.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 255))]
    pub revision: Option<String>,
    /// A file of the repository, or a quantization's name (`Q4_K_M`).
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 1024))]
    pub file: Option<String>,
    /// Metadata that the client has read itself, for local models. The daemon opens no path on
    /// behalf of a client.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub metadata: Option<RawJson>,
}

/// The engine of a question.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct EngineQuestion {
    /// `vllm`, `sglang`, `llama.cpp`, `ollama`, `transformers`, `diffusers`, `ctranslate2`,
    /// `reference`.
    #[serde(default)]
    pub name: Option<String>,
    /// Its version; the newest profile if absent.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "0.33"))]
    pub version: Option<EngineVersion>,
    /// Parameters by the engine's own names, up to 4096 values with nested ones.
    #[serde(default, deserialize_with = "bounded::parameters")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub parameters: BTreeMap<String, Value>,
}

/// The workload of a question.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct WorkloadQuestion {
    /// Tokens of one sequence, or `"max"`; the engine's default if absent.
    #[serde(default)]
    pub context: Option<ContextQuestion>,
    /// Sequences held at the same time; 1 if absent.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub sequences: Option<u64>,
    /// The dtype of the KV cache, by the engine's own name.
    #[serde(default)]
    pub kv_cache_dtype: Option<String>,
    /// The dtype that weights are cast to, by the engine's own name.
    #[serde(default)]
    pub dtype: Option<String>,
}

/// A context length, or the model's maximum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum ContextQuestion {
    /// This many tokens.
    Tokens(u64),
    /// `"max"`.
    Word(MaxWord),
}

impl ContextQuestion {
    /// Returns the tokens, if they are a number.
    pub fn tokens(&self) -> Option<u64> {
        match self {
            Self::Tokens(tokens) => Some(*tokens),
            Self::Word(_) => None,
        }
    }
}

/// Not derived: the derived one builds any value before it checks what it is.
impl<'de> Deserialize<'de> for ContextQuestion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Context;
        impl Visitor<'_> for Context {
            type Value = ContextQuestion;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of tokens or \"max\"")
            }

            fn visit_u64<E>(self, tokens: u64) -> Result<ContextQuestion, E> {
                Ok(ContextQuestion::Tokens(tokens))
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<ContextQuestion, E> {
                match word {
                    "max" => Ok(ContextQuestion::Word(MaxWord::Max)),
                    _ => Err(E::invalid_value(Unexpected::Str(word), &self)),
                }
            }
        }

        deserializer.deserialize_any(Context)
    }
}

/// The one word that is valid as a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum MaxWord {
    /// The model's maximum.
    Max,
}

/// The constraints of a question.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Constraints {
    /// Exactly this tensor-parallel degree.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub tensor_parallel: Option<u32>,
    /// Exactly this many pipeline stages.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub pipeline_parallel: Option<u32>,
    /// Only these devices, by UUID, index or PCI address.
    #[serde(default, deserialize_with = "bounded::devices")]
    #[cfg_attr(feature = "openapi", schema(max_items = 4096))]
    pub devices: Option<Vec<String>>,
    /// Whether host memory may be used.
    #[serde(default)]
    pub offload: OffloadRule,
}

/// Whether host memory may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum OffloadRule {
    /// Layers or experts may stay in host memory.
    Allow,
    /// Everything must be on devices.
    #[default]
    Deny,
}
