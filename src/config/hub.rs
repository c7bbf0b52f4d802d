//! `[hub]`: where models' metadata comes from.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::units::{Period, Size};

/// The Hub, its mirrors, and what is kept of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HubConfig {
    /// Where repositories are read.
    pub endpoint: String,
    /// Other endpoints for repositories whose name starts with a prefix; the longest prefix wins.
    pub endpoints: BTreeMap<String, String>,
    /// File that holds the daemon's token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Folder of known models.
    pub cache_directory: PathBuf,
    /// Most that the folder may hold; the models asked for longest ago leave first.
    pub cache_size: Size,
    /// How long a branch is taken to point at the same commit.
    pub branch_age: Period,
    /// Longest wait for a connection.
    pub connect_timeout: Period,
    /// Longest wait for the next bytes of an answer.
    pub read_timeout: Period,
    /// Longest time spent on one model, retries included.
    pub retry_budget: Period,
    /// Requests in flight at once, over all models.
    pub concurrency: usize,
    /// Never ask the Hub: answer from what is known.
    pub offline: bool,
}

impl Default for HubConfig {
    fn default() -> Self {
        Self {
            endpoint: "https://huggingface.co".to_owned(),
            endpoints: BTreeMap::new(),
            token_file: None,
            cache_directory: "/var/cache/hf-mem-probe".into(),
            cache_size: Size::mib(512),
            branch_age: Period::seconds(300),
            connect_timeout: Period::seconds(5),
            read_timeout: Period::seconds(15),
            retry_budget: Period::seconds(45),
            concurrency: 16,
            offline: false,
        }
    }
}
