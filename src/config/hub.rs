//! `[hub]`: the source of models' metadata.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::units::{self, Size};
use crate::files;

/// The Hub, its mirrors, and the cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HubConfig {
    /// The endpoint of all repositories that `endpoints` does not list.
    pub endpoint: String,
    /// Other endpoints, by the beginning of a repository's name. The longest prefix wins.
    pub endpoints: BTreeMap<String, String>,
    /// Files with the daemon's tokens for those endpoints, by the same prefixes. The daemon sends
    /// such a token to no other endpoint.
    pub endpoint_token_files: BTreeMap<String, PathBuf>,
    /// The file with the daemon's token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The folder of known models.
    pub cache_directory: PathBuf,
    /// The most bytes in the folder. The least recently requested models are evicted first.
    pub cache_size: Size,
    /// How long the daemon assumes that a branch points to the same commit.
    #[serde(with = "units::duration")]
    pub branch_age: Duration,
    /// The longest wait for a connection.
    #[serde(with = "units::duration")]
    pub connect_timeout: Duration,
    /// The longest wait for the next bytes of a response.
    #[serde(with = "units::duration")]
    pub read_timeout: Duration,
    /// The longest time spent on one model, retries included.
    #[serde(with = "units::duration")]
    pub retry_budget: Duration,
    /// Concurrent requests to one Hub, over all models.
    pub concurrency: usize,
    /// Never contact the Hub: answer from known models.
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
            branch_age: Duration::from_secs(300),
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(15),
            retry_budget: Duration::from_secs(45),
            concurrency: 16,
            offline: false,
        }
    }
}

/// Name of the credential that the service unit loads (`LoadCredential=hub-token:...`).
const TOKEN_CREDENTIAL: &str = "hub-token";

impl HubConfig {
    /// Returns the file with the daemon's token.
    ///
    /// It is the configured one, else the credential in `credentials_directory` (systemd's
    /// `$CREDENTIALS_DIRECTORY`). An empty file contains no token: the unit loads an empty file if
    /// no token is installed.
    pub fn token_path(&self, credentials_directory: Option<&Path>) -> Option<PathBuf> {
        self.token_file.clone().or_else(|| {
            let path = credentials_directory?.join(TOKEN_CREDENTIAL);
            let file = path.clone();
            files::wait(&path, move |disk| disk.exists(&file))
                .unwrap_or(false)
                .then_some(path)
        })
    }

    /// Returns the endpoint for `repo`: that of the longest prefix that it starts with.
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
    fn longest_prefix_wins() {
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
    fn configured_token_file_overrides_credential() {
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
