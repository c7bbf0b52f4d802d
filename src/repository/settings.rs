//! Settings of Hubs and local folders, from the environment and the configuration.
//!
//! The names are huggingface_hub's own (`constants.py`): `HF_ENDPOINT`, `HF_HUB_OFFLINE`,
//! `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HOME`, `HF_HUB_CACHE`; the proxy names are curl's. The TLS
//! library itself reads `SSL_CERT_FILE` and `SSL_CERT_DIR` when it loads the system's certificates.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::error::SourceError;
use super::token::{self, Token};
use crate::files;

/// Which sources to read, and how much of their metadata to keep.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    /// Hubs, tokens, proxies and limits.
    pub hub: HubSettings,
    /// Folders of Ollama and LM Studio.
    pub folders: LocalFolders,
    /// Folder of the metadata cache; `None` disables the cache on disk.
    pub cache_folder: Option<PathBuf>,
    /// Maximum bytes in that folder.
    pub cache_bytes: u64,
    /// Maximum models in memory; each takes some ten kilobytes.
    pub max_cached_models: usize,
    /// Maximum bytes that they take together.
    pub max_cached_bytes: u64,
    /// How long a branch counts as unchanged before the Hub is asked again.
    pub revalidate_after: Duration,
    /// Deadline of one access to a file.
    pub file_deadline: Duration,
}

impl SourceSettings {
    /// Returns the defaults around `hub`.
    pub fn new(hub: HubSettings) -> Self {
        Self {
            hub,
            folders: LocalFolders::default(),
            cache_folder: None,
            cache_bytes: 256 << 20,
            max_cached_models: 512,
            max_cached_bytes: 64 << 20,
            revalidate_after: Duration::from_secs(600),
            // Listing a folder on a slow network is one access.
            file_deadline: Duration::from_secs(30),
        }
    }
}

/// Hubs, tokens, proxies and limits.
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// The default Hub, for repositories that no prefix in `endpoints` matches.
    pub endpoint: Url,
    /// Other Hubs by prefix of the repository's name, such as `acme/`; the longest match wins.
    pub endpoints: Vec<PrefixEndpoint>,
    /// Whether network access is disabled.
    pub offline: bool,
    /// The user's own token for [`Self::endpoint`].
    pub token: Option<Token>,
    /// The Hugging Face cache (`.../hub`); `None` without a home folder.
    pub cache_folder: Option<PathBuf>,
    /// Proxies.
    pub proxies: Proxies,
    /// Limits.
    pub limits: HubLimits,
}

/// Folders of other programs that store models.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalFolders {
    /// Ollama's (`OLLAMA_MODELS`, `~/.ollama/models`).
    pub ollama: Option<PathBuf>,
    /// LM Studio's (`~/.lmstudio/models`).
    pub lm_studio: Option<PathBuf>,
}

impl LocalFolders {
    /// Reads the environment through `variable`.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let path_in = |name: &str| non_empty(&variable, name).map(PathBuf::from);
        let home = path_in("HOME");
        let in_home = |path: &str| home.as_ref().map(|home| home.join(path));

        Self {
            ollama: path_in("OLLAMA_MODELS").or_else(|| in_home(".ollama/models")),
            lm_studio: in_home(".lmstudio/models"),
        }
    }
}

/// A Hub for the repositories with a prefix.
#[derive(Clone, Debug)]
pub struct PrefixEndpoint {
    /// Prefix of their names: `acme/`.
    pub prefix: String,
    /// Its address.
    pub endpoint: Url,
    /// Its token, which is never sent to another Hub.
    pub token: Option<Token>,
}

/// Proxies by the scheme of the request, from the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http://` (`http_proxy`).
    pub http: Option<String>,
    /// For `https://` (`HTTPS_PROXY`).
    pub https: Option<String>,
    /// For both (`ALL_PROXY`).
    pub all: Option<String>,
    /// Hosts to connect to without a proxy (`NO_PROXY`).
    pub none_for: Option<String>,
}

/// Limits of time, bytes and concurrency.
#[derive(Clone, Copy, Debug)]
pub struct HubLimits {
    /// Maximum time of all requests for one model together, waits and retries included.
    pub total: Duration,
    /// Maximum time of one request until its response begins, and of each wait for more of it.
    pub attempt: Duration,
    /// Maximum time to establish a connection.
    pub connect: Duration,
    /// Maximum concurrent requests to one Hub, over all models.
    pub concurrency: usize,
    /// Maximum bytes of all responses for one model together.
    pub bytes: u64,
}

impl Default for HubLimits {
    fn default() -> Self {
        Self {
            // A person waits half a minute; a scheduler has given up by then.
            total: Duration::from_secs(30),
            attempt: Duration::from_secs(10),
            connect: Duration::from_secs(5),
            // HTTP/2 sends these over one connection; more would only queue at the Hub.
            concurrency: 24,
            // Headers of the largest known model have 60 MiB together; a GGUF vocabulary has 20
            // MiB.
            bytes: 512 << 20,
        }
    }
}

impl HubSettings {
    /// Reads the environment through `variable`, which returns a variable's value. An empty value
    /// counts as unset.
    pub fn from_environment(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SourceError> {
        let get_value = |name: &str| non_empty(&variable, name);
        let first_of = |names: &[&str]| names.iter().find_map(|name| get_value(name));
        let endpoint = get_value("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let endpoint = parse_endpoint("HF_ENDPOINT", &endpoint)?;
        let home = home(&get_value);

        Ok(Self {
            endpoint,
            endpoints: Vec::new(),
            offline: get_value("HF_HUB_OFFLINE")
                .or_else(|| get_value("TRANSFORMERS_OFFLINE"))
                .is_some_and(|value| is_true(&value)),
            token: token(&get_value, home.as_deref())?,
            cache_folder: first_of(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])
                .map(PathBuf::from)
                .or_else(|| home.map(|home| home.join("hub"))),
            proxies: Proxies {
                // Upper-case HTTP_PROXY is ignored, as curl does: a CGI server sets it from a
                // request's header.
                http: get_value("http_proxy"),
                https: first_of(&["https_proxy", "HTTPS_PROXY"]),
                all: first_of(&["all_proxy", "ALL_PROXY"]),
                none_for: first_of(&["no_proxy", "NO_PROXY"]),
            },
            limits: limits(&get_value)?,
        })
    }

    /// Returns the Hub of `repo`, and this program's own token for it.
    pub fn endpoint_for(&self, repo: &str) -> (&Url, Option<&Token>) {
        let matching = self
            .endpoints
            .iter()
            .filter(|other| repo.starts_with(&other.prefix));

        match matching.max_by_key(|other| other.prefix.len()) {
            Some(other) => (&other.endpoint, other.token.as_ref()),
            None => (&self.endpoint, self.token.as_ref()),
        }
    }
}

fn non_empty(variable: impl Fn(&str) -> Option<String>, name: &str) -> Option<String> {
    variable(name).filter(|value| !value.trim().is_empty())
}

fn bad_setting(name: &str, why: impl Into<String>) -> SourceError {
    SourceError::BadSetting {
        name: name.into(),
        why: why.into(),
    }
}

/// Parses the address of a Hub: http or https, without user and query. Error messages name
/// `setting`.
pub fn parse_endpoint(setting: &str, text: &str) -> Result<Url, SourceError> {
    let with_slash = format!("{}/", text.trim().trim_end_matches('/'));
    let url = Url::parse(&with_slash).map_err(|error| {
        let why = format!("it is not an address ({error}); write https://host");
        bad_setting(setting, why)
    })?;

    if !["http", "https"].contains(&url.scheme()) || url.host().is_none() {
        let why = "it must begin with https:// or http:// and name a host";
        return Err(bad_setting(setting, why));
    }

    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        let why = "it holds a user, a password or a query; put the token in HF_TOKEN";
        return Err(bad_setting(setting, why));
    }

    Ok(url)
}

/// Returns the default limits with the user's changes.
/// They are `HF_MEM_PROBE_HUB_BUDGET` for a whole model (`60s`), and huggingface_hub's own
/// `HF_HUB_DOWNLOAD_TIMEOUT` (seconds) for one response.
fn limits(get: &impl Fn(&str) -> Option<String>) -> Result<HubLimits, SourceError> {
    let mut limits = HubLimits::default();
    if let Some(text) = get("HF_MEM_PROBE_HUB_BUDGET") {
        let total = humantime::parse_duration(text.trim())
            .ok()
            .filter(|total| !total.is_zero());
        limits.total = total
            .ok_or_else(|| bad_setting("HF_MEM_PROBE_HUB_BUDGET", "not a duration such as 60s"))?;
    }

    if let Some(text) = get("HF_HUB_DOWNLOAD_TIMEOUT") {
        let seconds = text
            .trim()
            .parse()
            .ok()
            .filter(|seconds| (1..=86_400).contains(seconds));
        let seconds = seconds
            .ok_or_else(|| bad_setting("HF_HUB_DOWNLOAD_TIMEOUT", "not a number of seconds"))?;
        limits.attempt = Duration::from_secs(seconds);
    }

    Ok(limits)
}

fn home(get: &impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    get("HF_HOME")
        .map(PathBuf::from)
        .or_else(|| get("XDG_CACHE_HOME").map(|cache| Path::new(&cache).join("huggingface")))
        .or_else(|| get("HOME").map(|home| Path::new(&home).join(".cache/huggingface")))
}

/// Reads the token from the first source that is set.
/// The sources are `HF_TOKEN`, the file that `HF_TOKEN_PATH` names, systemd's credential
/// `hf_token`, and `token` in the home.
fn token(
    get: &impl Fn(&str) -> Option<String>,
    home: Option<&Path>,
) -> Result<Option<Token>, SourceError> {
    if let Some(token) = get("HF_TOKEN").or_else(|| get("HUGGING_FACE_HUB_TOKEN")) {
        return Ok(Token::new(&token));
    }

    if get("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some_and(|value| is_true(&value)) {
        return Ok(None);
    }

    let credential = get("CREDENTIALS_DIRECTORY").map(|folder| Path::new(&folder).join("hf_token"));
    let places = [
        get("HF_TOKEN_PATH").map(|path| ("HF_TOKEN_PATH", PathBuf::from(path))),
        credential
            .filter(|path| exists(path))
            .map(|path| ("CREDENTIALS_DIRECTORY", path)),
        home.map(|home| ("HF_HOME", home.join("token"))),
    ];

    match places.into_iter().flatten().next() {
        Some((name, path)) => token_in(name, &path),
        None => Ok(None),
    }
}

/// Reads the token file at `path`, which comes from the variable `name`.
fn token_in(name: &str, path: &Path) -> Result<Option<Token>, SourceError> {
    // The usual name of an empty file.
    if path == Path::new("/dev/null") {
        return Ok(None);
    }

    let file = path.to_owned();
    match files::try_wait(path, move |disk| {
        disk.read_text(&file, token::MAX_FILE_BYTES)
    }) {
        Ok(text) => Ok(Token::new(&text)),
        // Without a file there is no token. A file that this user may not read gets no error
        // message.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::PermissionDenied
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(SourceError::BadSetting {
            name: name.into(),
            why: format!(
                "{}: {error}; name a file that holds a token",
                path.display()
            ),
        }),
    }
}

fn exists(path: &Path) -> bool {
    let file = path.to_owned();
    files::wait(path, move |disk| disk.exists(&file)).unwrap_or(false)
}

fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.trim().to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<HubSettings, SourceError> {
        HubSettings::from_environment(|name| {
            variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn empty_environment_means_public_hub() {
        let settings = settings(&[]).expect("settings");
        assert_eq!(settings.endpoint.as_str(), "https://huggingface.co/");
        assert!(!settings.offline && settings.token.is_none() && settings.cache_folder.is_none());
    }

    #[test]
    fn environment_uses_huggingface_hub_names() {
        let settings = settings(&[
            ("HF_ENDPOINT", "http://mirror:8080/hub"),
            ("HF_HUB_OFFLINE", "1"),
            ("HF_HOME", "/x"),
            ("HTTPS_PROXY", "http://p:3128"),
            ("HTTP_PROXY", "http://evil"),
        ])
        .expect("settings");
        assert_eq!(settings.endpoint.as_str(), "http://mirror:8080/hub/");
        assert!(settings.offline);
        assert_eq!(settings.cache_folder, Some("/x/hub".into()));
        assert_eq!(settings.proxies.https.as_deref(), Some("http://p:3128"));
        assert_eq!(settings.proxies.http, None);
        let cache = self::settings(&[("HOME", "/h"), ("HF_HUB_CACHE", "/c")])
            .expect("settings")
            .cache_folder;
        assert_eq!(cache, Some("/c".into()));
    }

    #[test]
    fn limits_come_from_the_environment() {
        let limits_of =
            |variables: &[(&str, &str)]| settings(variables).map(|settings| settings.limits);
        let set = limits_of(&[
            ("HF_MEM_PROBE_HUB_BUDGET", "90s"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "7"),
        ])
        .expect("limits");

        assert_eq!(
            (set.total, set.attempt),
            (Duration::from_secs(90), Duration::from_secs(7))
        );

        for wrong in [
            ("HF_MEM_PROBE_HUB_BUDGET", "soon"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "0"),
        ] {
            assert_eq!(
                limits_of(&[wrong]).expect_err(wrong.0).reason(),
                "bad_configuration"
            );
        }
    }

    #[test]
    fn token_comes_from_first_source() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = folder.path().to_str().expect("UTF-8");
        std::fs::write(folder.path().join("token"), "hf_home\n").expect("written");
        std::fs::write(folder.path().join("other"), " hf_other ").expect("written");
        let other = folder.path().join("other");
        let token_of = |variables: &[(&str, &str)]| settings(variables).expect("settings").token;
        assert_eq!(token_of(&[("HF_HOME", home)]), Token::new("hf_home"));

        let named = [
            ("HF_HOME", home),
            ("HF_TOKEN_PATH", other.to_str().expect("UTF-8")),
        ];
        assert_eq!(token_of(&named), Token::new("hf_other"));

        assert_eq!(
            token_of(&[("HF_HOME", home), ("HF_TOKEN", "hf_env")]),
            Token::new("hf_env")
        );
        assert_eq!(
            token_of(&[("HF_HOME", home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]),
            None
        );
    }

    #[test]
    fn invalid_token_file_is_rejected() {
        let folder = tempfile::tempdir().expect("a folder");
        let long = folder.path().join("long");
        std::fs::write(&long, "x".repeat(10_000)).expect("written");

        for (path, why) in [
            ("/dev/zero", "it is a device"),
            ("/", "it is a folder"),
            (long.to_str().expect("UTF-8"), "8192"),
        ] {
            let error = settings(&[("HF_TOKEN_PATH", path)]).expect_err(path);
            assert_eq!(error.reason(), "bad_configuration");
            assert!(error.to_string().contains(why), "{error}");
        }

        for path in ["/dev/null", "/nonexistent/token"] {
            assert_eq!(
                settings(&[("HF_TOKEN_PATH", path)]).expect(path).token,
                None
            );
        }
    }

    #[test]
    fn invalid_hub_address_is_rejected() {
        for wrong in [
            "huggingface.co",
            "ftp://x",
            "https://user:secret@x",
            "https://x?y=1",
            "http://",
        ] {
            let error = settings(&[("HF_ENDPOINT", wrong)]).expect_err(wrong);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn longest_prefix_wins_with_its_token() {
        let mut settings = settings(&[("HF_TOKEN", "hf_public")]).expect("settings");
        let prefix_endpoint = |prefix: &str, host: &str| PrefixEndpoint {
            prefix: prefix.into(),
            endpoint: Url::parse(host).expect("an address"),
            token: None,
        };

        settings.endpoints = vec![
            prefix_endpoint("acme/", "https://one/"),
            prefix_endpoint("acme/x", "https://two/"),
        ];
        assert_eq!(settings.endpoint_for("acme/y").0.as_str(), "https://one/");

        assert_eq!(
            settings.endpoint_for("acme/xy"),
            (&settings.endpoints[1].endpoint, None)
        );
        assert_eq!(settings.endpoint_for("a/b").1, settings.token.as_ref());
    }
}
