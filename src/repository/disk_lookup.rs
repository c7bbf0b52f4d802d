//! Models of a Hub on this host's disk: in this program's own cache and in huggingface_hub's.
//!
//! Every access runs on a file thread. A disk that does not answer counts as an empty cache.

use std::sync::Arc;
use std::time::SystemTime;

use hf_mem_core::model::metadata::Metadata;
use hf_mem_core::model::{Identity, Model};

use super::base_model::AdapterOrigin;
use super::bundle;
use super::client::{
    Described, ModelRequest, Origin, SourceClient, assemble_model, is_immutable, model_key,
};
use super::disk_cache::{DiskCache, RevisionNote, Scope};
use super::error::SourceError;
use super::hub::{HubReading, Revision};
use super::model_cache::CachedModel;
use super::permissions::FileReader;
use super::{hf_cache, local};
use crate::admission::read_limits;
use crate::admission::read_limits::ReadSlot;
use crate::files::Disk;

/// The key of a cache entry.
#[derive(Clone, Debug)]
struct EntryKey {
    scope: String,
    repo: String,
    commit: String,
    file: Option<String>,
}

impl EntryKey {
    fn new(scope: &str, repo: &str, commit: &str, file: Option<&str>) -> Self {
        let file = file.map(ToOwned::to_owned);
        Self {
            scope: scope.to_owned(),
            repo: repo.to_owned(),
            commit: commit.to_owned(),
            file,
        }
    }
}

impl SourceClient {
    /// Runs `work` on the cache. Returns `None` if there is no cache, or if it hangs.
    async fn with_cache<T: Send + 'static>(
        &self,
        work: impl FnOnce(&DiskCache, &Disk) -> T + Send + 'static,
    ) -> Option<T> {
        let cache = Arc::clone(self.disk.as_ref()?);
        let place = cache.folder().to_owned();
        let done = self.files.run(&place, move |disk| work(&cache, disk)).await;
        // This happens for every request: the daemon's health has the warning.
        done.inspect_err(|error| tracing::debug!(%error, "skipping the cache on disk"))
            .ok()
    }

    /// Returns the model of `found`, from the cache or else from the Hub. A model from the Hub is
    /// added to the cache.
    pub(super) async fn read_commit(
        &self,
        request: &ModelRequest<'_>,
        reading: &HubReading<'_>,
        found: Revision,
        scope: &str,
    ) -> Result<Arc<Model>, SourceError> {
        let entry = EntryKey::new(scope, &found.repo, &found.commit, request.file);
        let cached = self
            .load_entry(entry, |metadata| assemble_model(&metadata).ok())
            .await;
        if let Some(model) = cached.filter(|model| model.adapter.is_none()) {
            return Ok(model);
        }

        let (metadata, slot) = reading.metadata(found, request.file).await?;

        // An adapter is small, and its base model is a separate reading.
        let slot = Some(slot).filter(|_| metadata.base_model.is_none());
        let at = AdapterOrigin::Hub(request.repo);

        // Many users may share this reading, so it includes nothing that only one of them can read.
        let with_base = self.with_base(
            metadata,
            at,
            &FileReader::Unknown,
            request.auth,
            request.now,
        );
        let metadata = Box::pin(with_base).await?;

        let own = request.auth.identity();
        let scope = if metadata.base.as_ref().is_some_and(|base| base.gated) {
            own.as_str()
        } else {
            scope
        };

        let commit = metadata
            .identity
            .commit
            .clone()
            .filter(|_| self.disk.is_some() && !metadata.partial);
        let entry = commit
            .map(|commit| EntryKey::new(scope, &metadata.identity.repo, &commit, request.file));

        let bytes = if slot.as_ref().is_some_and(ReadSlot::is_large) {
            u64::MAX
        } else {
            metadata.work_bytes()
        };

        let is_cacheable = entry.is_some();
        let work = move || {
            (
                is_cacheable.then(|| bundle::pack(&metadata)),
                assemble_model(&metadata),
            )
        };
        let (packed, model) = read_limits::work(bytes, slot, work).await;
        if let (Some(entry), Some(packed)) = (entry, packed) {
            self.store_entry(entry, packed).await;
        }

        model
    }

    async fn store_entry(&self, entry: EntryKey, packed: Result<bundle::Packed, SourceError>) {
        let packed = match packed {
            Ok(packed) => packed.bytes,
            Err(error) => return tracing::warn!(%error, "cannot cache metadata"),
        };

        let keep = move |cache: &DiskCache, disk: &Disk| {
            let EntryKey {
                scope,
                repo,
                commit,
                file,
            } = &entry;
            cache.store(disk, Scope(scope), repo, commit, file.as_deref(), &packed);
        };

        // If the write fails, the cache's status has the error.
        self.with_cache(keep).await;
    }

    /// Stores on disk which commit a revision points to.
    pub(super) async fn store_note(
        &self,
        request: &ModelRequest<'_>,
        scope: &str,
        note: RevisionNote,
    ) {
        let [scope, repo, revision] =
            [scope, request.repo, request.revision].map(ToOwned::to_owned);
        let keep = move |cache: &DiskCache, disk: &Disk| {
            cache.store_note(disk, Scope(&scope), &repo, &revision, &note);
        };
        self.with_cache(keep).await;
    }

    /// Loads an entry of the cache and converts it with `convert`.
    async fn load_entry<T: Send + 'static>(
        &self,
        entry: EntryKey,
        convert: impl FnOnce(Metadata) -> Option<T> + Send + 'static,
    ) -> Option<T> {
        let [wanted, read] = [entry.clone(), entry.clone()];
        let is_there = self.with_cache(move |cache, disk| {
            let EntryKey {
                scope,
                repo,
                commit,
                file,
            } = &wanted;
            cache.has(disk, Scope(scope), repo, commit, file.as_deref())
        });

        if !is_there.await? {
            return None;
        }

        // The packed length does not tell the unpacked one: few entries are unpacked at once.
        let permit = read_limits::loading().await;

        let packed = self.with_cache(move |cache, disk| {
            let EntryKey {
                scope,
                repo,
                commit,
                file,
            } = &read;
            cache.entry(disk, Scope(scope), repo, commit, file.as_deref())
        });
        let packed = packed.await??;

        let commit = entry.commit.clone();
        let unpack = move || DiskCache::unpack(&packed, &commit).map(convert);
        let loaded = read_limits::work(u64::MAX, permit, unpack).await;
        self.record_use(entry, loaded.as_ref().err().cloned());

        loaded.ok().flatten()
    }

    /// Marks an entry as used, or removes it because of `damage`. Does not wait for either: a disk
    /// that accepts no writes must not delay the answer.
    fn record_use(&self, entry: EntryKey, damage: Option<String>) {
        let Some(cache) = self.disk.clone() else {
            return;
        };

        let place = cache.folder().to_owned();
        let update_entry = move |disk: &Disk| {
            let EntryKey {
                scope,
                repo,
                commit,
                file,
            } = &entry;

            match damage {
                Some(why) => cache.discard(disk, Scope(scope), repo, commit, file.as_deref(), &why),
                None => cache.touch(disk, Scope(scope), repo, commit, file.as_deref()),
            }
        };

        self.files.try_detached(&place, update_entry);
    }

    /// Loads the model of a revision from disk, with the time of its last check, into the memory
    /// cache.
    pub(super) async fn model_on_disk(&self, request: &ModelRequest<'_>) -> Option<CachedModel> {
        let (scope, model, checked) = self
            .metadata_on_disk(request, |metadata| assemble_model(&metadata).ok())
            .await?;
        let cached = CachedModel {
            model,
            checked,
            stale: false,
        };

        self.models
            .insert(model_key(request, &scope), cached.clone());
        Some(cached)
    }

    /// Loads the metadata of a revision and converts it with `convert`. Returns its scope and the
    /// time of its last check, too.
    pub(super) async fn metadata_on_disk<T: Send + 'static>(
        &self,
        request: &ModelRequest<'_>,
        convert: impl Fn(Metadata) -> Option<T> + Clone + Send + 'static,
    ) -> Option<(String, T, SystemTime)> {
        for scope in Self::scopes(request) {
            let Some(note) = self.note(request, &scope).await else {
                continue;
            };
            let entry = EntryKey::new(&scope, &note.repo, &note.commit, request.file);
            if let Some(loaded) = self.load_entry(entry, convert.clone()).await {
                return Some((scope, loaded, note.checked()));
            }
        }

        None
    }

    /// Returns the commit that the revision points to.
    async fn note(&self, request: &ModelRequest<'_>, scope: &str) -> Option<RevisionNote> {
        if is_immutable(request.revision) {
            return Some(RevisionNote::new(
                request.repo,
                request.revision,
                request.now,
            ));
        }
        let [scope, repo, revision] =
            [scope, request.repo, request.revision].map(ToOwned::to_owned);
        self.with_cache(move |cache, disk| cache.note(disk, Scope(&scope), &repo, &revision))
            .await?
    }

    /// Returns the model from huggingface_hub's cache, for `reader`. Returns the error `why` of the
    /// Hub if there is none.
    pub(super) async fn stale_in_hf_cache(
        &self,
        request: &ModelRequest<'_>,
        reader: &FileReader,
        why: SourceError,
        requests: u32,
    ) -> Result<Described, SourceError> {
        let found = match self.in_hf_cache(request, reader).await {
            None => return Err(why),
            Some(Ok(metadata)) => {
                let at = AdapterOrigin::Hub(request.repo);
                Box::pin(self.with_base(metadata, at, reader, request.auth, request.now)).await
            }
            Some(Err(error)) => Err(error),
        };

        let described = found.and_then(|metadata| {
            Ok(Described {
                model: assemble_model(&metadata)?,
                stale: true,
                requests,
                origin: Origin::Disk,
            })
        });

        // Without a network the cache is the only source, so its error is the one to report.
        described.map_err(|error| {
            if matches!(why, SourceError::Offline { .. }) {
                error
            } else {
                why
            }
        })
    }

    /// Returns the snapshot that huggingface_hub has downloaded, if `reader` can read all of it.
    pub(super) async fn in_hf_cache(
        &self,
        request: &ModelRequest<'_>,
        reader: &FileReader,
    ) -> Option<Result<Metadata, SourceError>> {
        if *reader == FileReader::Unknown {
            return None;
        }

        let cache = self.hub_settings().cache_folder.clone()?;
        let place = self.files.at(&cache);
        let [repo, revision] = [request.repo, request.revision].map(ToOwned::to_owned);
        let (root, reader) = (cache.clone(), reader.clone());
        let find = move |disk: &Disk| Ok(hf_cache::find(disk, &root, &repo, &revision, &reader));
        let snapshot = match place.run(find).await {
            Ok(found) => found?,
            Err(error) => return Some(Err(local::io_error(&cache, &error))),
        };

        let identity = Identity {
            repo: request.repo.into(),
            revision: Some(request.revision.into()),
            commit: Some(snapshot.commit),
            file: None,
        };

        Some(
            Box::pin(local::metadata(
                &place,
                &snapshot.folder,
                identity,
                request.file,
            ))
            .await,
        )
    }
}
