//! What this host's disk holds of a Hub's models: this program's own cache, and huggingface_hub's.
//!
//! Every access goes through the file threads. A disk that does not answer is skipped as if nothing
//! were kept there.

use std::sync::Arc;
use std::time::SystemTime;

use hf_mem_core::model::metadata::Metadata;
use hf_mem_core::model::{Identity, Model};

use super::base::AdapterAt;
use super::bundle;
use super::client::{Described, ModelRequest, Origin, SourceClient, cannot_change, key, model};
use super::disk::{DiskCache, RevisionNote, Scope};
use super::error::SourceError;
use super::hub::{HubReading, Revision};
use super::known::Kept;
use super::permissions::FileReader;
use super::{hf_cache, local};
use crate::admission::read_limits;
use crate::admission::read_limits::ReadSlot;
use crate::files::Disk;

/// An entry of the cache, by all that it is found by.
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
    /// Does `work` on the cache; `None` where there is none, or it hangs.
    async fn on_cache<T: Send + 'static>(
        &self,
        work: impl FnOnce(&DiskCache, &Disk) -> T + Send + 'static,
    ) -> Option<T> {
        let cache = Arc::clone(self.disk.as_ref()?);
        let place = cache.folder().to_owned();
        let done = self.files.run(&place, move |disk| work(&cache, disk)).await;
        // One for each question: the warning comes with the daemon's health.
        done.inspect_err(|error| tracing::debug!(%error, "the cache is skipped"))
            .ok()
    }

    /// The model of `found`, from the cache or else from the Hub; what the Hub says is kept.
    pub(super) async fn read_commit(
        &self,
        asked: &ModelRequest<'_>,
        reading: &HubReading<'_>,
        found: Revision,
        scope: &str,
    ) -> Result<Arc<Model>, SourceError> {
        let entry = EntryKey::new(scope, &found.repo, &found.commit, asked.file);
        let kept = self
            .kept_on_disk(entry, |metadata| model(&metadata).ok())
            .await;
        if let Some(model) = kept.filter(|model| model.adapter.is_none()) {
            return Ok(model);
        }

        let (metadata, seat) = reading.metadata(found, asked.file).await?;

        // An adapter is small, and its base model is a reading of its own.
        let seat = Some(seat).filter(|_| metadata.base_model.is_none());
        let at = AdapterAt::Hub(asked.repo);

        // Many users may share this reading: nothing that only one of them could read is looked
        // for.
        let with_base = self.with_base(metadata, at, &FileReader::Unknown, asked.auth, asked.now);
        let metadata = Box::pin(with_base).await?;

        let own = asked.auth.identity();
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
        let entry =
            commit.map(|commit| EntryKey::new(scope, &metadata.identity.repo, &commit, asked.file));

        let bytes = if seat.as_ref().is_some_and(ReadSlot::is_large) {
            u64::MAX
        } else {
            metadata.work_bytes()
        };

        let is_kept = entry.is_some();
        let work = move || (is_kept.then(|| bundle::pack(&metadata)), model(&metadata));
        let (packed, model) = read_limits::work(bytes, seat, work).await;
        if let (Some(entry), Some(packed)) = (entry, packed) {
            self.keep_entry(entry, packed).await;
        }

        model
    }

    async fn keep_entry(&self, entry: EntryKey, packed: Result<bundle::Packed, SourceError>) {
        let packed = match packed {
            Ok(packed) => packed.bytes,
            Err(error) => return tracing::warn!(%error, "metadata cannot be kept"),
        };

        let keep = move |cache: &DiskCache, disk: &Disk| {
            let EntryKey {
                scope,
                repo,
                commit,
                file,
            } = &entry;
            cache.keep(disk, Scope(scope), repo, commit, file.as_deref(), &packed);
        };

        // The cache's health says when it could not be kept.
        self.on_cache(keep).await;
    }

    /// Remembers on disk which commit a revision stands for.
    pub(super) async fn keep_note(
        &self,
        asked: &ModelRequest<'_>,
        scope: &str,
        note: RevisionNote,
    ) {
        let [scope, repo, revision] = [scope, asked.repo, asked.revision].map(ToOwned::to_owned);
        let keep = move |cache: &DiskCache, disk: &Disk| {
            cache.keep_note(disk, Scope(&scope), &repo, &revision, &note);
        };
        self.on_cache(keep).await;
    }

    /// What `take` makes of what the disk holds of a commit.
    async fn kept_on_disk<T: Send + 'static>(
        &self,
        entry: EntryKey,
        take: impl FnOnce(Metadata) -> Option<T> + Send + 'static,
    ) -> Option<T> {
        let [wanted, read] = [entry.clone(), entry.clone()];
        let is_there = self.on_cache(move |cache, disk| {
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

        // It is not known from its length how much it is: few are unpacked at once.
        let turn = read_limits::loading().await;

        let packed = self.on_cache(move |cache, disk| {
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
        let unpack = move || DiskCache::unpack(&packed, &commit).map(take);
        let taken = read_limits::work(u64::MAX, turn, unpack).await;
        self.note_use(entry, taken.as_ref().err().cloned());

        taken.ok().flatten()
    }

    /// Marks an entry as used, or removes it because of `damage`. Waits for neither: a disk that
    /// only takes no writes must not hold up what was read.
    fn note_use(&self, entry: EntryKey, damage: Option<String>) {
        let Some(cache) = self.disk.clone() else {
            return;
        };

        let place = cache.folder().to_owned();
        let act = move |disk: &Disk| {
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

        self.files.try_detached(&place, act);
    }

    /// What the disk holds of the revision, with when it was last checked; it is known in memory
    /// from then on.
    pub(super) async fn on_disk(&self, asked: &ModelRequest<'_>) -> Option<Kept> {
        let (scope, model, checked) = self
            .metadata_on_disk(asked, |metadata| model(&metadata).ok())
            .await?;
        let kept = Kept {
            model,
            checked,
            stale: false,
        };

        self.known.keep(key(asked, &scope), kept.clone());
        Some(kept)
    }

    /// What `take` makes of the same, with the scope that it is kept under.
    pub(super) async fn metadata_on_disk<T: Send + 'static>(
        &self,
        asked: &ModelRequest<'_>,
        take: impl Fn(Metadata) -> Option<T> + Clone + Send + 'static,
    ) -> Option<(String, T, SystemTime)> {
        for scope in Self::scopes(asked) {
            let Some(note) = self.note(asked, &scope).await else {
                continue;
            };
            let entry = EntryKey::new(&scope, &note.repo, &note.commit, asked.file);
            if let Some(taken) = self.kept_on_disk(entry, take.clone()).await {
                return Some((scope, taken, note.checked()));
            }
        }

        None
    }

    /// Which commit the revision stands for.
    async fn note(&self, asked: &ModelRequest<'_>, scope: &str) -> Option<RevisionNote> {
        if cannot_change(asked.revision) {
            return Some(RevisionNote::new(asked.repo, asked.revision, asked.now));
        }
        let [scope, repo, revision] = [scope, asked.repo, asked.revision].map(ToOwned::to_owned);
        self.on_cache(move |cache, disk| cache.note(disk, Scope(&scope), &repo, &revision))
            .await?
    }

    /// The model as huggingface_hub's cache has it for `reader`; else `why` the Hub did not answer.
    pub(super) async fn stale_in_hf_cache(
        &self,
        asked: &ModelRequest<'_>,
        reader: &FileReader,
        why: SourceError,
        requests: u32,
    ) -> Result<Described, SourceError> {
        let found = match self.in_hf_cache(asked, reader).await {
            None => return Err(why),
            Some(Ok(metadata)) => {
                let at = AdapterAt::Hub(asked.repo);
                Box::pin(self.with_base(metadata, at, reader, asked.auth, asked.now)).await
            }
            Some(Err(error)) => Err(error),
        };

        let described = found.and_then(|metadata| {
            Ok(Described {
                model: model(&metadata)?,
                stale: true,
                requests,
                origin: Origin::Disk,
            })
        });

        // Without a network the cache is all there is, and what is wrong with it matters.
        described.map_err(|error| {
            if matches!(why, SourceError::Offline { .. }) {
                error
            } else {
                why
            }
        })
    }

    /// The snapshot that huggingface_hub has downloaded, if it has, and if `reader` could read it
    /// too.
    pub(super) async fn in_hf_cache(
        &self,
        asked: &ModelRequest<'_>,
        reader: &FileReader,
    ) -> Option<Result<Metadata, SourceError>> {
        if *reader == FileReader::Unknown {
            return None;
        }

        let cache = self.hub_settings().cache_folder.clone()?;
        let place = self.files.at(&cache);
        let [repo, revision] = [asked.repo, asked.revision].map(ToOwned::to_owned);
        let (root, reader) = (cache.clone(), reader.clone());
        let find = move |disk: &Disk| Ok(hf_cache::find(disk, &root, &repo, &revision, &reader));
        let snapshot = match place.run(find).await {
            Ok(found) => found?,
            Err(error) => return Some(Err(local::io(&cache, &error))),
        };

        let identity = Identity {
            repo: asked.repo.into(),
            revision: Some(asked.revision.into()),
            commit: Some(snapshot.commit),
            file: None,
        };

        Some(
            Box::pin(local::metadata(
                &place,
                &snapshot.folder,
                identity,
                asked.file,
            ))
            .await,
        )
    }
}
