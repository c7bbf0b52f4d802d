//! Models for callers: assembled from sent metadata, or read from the Hub as the caller may see it.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hf_mem_core::bytes::Bytes;
use hf_mem_core::model::bounded_json::ParsedSize;
use hf_mem_core::model::metadata;
use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::question::ModelQuestion;
use hf_mem_core::report::raw_json::RawJson;
use hf_mem_core::report::{Problem, Question};

use super::found_model::{FoundModel, ReadModels, References, reference};
use super::health::PartTrouble;
use super::hub_settings;
use super::token_access::TokenAccess;
use crate::admission::per_user_semaphore::PerUserSemaphore;
use crate::api::peer::{Caller, Operators};
use crate::config::Config;
use crate::files;
use crate::metrics::{CacheResult, HubOutcome, Metrics};
use crate::repository::{
    Auth, FileReader, Metadata, ModelReference, Origin, SourceClient, SourceSettings, Token,
};

/// Concurrent reads of one user: half of all concurrent reads, so that no user takes all of them.
/// A user's further reads wait for that user's own.
const MAX_READS_PER_USER: usize = 8;

/// The longest time for one access to a file of a cache: shorter than a caller waits, and longer
/// than a disk needs to spin up.
const FILE_DEADLINE: Duration = Duration::from_secs(5);

/// Known models, and the client that reads unknown ones.
#[derive(Debug)]
pub struct Models {
    client: SourceClient,
    /// Limits the concurrent reads of each user. Operators are exempt.
    readers: PerUserSemaphore,
    operators: Operators,
    access: TokenAccess,
    /// Why there is no cache on disk, if there is none.
    no_cache: Option<String>,
}

impl Models {
    /// Builds the models from the configuration's Hub, cache and permissions.
    ///
    /// It reads the token files and contacts no Hub.
    pub(super) fn new(config: &Config) -> Result<Self, Problem> {
        let access = hub_settings::token_access(config)?;
        let operators = Operators::of_this_process();
        let mut settings = SourceSettings::new(hub_settings::settings(&config.hub)?);
        let no_cache = missing_cache(&config.hub.cache_directory);
        settings.cache_folder =
            Some(config.hub.cache_directory.clone()).filter(|_| no_cache.is_none());
        settings.file_deadline = FILE_DEADLINE;
        settings.cache_bytes = config.hub.cache_size.get().get();
        settings.revalidate_after = config.hub.branch_age;
        let readers = PerUserSemaphore::new(MAX_READS_PER_USER);
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

    /// Returns the model that `question`, the question's `field`, names, as `caller` may see it.
    ///
    /// The daemon never opens a path that a caller names.
    pub(super) async fn find(
        &self,
        caller: &Caller,
        field: &str,
        question: &ModelQuestion,
    ) -> Result<FoundModel, Problem> {
        let reference = reference(field, question)?;
        let auth = self.auth(caller, &reference).await;
        let (now, uid) = (SystemTime::now(), caller.peer.uid);

        // A model in memory needs no look at the caller's groups.
        if let Some(found) = self.cached(&reference, &auth, now) {
            return Ok(found);
        }

        // The wait for a permit comes before the read and before its deadline. A caller with a
        // permit can wait for another caller's read of the same model, but never for a permit.
        let exempt = self.operators.include(uid) || self.client.is_known(&reference, &auth, now);
        let _permit = if exempt {
            None
        } else {
            self.readers.acquire(uid).await
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

        Ok(FoundModel::new(described.model, described.stale, cache))
    }

    /// As [`Models::find`] for a model and its draft, but only if they are in memory and need no
    /// revalidation.
    pub(super) async fn in_memory(
        &self,
        caller: &Caller,
        references: &References,
    ) -> Option<(ReadModels, bool)> {
        let found = self.model_in_memory(caller, &references.model).await?;
        let Some(reference) = &references.draft else {
            return Some((found.read, found.stale));
        };

        let draft_caller = self.draft_caller(caller, references);
        let draft = self.model_in_memory(&draft_caller, reference).await?;
        let read = ReadModels {
            model: found.model,
            draft: Some(draft.model),
        };

        Some((read, found.stale || draft.stale))
    }

    /// Returns `caller` as the reader of the draft in `references`.
    ///
    /// The caller's token goes only to the Hub that it is for: that of the model.
    fn draft_caller<'a>(&self, caller: &'a Caller, references: &References) -> Cow<'a, Caller> {
        let is_for_draft = references
            .draft
            .as_ref()
            .is_none_or(|draft| self.client.are_on_same_hub(&references.model, draft));
        if is_for_draft || caller.token.is_none() {
            return Cow::Borrowed(caller);
        }

        Cow::Owned(Caller {
            token: None,
            ..caller.clone()
        })
    }

    /// Returns the draft of `question`, which `draft` names, as `caller` may see it.
    pub(super) async fn find_draft(
        &self,
        caller: &Caller,
        question: &Question,
        draft: &ModelQuestion,
    ) -> Result<FoundModel, Problem> {
        // A token that comes with a model's metadata can only be for the draft.
        if question.model.metadata.is_some() {
            return self.find(caller, "draft", draft).await;
        }

        let references = References::of_question(question)?;
        let caller = self.draft_caller(caller, &references);
        self.find(&caller, "draft", draft).await
    }

    async fn model_in_memory(
        &self,
        caller: &Caller,
        reference: &ModelReference,
    ) -> Option<FoundModel> {
        let auth = self.auth(caller, reference).await;
        self.cached(reference, &auth, SystemTime::now())
    }

    fn cached(
        &self,
        reference: &ModelReference,
        auth: &Auth,
        now: SystemTime,
    ) -> Option<FoundModel> {
        let described = self.client.describe_cached(reference, auth, now)?;

        Some(FoundModel::new(
            described.model,
            described.stale,
            CacheResult::Memory,
        ))
    }

    /// Returns the Hubs that do not answer: the endpoint, the cause, and how long ago.
    pub(super) fn troubles(&self) -> Vec<(String, String, Duration)> {
        self.client.hub_stats().outages()
    }

    /// Returns what is wrong with the caches on disk.
    pub(super) fn cache_trouble(&self) -> Option<PartTrouble> {
        if let Some(hung) = self.client.hung_files() {
            let why = format!("{hung}; the daemon skips it until it answers");
            return Some(PartTrouble::new("hung", why));
        }

        let unwritable = self
            .no_cache
            .clone()
            .or_else(|| self.client.cache_status()?.write_error);

        unwritable.map(|why| PartTrouble::new("unwritable", why))
    }

    /// Updates the figures of models, cache and Hub.
    pub(super) fn observe(&self, metrics: &Metrics) {
        let on_disk = self.client.cache_status().map_or(0, |cache| cache.bytes);
        metrics.set_models(self.client.cached_models(), Bytes::new(on_disk));

        for outcome in HubOutcome::ALL {
            metrics.set_hub_requests(outcome, self.client.hub_stats().count(outcome));
        }
    }

    /// Returns the identity with which the daemon reads cached files for `caller`.
    ///
    /// Callers who may use the daemon's token can see what it downloaded. All others see what
    /// their own permissions let them read.
    async fn reader(&self, caller: &Caller) -> FileReader {
        let peer = caller.peer;
        if self.access.may_use_daemon_token(peer).await {
            FileReader::Own
        } else {
            // Unknown groups could include one whose members may not read a file that others may.
            match self.access.groups_of(peer).await {
                Some(groups) => FileReader::User {
                    uid: peer.uid,
                    groups,
                },
                None => FileReader::Unknown,
            }
        }
    }

    /// Returns the caller's own token, else the daemon's if the caller may use it, else none.
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

/// Assembles a model from metadata that a client read and sent in the question's `field`.
pub(super) fn sent(field: &str, metadata: &RawJson) -> Result<FoundModel, Problem> {
    let model = Arc::new(metadata::assemble(&parse_metadata(field, metadata)?)?);

    Ok(FoundModel::new(model, false, CacheResult::Sent))
}

/// Parses sent metadata. The assembly of the model checks its records again.
fn parse_metadata(field: &str, sent: &RawJson) -> Result<Metadata, Problem> {
    let bad_metadata = |why: &dyn std::fmt::Display| {
        Problem::new(Reason::Usage, format!("{field}.metadata: {why}"))
    };

    // Counted before it is built: JSON that is short as text can be large in memory.
    let size: ParsedSize = sent.read().map_err(|error| bad_metadata(&error))?;
    size.within_bounds().map_err(|error| bad_metadata(&error))?;
    let metadata: Metadata = sent.read().map_err(|error| bad_metadata(&error))?;
    if metadata.version != metadata::VERSION {
        return Err(bad_metadata(&format!(
            "version {} is not {}; use the same version of hf-mem-probe on both ends",
            metadata.version,
            metadata::VERSION
        )));
    }

    Ok(metadata)
}

/// Returns why `folder` cannot be a cache.
fn missing_cache(folder: &Path) -> Option<String> {
    let path = folder.to_owned();
    let place = folder.display();

    match files::wait(folder, move |disk| disk.is_folder(&path)) {
        Ok(true) => None,
        Ok(false) => Some(format!(
            "the folder {place} does not exist: models are cached in memory only"
        )),
        Err(hung) => Some(format!(
            "{hung}: models are cached in memory only until the next start"
        )),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;
    use serde_json::json;

    use super::*;
    use crate::api::peer::Peer;

    /// A uid of no user who runs tests, nor is the next one.
    const OTHER: u32 = 4_000_000_000;

    async fn find(models: &Models, uid: u32, number: usize) -> Result<(), Problem> {
        let peer = Peer {
            uid,
            gid: uid,
            pid: None,
        };

        let question = ModelQuestion {
            repo: format!("a/{number}"),
            ..ModelQuestion::default()
        };

        let caller = Caller {
            peer,
            token: None,
            request_id: String::new(),
        };
        models.find(&caller, "model", &question).await.map(drop)
    }

    #[tokio::test]
    async fn one_users_reads_are_limited() {
        let mut config = Config::default();

        // Nothing listens there, and a read is retried.
        config.hub.endpoint = "http://127.0.0.1:9".to_owned();
        let models = Models::new(&config).unwrap();

        let mut finds: Vec<_> = (0..20)
            .flat_map(|number| [(OTHER, number), (0, number)])
            .chain([(OTHER + 1, 0)])
            .map(|(uid, number)| Box::pin(find(&models, uid, number)))
            .collect();

        for find in &mut finds {
            assert!(poll!(find).is_pending());
        }

        let left = [0, OTHER, OTHER + 1].map(|uid| models.readers.available(uid));
        assert_eq!(
            left,
            [MAX_READS_PER_USER, 0, MAX_READS_PER_USER - 1],
            "root is exempt"
        );
    }

    fn parse_with_documents(documents: &serde_json::Value) -> Result<(), Problem> {
        let identity = json!({"repo": "/m", "revision": null, "commit": null, "file": null});
        let sent = json!({
            "version": metadata::VERSION, "identity": identity, "format": "safetensors",
            "files": [], "siblings": [], "projectors": [], "tensors": [],
            "documents": documents, "unreadable": {}, "components": [], "base_model": null,
            "gguf": null, "hub_totals": null, "gated": false,
            "evidence": {"kind": "every_header"}, "doubts": []
        });
        parse_metadata("model", &RawJson::new(&sent).unwrap()).map(drop)
    }

    #[test]
    fn sent_metadata_is_counted_before_parsing() {
        parse_with_documents(&json!({"config.json": {"a": 1}})).unwrap();
        let many = json!({"config.json": vec![json!({"": 0}); 80_000]});
        let rejected = parse_with_documents(&many).unwrap_err();
        assert!(rejected.to_string().contains("values take"), "{rejected}");
    }
}
