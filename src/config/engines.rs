//! `[engines]`: the default engine, and corrections to engine profiles.

use std::path::PathBuf;

use hf_mem_core::engines::EngineSpec;
use serde::{Deserialize, Serialize};

/// The default engine and profile overrides.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EnginesConfig {
    /// The engine for language models in safetensors if a question names none. Without it the
    /// model's format decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_engine: Option<EngineSpec>,
    /// A file with profiles that override the built-in ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profiles_file: Option<PathBuf>,
    /// The same inline: a table for each profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profiles: Option<toml::Table>,
}
