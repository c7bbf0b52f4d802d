//! `[hub]`: where models' metadata comes from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::units::{Period, Size};
use crate::files;

/// The Hub, its mirrors, and what is kept of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HubConfig {
    /// Where repositories are read.
    pub endpoint: String,
    /// Other endpoints for repositories whose name starts with a prefix; the longest prefix wins.
    pub endpoints: BTreeMap<String, String>,
    /// Files that hold the daemon's tokens for those endpoints, by the same prefixes. No other
    /// endpoint sees them.
    pub endpoint_token_files: BTreeMap<String, PathBuf>,
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
    /// Requests to one Hub in flight at once, over all models.
    pub concurrency: usize,
    /// Never ask the Hub: answer from what is known.
    pub offline: bool,
}

impl Default for HubConfig {
    fn default() -> Self {
        Self {
            endpoint: "https://huggingface.co".to_owned(),
            endpoints: BTreeMap::new(),
            endpoint_token_files: BTreeMap::new(),
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

/// Name of the credential that the service unit loads (`LoadCredential=hub-token:...`).
const TOKEN_CREDENTIAL: &str = "hub-token";

impl HubConfig {
    /// The file that holds the daemon's token: the configured one, or else the one in
    /// `credentials_directory` (systemd's `$CREDENTIALS_DIRECTORY`). An empty file holds no token:
    /// that is what the unit loads where none was installed.
    pub fn token_path(&self, credentials_directory: Option<&Path>) -> Option<PathBuf> {
        self.token_file.clone().or_else(|| {
            let path = credentials_directory?.join(TOKEN_CREDENTIAL);
            let asked = path.clone();
            files::wait(&path, move |disk| disk.exists(&asked))
                .unwrap_or(false)
                .then_some(path)
        })
    }

    /// The endpoint for `repo`: that of the longest prefix that it starts with.
    pub fn endpoint_for(&self, repo: &str) -> &str {
        self.endpoints
            .iter()
            .filter(|(prefix, _)| repo.starts_with(prefix.as_str()))
            .max_by_key(|(prefix, _)| prefix.len())
            .map_or(self.endpoint.as_str(), |(_, endpoint)| endpoint.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_wins() {
        let mut config = HubConfig::default();
        config
            .endpoints
            .insert("acme/".to_owned(), "https://one".to_owned());
        config
            .endpoints
            .insert("acme/private-".to_owned(), "https://two".to_owned());
        assert_eq!(config.endpoint_for("acme/model"), "https://one");
        assert_eq!(config.endpoint_for("acme/private-model"), "https://two");
        assert_eq!(config.endpoint_for("other/model"), "https://huggingface.co");
    }

    #[test]
    fn a_configured_token_file_stands_before_the_units() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = HubConfig::default();
        assert_eq!(config.token_path(None), None);
        assert_eq!(config.token_path(Some(folder.path())), None);
        std::fs::write(folder.path().join("hub-token"), "").unwrap();

        assert_eq!(
            config.token_path(Some(folder.path())),
            Some(folder.path().join("hub-token"))
        );
        config.token_file = Some("/etc/token".into());

        assert_eq!(
            config.token_path(Some(folder.path())),
            Some("/etc/token".into())
        );
    }
}
