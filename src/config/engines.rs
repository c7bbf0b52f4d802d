//! `[engines]`: which engine is meant when none is named, and corrections to their profiles.

use std::path::PathBuf;

use hf_mem_core::engines::EngineSpec;
use serde::{Deserialize, Serialize};

/// The default engine and profile overrides.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EnginesConfig {
    /// Engine for language models in safetensors when a question names none; by the model's format
    /// without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_engine: Option<EngineSpec>,
    /// File with profiles that stand before the built-in ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profiles_file: Option<PathBuf>,
    /// The same in place: a table for each profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profiles: Option<toml::Table>,
}
