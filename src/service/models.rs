//! Models for askers: from metadata that the client sent, or from the Hub as the client may see it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hf_mem_core::bytes::Bytes;
use hf_mem_core::model::Model;
use hf_mem_core::model::bounded_json::Weight;
use hf_mem_core::model::metadata;
use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::question::ModelQuestion;
use hf_mem_core::report::raw_json::RawJson;

use super::health::PartTrouble;
use super::token_access::TokenAccess;
use crate::accounts::Accounts;
use crate::admission::per_user_semaphore::PerUserSemaphore;
use crate::api::peer::{Caller, Operators};
use crate::config::{Config, HubConfig};
use crate::files;
use crate::metrics::{CacheResult, HubOutcome, Metrics};
use crate::repository::settings::{PrefixEndpoint, parse_endpoint};
use crate::repository::{
    Auth, FileReader, HubSettings, Metadata, ModelReference, Origin, Place, SourceClient,
    SourceSettings, Token,
};

/// Readings of one user at once: half of what is read at once in all, so that nobody has all of it.
/// Whoever asks for more waits for itself.
const READINGS_OF_ONE: usize = 8;

/// How long one access to a file of a cache may take: less than a caller waits, and longer than a
/// disk needs to wake.
const FILE_DEADLINE: Duration = Duration::from_secs(5);

/// The longest file of a token.
const MAX_TOKEN_BYTES: u64 = 8192;

/// Known models, and the way to unknown ones.
#[derive(Debug)]
pub struct Models {
    client: SourceClient,
    /// Users who read; operators are not held to their share.
    readers: PerUserSemaphore,
    operators: Operators,
    access: TokenAccess,
    /// Why nothing is kept on disk, where nothing is.
    no_cache: Option<String>,
}

/// A model as it was found for one asker.
pub(super) struct FoundModel {
    pub(super) model: Arc<Model>,
    pub(super) stale: bool,
    /// Where it was found.
    pub(super) cache: CacheResult,
}

impl Models {
    /// With the configuration's Hub, cache and permissions. Reads the token file; asks nobody.
    pub(super) fn new(config: &Config) -> Result<Self, Problem> {
        let access = access(config)?;
        let operators = Operators::of_this_process();
        let mut settings = SourceSettings::new(hub(&config.hub)?);
        let no_cache = no_cache(&config.hub.cache_directory);
        settings.cache_folder =
            Some(config.hub.cache_directory.clone()).filter(|_| no_cache.is_none());
        settings.file_deadline = FILE_DEADLINE;
        settings.cache_bytes = config.hub.cache_size.get().get();
        settings.revalidate_after = config.hub.branch_age;
        let readers = PerUserSemaphore::new(READINGS_OF_ONE);
        let client = SourceClient::new(settings);
        client.measure_cache();

        Ok(Self {
            client,
            readers,
            operators,
            access,
            no_cache,
        })
    }

    /// The model that `asked` names, as `caller` may see it. No path is ever opened on a caller's
    /// behalf.
    pub(super) async fn find(
        &self,
        caller: &Caller,
        asked: &ModelQuestion,
    ) -> Result<FoundModel, Problem> {
        let reference = reference(asked)?;
        let (auth, now, uid) = (
            self.auth(caller, &reference).await,
            SystemTime::now(),
            caller.peer.uid,
        );

        // Before anything is read and before its deadline runs. Who is here may wait for another
        // asker's reading of the same model, never the other way round.
        let free = self.operators.include(uid) || self.client.is_known(&reference, &auth, now);
        let _turn = if free {
            None
        } else {
            self.readers.take(uid).await
        };

        let reader = self.reader(caller).await;
        let described = self
            .client
            .describe_for(&reader, &reference, &auth, SystemTime::now())
            .await?;
        let cache = match described.origin {
            Origin::Memory => CacheResult::Memory,
            Origin::Disk => CacheResult::Disk,
            Origin::Hub => CacheResult::Miss,
        };

        Ok(FoundModel {
            model: described.model,
            stale: described.stale,
            cache,
        })
    }

    /// As [`Models::find`], where the model is in memory and need not be checked.
    pub(super) async fn at_hand(
        &self,
        caller: &Caller,
        reference: &ModelReference,
    ) -> Option<FoundModel> {
        let auth = self.auth(caller, reference).await;
        let described = self.client.at_hand(reference, &auth, SystemTime::now())?;
        Some(FoundModel {
            model: described.model,
            stale: described.stale,
            cache: CacheResult::Memory,
        })
    }

    /// Hubs that do not answer: which, why, and how long ago.
    pub(super) fn troubles(&self) -> Vec<(String, String, Duration)> {
        self.client.hub_tally().troubles()
    }

    /// What is wrong with the caches on disk.
    pub(super) fn cache_trouble(&self) -> Option<PartTrouble> {
        if let Some(hung) = self.client.hung_files() {
            let why = format!("{hung}; it is skipped until it answers");
            return Some(PartTrouble::new("hung", why));
        }

        let unwritable = || {
            self.no_cache
                .clone()
                .or_else(|| self.client.cache_standing()?.trouble)
        };

        unwritable().map(|why| PartTrouble::new("unwritable", why))
    }

    /// Brings the figures of models, cache and Hub up to date.
    pub(super) fn observe(&self, metrics: &Metrics) {
        let on_disk = self
            .client
            .cache_standing()
            .map_or(0, |standing| standing.bytes);
        metrics.set_models(self.client.known_models(), Bytes::new(on_disk));

        for outcome in HubOutcome::ALL {
            metrics.set_hub_requests(outcome, self.client.hub_tally().count(outcome));
        }
    }

    /// As whom the caller sees files that the daemon can read. Who may use the daemon's token may
    /// see what was downloaded with it; all others what their own permissions let them read.
    async fn reader(&self, caller: &Caller) -> FileReader {
        let peer = caller.peer;
        if self.access.may_use_daemon_token(peer).await {
            FileReader::Own
        } else {
            FileReader::User {
                uid: peer.uid,
                groups: self.access.groups_of(peer).await,
            }
        }
    }

    /// The caller's own token; else the daemon's where the caller may have it used; else none.
    async fn auth(&self, caller: &Caller, reference: &ModelReference) -> Auth {
        match &caller.token {
            Some(token) => Token::new(token.reveal()).into(),
            None if self.access.may_use_daemon_token(caller.peer).await => {
                self.client.own_auth(reference)
            }
            None => Auth::Anonymous,
        }
    }
}

/// The model that a client read itself and sent.
pub(super) fn sent(metadata: &RawJson) -> Result<FoundModel, Problem> {
    let model = Arc::new(metadata::assemble(&received(metadata)?)?);
    Ok(FoundModel {
        model,
        stale: false,
        cache: CacheResult::Sent,
    })
}

/// What a client read itself; its records are checked again when a model is made of it.
fn received(sent: &RawJson) -> Result<Metadata, Problem> {
    let bad = |why: String| Problem::new(Reason::Usage, format!("model.metadata: {why}"));

    // Counted before it is built: what is short as text may be long in memory.
    let weight: Weight = sent.read().map_err(|error| bad(error.to_string()))?;
    weight.within_bounds().map_err(bad)?;
    let metadata: Metadata = sent.read().map_err(|error| bad(error.to_string()))?;
    if metadata.version != metadata::VERSION {
        return Err(bad(format!(
            "version {} is not {}; use one version on both ends",
            metadata.version,
            metadata::VERSION
        )));
    }

    Ok(metadata)
}

/// A repository by name. Anything that could be read as a path is refused.
pub(super) fn reference(asked: &ModelQuestion) -> Result<ModelReference, Problem> {
    let text = match &asked.revision {
        Some(revision) => format!("{}@{revision}", asked.repo),
        None => asked.repo.clone(),
    };

    let reference = ModelReference::parse(&text, asked.file.as_deref(), |_| false)?;
    match reference.place {
        Place::Hub { .. } => Ok(reference),
        _ => Err(Problem::new(Reason::Usage, format!("model.repo: {text:?} is not the name of a repository"))
            .hint("the daemon opens no path for a client: send what was read of a local model in model.metadata")),
    }
}

/// The environment's proxies, the configuration's everything else.
/// Refuses users and groups that are not there, and addresses that are none. Reads no token.
pub(super) fn check(config: &Config) -> Result<(), Problem> {
    access(config)?;
    parse_endpoint("hub.endpoint", &config.hub.endpoint)?;

    for endpoint in config.hub.endpoints.values() {
        parse_endpoint("hub.endpoints", endpoint)?;
    }

    let of_prefixes = config
        .hub
        .endpoint_token_files
        .values()
        .map(|path| ("hub.endpoint_token_files", path));

    for (key, path) in config
        .hub
        .token_file
        .iter()
        .map(|path| ("hub.token_file", path))
        .chain(of_prefixes)
    {
        // What is there is for the daemon alone to read.
        let file = path.clone();
        let found = files::try_wait(path, move |disk| disk.metadata(&file));
        if let Err(error) = found
            && matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::TimedOut
            )
        {
            return Err(Problem::new(
                Reason::BadConfiguration,
                format!("{key} {}: {error}", path.display()),
            ));
        }
    }

    Ok(())
}

/// Who may use the daemon's token.
fn access(config: &Config) -> Result<TokenAccess, Problem> {
    TokenAccess::new(
        &config.access,
        Accounts::of_this_host(),
        Operators::of_this_process(),
    )
    .map_err(|error| Problem::new(Reason::BadConfiguration, format!("[access] {error}")))
}

fn hub(config: &HubConfig) -> Result<HubSettings, Problem> {
    let mut settings = HubSettings::from_environment(|name| std::env::var(name).ok())?;

    // What the environment says of the endpoint stands only where the file leaves the default.
    if config.endpoint != HubConfig::default().endpoint {
        settings.endpoint = parse_endpoint("hub.endpoint", &config.endpoint)?;
    }

    for (prefix, endpoint) in &config.endpoints {
        settings.endpoints.push(PrefixEndpoint {
            prefix: prefix.clone(),
            endpoint: parse_endpoint("hub.endpoints", endpoint)?,
            token: match config.endpoint_token_files.get(prefix) {
                Some(path) => token("hub.endpoint_token_files", path)?,
                None => None,
            },
        });
    }

    settings.offline |= config.offline;
    settings.limits.total = config.retry_budget;
    settings.limits.attempt = config.read_timeout.max(Duration::from_millis(1));
    settings.limits.concurrency = config.concurrency.max(1);
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
    if let Some(path) = config.token_path(credentials.as_deref().map(Path::new)) {
        settings.token = token("hub.token_file", &path)?;
    }

    settings.limits.connect = config.connect_timeout;
    Ok(settings)
}

/// The token in the file at `path`; an empty file holds none.
fn token(key: &str, path: &Path) -> Result<Option<Token>, Problem> {
    let file = path.to_owned();
    let text = files::try_wait(path, move |disk| disk.read_text(&file, MAX_TOKEN_BYTES)).map_err(
        |error| {
            Problem::new(
                Reason::BadConfiguration,
                format!("{key} {}: {error}", path.display()),
            )
        },
    )?;

    Ok(Token::new(&text))
}

/// Why models cannot be kept in `folder`.
fn no_cache(folder: &Path) -> Option<String> {
    let asked = folder.to_owned();
    let place = folder.display();

    match files::wait(folder, move |disk| disk.is_folder(&asked)) {
        Ok(true) => None,
        Ok(false) => Some(format!(
            "the folder {place} is not there: models are kept in memory only"
        )),
        Err(hung) => Some(format!(
            "{hung}: models are kept in memory only until the next start"
        )),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;
    use serde_json::json;

    use super::*;
    use crate::api::peer::Peer;

    /// Nobody who runs tests has this number or the next.
    const OTHER: u32 = 4_000_000_000;

    #[tokio::test]
    async fn one_user_does_not_read_all_that_is_read_at_once() {
        let mut config = Config::default();

        // Nobody listens there, and a reading tries again.
        config.hub.endpoint = "http://127.0.0.1:9".to_owned();
        let models = Models::new(&config).unwrap();

        let ask = |uid: u32, number: usize| {
            let peer = Peer {
                uid,
                gid: uid,
                pid: None,
            };

            let asked = ModelQuestion {
                repo: format!("a/{number}"),
                ..ModelQuestion::default()
            };

            let models = &models;
            Box::pin(async move {
                let caller = Caller {
                    peer,
                    token: None,
                    request_id: String::new(),
                };
                models.find(&caller, &asked).await.map(drop)
            })
        };

        let mut asked: Vec<_> = (0..20)
            .flat_map(|number| [ask(OTHER, number), ask(0, number)])
            .collect();
        asked.push(ask(OTHER + 1, 0));

        for asked in &mut asked {
            assert!(poll!(asked).is_pending());
        }

        let left = [0, OTHER, OTHER + 1].map(|uid| models.readers.left(uid));
        assert_eq!(
            left,
            [READINGS_OF_ONE, 0, READINGS_OF_ONE - 1],
            "root is not held to it"
        );
    }

    #[test]
    fn what_was_sent_is_counted_before_it_is_built() {
        let received_with = |documents: serde_json::Value| {
            let identity = json!({"repo": "/m", "revision": null, "commit": null, "file": null});
            let sent = json!({"version": metadata::VERSION, "identity": identity, "format": "safetensors", "files": [],
                "siblings": [], "projectors": [], "tensors": [], "documents": documents, "unreadable": {},
                "components": [], "base_model": null, "gguf": null, "hub_totals": null, "gated": false,
                "evidence": {"kind": "every_header"}, "doubts": []});
            received(&RawJson::of(&sent).unwrap()).map(drop)
        };

        received_with(json!({"config.json": {"a": 1}})).unwrap();
        let refused =
            received_with(json!({"config.json": vec![json!({"": 0}); 80_000]})).unwrap_err();
        assert!(refused.to_string().contains("values take"), "{refused}");
    }
}
