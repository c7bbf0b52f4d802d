//! The entry point: returns the model for a reference, from memory, disk, a folder or a Hub.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hf_mem_core::model::Model;
use hf_mem_core::model::metadata::{Metadata, assemble};

use super::disk_cache::{CacheStatus, DiskCache};
use super::error::SourceError;
use super::hub::{HubClient, HubStats, is_commit};
use super::model_cache::{CachedModel, ModelCache, ModelKey};
use super::permissions::FileReader;
use super::reference::{ModelReference, Place};
use super::settings::{HubSettings, LocalFolders, SourceSettings};
use super::token::Auth;
use crate::files::FileThreads;

/// The scope of models that anyone may see.
pub(super) const PUBLIC: &str = "public";

/// Number of threads that access files for models. A hung thread cannot be reclaimed, so the number
/// is small.
const FILE_THREADS: usize = 4;

/// A model and how it was found.
#[derive(Clone, Debug)]
pub struct Described {
    /// The model.
    pub model: Arc<Model>,
    /// Whether the Hub could not confirm that the model is the newest.
    pub stale: bool,
    /// Requests made for it.
    pub requests: u32,
    /// Where it was found.
    pub origin: Origin,
}

/// Where a model was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In memory.
    Memory,
    /// On this host's disk: the cache, the Hugging Face cache or a folder.
    Disk,
    /// On the Hub.
    Hub,
}

/// Reads models and caches them.
#[derive(Debug)]
pub struct SourceClient {
    pub(super) hub: HubClient,
    pub(super) files: FileThreads,
    pub(super) disk: Option<Arc<DiskCache>>,
    pub(super) folders: LocalFolders,
    pub(super) models: ModelCache<SharedReading>,
    pub(super) revalidate_after: Duration,
}

/// A request for a model of a Hub.
#[derive(Clone, Copy)]
pub(super) struct ModelRequest<'a> {
    pub(super) repo: &'a str,
    pub(super) revision: &'a str,
    pub(super) file: Option<&'a str>,
    pub(super) auth: &'a Auth,
    pub(super) now: SystemTime,
}

impl<'a> ModelRequest<'a> {
    /// Returns the request for a model of a Hub; `None` if `reference` is local.
    pub(super) fn of_hub(
        reference: &'a ModelReference,
        auth: &'a Auth,
        now: SystemTime,
    ) -> Option<Self> {
        let Place::Hub { repo, revision } = &reference.place else {
            return None;
        };

        Some(Self {
            repo,
            revision: revision.as_deref().unwrap_or("main"),
            file: reference.file.as_deref(),
            auth,
            now,
        })
    }
}

/// The result of one reading, for all callers with the same token. It excludes the Hugging Face
/// cache, whose content depends on the user.
#[derive(Clone, Debug)]
pub(super) enum SharedReading {
    /// The model.
    Described(Described),
    /// The Hub is unreachable or offline mode forbids it, and the model is not in the cache.
    Unreachable {
        why: SourceError,
        /// Requests made.
        requests: u32,
    },
}

impl SourceClient {
    /// Creates a client with an empty memory cache. Opens no connection.
    pub fn new(settings: SourceSettings) -> Self {
        let disk = settings
            .cache_folder
            .map(|folder| Arc::new(DiskCache::new(&folder, settings.cache_bytes)));
        let files = FileThreads::new(FILE_THREADS, settings.file_deadline);
        Self {
            hub: HubClient::new(settings.hub, files.clone()),
            files,
            disk,
            folders: settings.folders,
            models: ModelCache::new(settings.max_cached_models, settings.max_cached_bytes),
            revalidate_after: settings.revalidate_after,
        }
    }

    /// Returns how requests to Hubs have ended so far.
    pub fn hub_stats(&self) -> &HubStats {
        self.hub.stats()
    }

    /// Returns the number of models in memory.
    pub fn cached_models(&self) -> usize {
        self.models.len()
    }

    /// Returns the measured status of the cache on disk; `None` if it is disabled.
    pub fn cache_status(&self) -> Option<CacheStatus> {
        self.disk.as_ref().map(|disk| disk.status())
    }

    /// Starts to measure the size of the cache on disk.
    pub fn measure_cache(&self) {
        if let Some(disk) = self.disk.clone() {
            let place = disk.folder().to_owned();
            self.files
                .try_detached(&place, move |access| disk.measure(access));
        }
    }

    /// Returns the place that has not answered for too long. The client skips it until it answers.
    pub fn hung_files(&self) -> Option<String> {
        self.files.trouble().map(|hung| hung.to_string())
    }

    pub(super) fn hub_settings(&self) -> &HubSettings {
        self.hub.settings()
    }

    /// Returns this program's own token for the Hub of `reference`. The caller decides who may use
    /// it.
    pub fn own_auth(&self, reference: &ModelReference) -> Auth {
        match &reference.place {
            Place::Hub { repo, .. } => self.hub.settings().endpoint_for(repo).1.cloned().into(),
            _ => Auth::Anonymous,
        }
    }

    /// Whether both are on the same Hub; `false` if one of them is on this host's disk.
    pub fn are_on_same_hub(&self, one: &ModelReference, other: &ModelReference) -> bool {
        match (&one.place, &other.place) {
            (Place::Hub { repo, .. }, Place::Hub { repo: other, .. }) => {
                let settings = self.hub.settings();
                settings.endpoint_for(repo).0 == settings.endpoint_for(other).0
            }
            _ => false,
        }
    }

    /// Returns the model that `reference` names, as `auth` may see it. `now` decides what is fresh.
    ///
    /// Local places are opened as this process. Never pass a path that a daemon's client names.
    pub async fn describe(
        &self,
        reference: &ModelReference,
        auth: &Auth,
        now: SystemTime,
    ) -> Result<Described, SourceError> {
        self.describe_for(&self.own_reader(reference, auth), reference, auth, now)
            .await
    }

    /// As [`SourceClient::describe`], with the part of the Hugging Face cache that `reader` may
    /// read.
    pub async fn describe_for(
        &self,
        reader: &FileReader,
        reference: &ModelReference,
        auth: &Auth,
        now: SystemTime,
    ) -> Result<Described, SourceError> {
        let Some(request) = ModelRequest::of_hub(reference, auth, now) else {
            let metadata = self.read(reference, auth, now).await?;
            return Ok(Described {
                model: assemble_model(&metadata)?,
                stale: false,
                requests: 0,
                origin: Origin::Disk,
            });
        };

        if let Some(fresh) = self.fresh_in_memory(&request) {
            return Ok(fresh);
        }

        let reading = Box::pin(self.describe_from_hub(&request));
        let shared = self
            .models
            .share_reading(&model_key(&request, &auth.identity()), reading)
            .await?;

        match shared {
            SharedReading::Described(described) => Ok(described),
            SharedReading::Unreachable { why, requests } => {
                Box::pin(self.stale_in_hf_cache(&request, reader, why, requests)).await
            }
        }
    }

    /// Returns the reader of local files: this program's own for its own token, none for other
    /// tokens.
    pub(super) fn own_reader(&self, reference: &ModelReference, auth: &Auth) -> FileReader {
        if self.own_auth(reference) == *auth {
            FileReader::Own
        } else {
            FileReader::Unknown
        }
    }

    /// As [`SourceClient::describe`], but only from memory. Returns `None` if the model is not in
    /// memory, not fresh, or local.
    pub fn describe_cached(
        &self,
        reference: &ModelReference,
        auth: &Auth,
        now: SystemTime,
    ) -> Option<Described> {
        self.fresh_in_memory(&ModelRequest::of_hub(reference, auth, now)?)
    }

    /// Whether the model is in memory, fresh or not. Then the Hub is asked for the revision, and
    /// rarely for more.
    pub fn is_known(&self, reference: &ModelReference, auth: &Auth, now: SystemTime) -> bool {
        ModelRequest::of_hub(reference, auth, now)
            .is_some_and(|request| self.in_memory(&request).is_some())
    }

    /// Returns a cached model whose revision was checked recently or cannot change.
    pub(super) fn fresh_in_memory(&self, request: &ModelRequest<'_>) -> Option<Described> {
        let cached = Self::scopes(request)
            .iter()
            .filter_map(|scope| self.models.get(&model_key(request, scope)))
            .find(|cached| self.is_fresh(cached, request))?;

        Some(Described {
            model: cached.model,
            stale: cached.stale,
            requests: 0,
            origin: Origin::Memory,
        })
    }

    /// Whether `cached` can answer `request` without asking the Hub.
    pub(super) fn is_fresh(&self, cached: &CachedModel, request: &ModelRequest<'_>) -> bool {
        is_immutable(request.revision) || cached.is_fresh(request.now, self.revalidate_after)
    }

    pub(super) fn in_memory(&self, request: &ModelRequest<'_>) -> Option<CachedModel> {
        Self::scopes(request)
            .iter()
            .find_map(|scope| self.models.get(&model_key(request, scope)))
    }

    /// Returns the scopes that `request` may read: the public one, then its token's.
    pub(super) fn scopes(request: &ModelRequest<'_>) -> Vec<String> {
        let identity = request.auth.identity();
        if identity == PUBLIC {
            vec![PUBLIC.into()]
        } else {
            vec![PUBLIC.into(), identity]
        }
    }
}

/// Whether a revision is a whole commit. A shorter run of hex digits may be the name of a branch.
pub(super) fn is_immutable(revision: &str) -> bool {
    revision.len() == 40 && is_commit(revision)
}

pub(super) fn model_key(request: &ModelRequest<'_>, scope: &str) -> ModelKey {
    ModelKey {
        scope: scope.into(),
        repo: request.repo.into(),
        revision: request.revision.into(),
        file: request.file.map(Into::into),
    }
}

pub(super) fn assemble_model(metadata: &Metadata) -> Result<Arc<Model>, SourceError> {
    let assembled = assemble(metadata);
    assembled
        .map(Arc::new)
        .map_err(|error| SourceError::MissingMetadata {
            what: metadata.identity.repo.clone(),
            why: error.to_string(),
        })
}
