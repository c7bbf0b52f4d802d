//! What the environment and the configuration say about Hubs, read in one place and passed on as
//! values.
//!
//! The names are huggingface_hub's own (`constants.py`): `HF_ENDPOINT`, `HF_HUB_OFFLINE`,
//! `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HOME`, `HF_HUB_CACHE`; the proxy names are curl's.
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` are read by the TLS library itself when it loads the system's
//! certificates.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::error::SourceError;
use super::token::{self, Token};
use crate::files;

/// Hubs and folders to look in, and what they may cost.
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// The Hub that is asked for all repositories no other is named for.
    pub endpoint: Url,
    /// Other Hubs by the beginning of the repository's name, the longest match first: `acme/` at a
    /// private Hub.
    pub endpoints: Vec<PrefixEndpoint>,
    /// Whether no network may be used.
    pub offline: bool,
    /// The user's own token for [`Self::endpoint`].
    pub token: Option<Token>,
    /// The Hugging Face cache (`.../hub`), where there is a home for it.
    pub cache_folder: Option<PathBuf>,
    /// Proxies.
    pub proxies: Proxies,
    /// Limits.
    pub limits: HubLimits,
}

/// Folders of other programs that keep models.
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
        let get = |name: &str| {
            variable(name)
                .filter(|value| !value.trim().is_empty())
                .map(PathBuf::from)
        };

        let in_home = |path: &str| get("HOME").map(|home| home.join(path));
        Self {
            ollama: get("OLLAMA_MODELS").or_else(|| in_home(".ollama/models")),
            lm_studio: in_home(".lmstudio/models"),
        }
    }
}

/// A Hub for some repositories.
#[derive(Clone, Debug)]
pub struct PrefixEndpoint {
    /// What the names of its repositories begin with: `acme/`.
    pub prefix: String,
    /// Its address.
    pub endpoint: Url,
    /// The token for it, which no other Hub ever sees.
    pub token: Option<Token>,
}

/// Proxies by the scheme of the request, as the environment gives them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http://` (`http_proxy`).
    pub http: Option<String>,
    /// For `https://` (`HTTPS_PROXY`).
    pub https: Option<String>,
    /// For both (`ALL_PROXY`).
    pub all: Option<String>,
    /// Hosts that are reached without one (`NO_PROXY`).
    pub none_for: Option<String>,
}

/// What reading one model may cost.
#[derive(Clone, Copy, Debug)]
pub struct HubLimits {
    /// All requests for one model together, waits and retries included.
    pub total: Duration,
    /// One request until its answer begins, and each wait for more of it.
    pub attempt: Duration,
    /// Until a connection stands.
    pub connect: Duration,
    /// Requests to one Hub under way at once, over all models.
    pub concurrency: usize,
    /// Bytes of all answers for one model together.
    pub bytes: u64,
}

impl Default for HubLimits {
    fn default() -> Self {
        Self {
            // A person waits half a minute; a scheduler has given up by then.
            total: Duration::from_secs(30),
            attempt: Duration::from_secs(10),
            connect: Duration::from_secs(5),
            // Over HTTP/2 one connection; more would only queue at the Hub.
            concurrency: 24,
            // Headers of the largest known model have 60 MiB together; a GGUF vocabulary 20 MiB.
            bytes: 512 << 20,
        }
    }
}

impl HubSettings {
    /// Reads the environment through `variable`, which gives a variable's value; an empty value
    /// counts as none.
    pub fn from_environment(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SourceError> {
        let get = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let first = |names: &[&str]| names.iter().find_map(|name| get(name));
        let endpoint = get("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let endpoint = parse_endpoint("HF_ENDPOINT", &endpoint)?;
        let home = home(&get);

        Ok(Self {
            endpoint,
            endpoints: Vec::new(),
            offline: get("HF_HUB_OFFLINE")
                .or_else(|| get("TRANSFORMERS_OFFLINE"))
                .is_some_and(|value| is_true(&value)),
            token: token(&get, home.as_deref())?,
            cache_folder: first(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])
                .map(PathBuf::from)
                .or_else(|| home.map(|home| home.join("hub"))),
            proxies: Proxies {
                // Upper-case HTTP_PROXY is left out, as curl does: a CGI server sets it from a
                // request's header.
                http: get("http_proxy"),
                https: first(&["https_proxy", "HTTPS_PROXY"]),
                all: first(&["all_proxy", "ALL_PROXY"]),
                none_for: first(&["no_proxy", "NO_PROXY"]),
            },
            limits: limits(&get)?,
        })
    }

    /// The Hub that has `repo`, and the token of this program's own for it.
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

/// An address of a Hub: http or https, no user and no query. `setting` is what the message names.
pub fn parse_endpoint(setting: &str, text: &str) -> Result<Url, SourceError> {
    let bad = |why: String| SourceError::BadSetting {
        name: setting.into(),
        why,
    };

    let with_slash = format!("{}/", text.trim().trim_end_matches('/'));
    let url = Url::parse(&with_slash).map_err(|error| {
        bad(format!(
            "it is not an address ({error}); write https://host"
        ))
    })?;

    if !["http", "https"].contains(&url.scheme()) || url.host().is_none() {
        return Err(bad(
            "it must begin with https:// or http:// and name a host".into(),
        ));
    }

    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err(bad(
            "it holds a user, a password or a query; put the token in HF_TOKEN".into(),
        ));
    }

    Ok(url)
}

/// The defaults, but for what the user has set: `HF_MEM_PROBE_HUB_BUDGET` for a whole model
/// (`60s`), and huggingface_hub's own `HF_HUB_DOWNLOAD_TIMEOUT` (seconds) for one answer.
fn limits(get: &impl Fn(&str) -> Option<String>) -> Result<HubLimits, SourceError> {
    let mut limits = HubLimits::default();
    let bad = |name: &str, why: &str| SourceError::BadSetting {
        name: name.into(),
        why: why.into(),
    };

    if let Some(text) = get("HF_MEM_PROBE_HUB_BUDGET") {
        let total = humantime::parse_duration(text.trim())
            .ok()
            .filter(|total| !total.is_zero());
        limits.total =
            total.ok_or_else(|| bad("HF_MEM_PROBE_HUB_BUDGET", "not a duration such as 60s"))?;
    }

    if let Some(text) = get("HF_HUB_DOWNLOAD_TIMEOUT") {
        let seconds = text
            .trim()
            .parse()
            .ok()
            .filter(|seconds| (1..=86_400).contains(seconds));
        let seconds =
            seconds.ok_or_else(|| bad("HF_HUB_DOWNLOAD_TIMEOUT", "not a number of seconds"))?;
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

/// `HF_TOKEN`, else the file that `HF_TOKEN_PATH` names, else systemd's credential `hf_token`, else
/// the home's `token`.
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
            .filter(|path| is_there(path))
            .map(|path| ("CREDENTIALS_DIRECTORY", path)),
        home.map(|home| ("HF_HOME", home.join("token"))),
    ];

    match places.into_iter().flatten().next() {
        Some((name, path)) => token_in(name, &path),
        None => Ok(None),
    }
}

/// The token in the file at `path`, which the variable `name` leads to.
fn token_in(name: &str, path: &Path) -> Result<Option<Token>, SourceError> {
    // The usual name of a file with nothing in it.
    if path == Path::new("/dev/null") {
        return Ok(None);
    }

    let file = path.to_owned();
    match files::try_wait(path, move |disk| {
        disk.read_text(&file, token::MAX_FILE_BYTES)
    }) {
        Ok(text) => Ok(Token::new(&text)),
        // No file is no token; nothing is said of a file that is not the asker's to read.
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

fn is_there(path: &Path) -> bool {
    let asked = path.to_owned();
    files::wait(path, move |disk| disk.exists(&asked)).unwrap_or(false)
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
    fn an_empty_environment_is_the_public_hub() {
        let settings = settings(&[]).expect("settings");
        assert_eq!(settings.endpoint.as_str(), "https://huggingface.co/");
        assert!(!settings.offline && settings.token.is_none() && settings.cache_folder.is_none());
    }

    #[test]
    fn huggingface_hubs_own_names() {
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
    fn limits_are_the_users_own_where_set() {
        let limits =
            |variables: &[(&str, &str)]| settings(variables).map(|settings| settings.limits);
        let set = limits(&[
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
                limits(&[wrong]).expect_err(wrong.0).reason(),
                "bad_configuration"
            );
        }
    }

    #[test]
    fn tokens_come_from_the_first_place_that_has_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = folder.path().to_str().expect("UTF-8");
        std::fs::write(folder.path().join("token"), "hf_home\n").expect("written");
        std::fs::write(folder.path().join("other"), " hf_other ").expect("written");
        let other = folder.path().join("other");
        let token = |variables: &[(&str, &str)]| settings(variables).expect("settings").token;
        assert_eq!(token(&[("HF_HOME", home)]), Token::new("hf_home"));

        let named = [
            ("HF_HOME", home),
            ("HF_TOKEN_PATH", other.to_str().expect("UTF-8")),
        ];
        assert_eq!(token(&named), Token::new("hf_other"));

        assert_eq!(
            token(&[("HF_HOME", home), ("HF_TOKEN", "hf_env")]),
            Token::new("hf_env")
        );
        assert_eq!(
            token(&[("HF_HOME", home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]),
            None
        );
    }

    #[test]
    fn a_token_file_that_is_none_is_refused() {
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
    fn addresses_that_cannot_be_a_hub_are_refused() {
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
    fn the_longest_prefix_has_the_repository_and_its_own_token() {
        let mut settings = settings(&[("HF_TOKEN", "hf_public")]).expect("settings");
        let endpoint = |prefix: &str, host: &str| PrefixEndpoint {
            prefix: prefix.into(),
            endpoint: Url::parse(host).expect("an address"),
            token: None,
        };

        settings.endpoints = vec![
            endpoint("acme/", "https://one/"),
            endpoint("acme/x", "https://two/"),
        ];
        assert_eq!(settings.endpoint_for("acme/y").0.as_str(), "https://one/");

        assert_eq!(
            settings.endpoint_for("acme/xy"),
            (&settings.endpoints[1].endpoint, None)
        );
        assert_eq!(settings.endpoint_for("a/b").1, settings.token.as_ref());
    }
}
