//! The one door: a reference goes in, a model comes out, from memory, disk, a folder or a Hub.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::timeout;

use super::base::AdapterAt;
use super::disk::{CacheStanding, DiskCache, RevisionNote, Scope};
use super::error::SourceError;
use super::hub::{HubClient, HubTally, Reading, Revision, is_commit};
use super::known::{Kept, Key, KnownModels};
use super::metadata::{Metadata, assemble};
use super::reference::{ModelReference, Place};
use super::settings::{HubSettings, LocalFolders};
use super::token::Auth;
use super::turns::{self, Seat};
use super::{hf_cache, local, ollama};
use crate::model::{Identity, Model};

/// The scope of what anyone may see.
const PUBLIC: &str = "public";

/// How long a known model waits for word of a newer one.
const REVALIDATE_WITHIN: Duration = Duration::from_secs(5);

/// Where to look and what to keep.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    /// Hubs, tokens, proxies, limits.
    pub hub: HubSettings,
    /// Folders of Ollama and LM Studio.
    pub folders: LocalFolders,
    /// The folder for metadata; `None` keeps nothing on disk.
    pub cache_folder: Option<PathBuf>,
    /// Bytes of that folder.
    pub cache_bytes: u64,
    /// Models in memory; each costs some ten kilobytes.
    pub known_models: usize,
    /// Bytes that they may take together.
    pub known_bytes: u64,
    /// How long a branch is taken to stand for the same commit without asking.
    pub revalidate_after: Duration,
}

impl SourceSettings {
    /// The defaults around `hub`.
    pub fn new(hub: HubSettings) -> Self {
        Self {
            hub,
            folders: LocalFolders::default(),
            cache_folder: None,
            cache_bytes: 256 << 20,
            known_models: 512,
            known_bytes: 64 << 20,
            revalidate_after: Duration::from_secs(600),
        }
    }
}

/// A model and how it came.
#[derive(Clone, Debug)]
pub struct Described {
    /// The model.
    pub model: Arc<Model>,
    /// Whether the Hub could not be asked if it is still the newest.
    pub stale: bool,
    /// Requests that were made for it.
    pub requests: u32,
    /// Where it was found.
    pub origin: Origin,
}

/// Where a model was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was known.
    Memory,
    /// On this host's disk: the cache, the Hugging Face cache, a folder.
    Disk,
    /// The Hub was asked.
    Hub,
}

/// Reads models and remembers them.
#[derive(Debug)]
pub struct SourceClient {
    hub: HubClient,
    disk: Option<Arc<DiskCache>>,
    folders: LocalFolders,
    known: KnownModels<Described>,
    revalidate_after: Duration,
}

/// What is asked of a Hub.
#[derive(Clone, Copy)]
struct Asked<'a> {
    repo: &'a str,
    revision: &'a str,
    file: Option<&'a str>,
    auth: &'a Auth,
    now: SystemTime,
}

impl SourceClient {
    /// A client with nothing known. Opens no connection.
    pub fn new(settings: SourceSettings) -> Self {
        let disk = settings.cache_folder.map(|folder| Arc::new(DiskCache::new(&folder, settings.cache_bytes)));
        Self {
            hub: HubClient::new(settings.hub),
            disk,
            folders: settings.folders,
            known: KnownModels::new(settings.known_models, settings.known_bytes),
            revalidate_after: settings.revalidate_after,
        }
    }

    /// How requests to Hubs have ended so far.
    pub fn hub_tally(&self) -> &HubTally {
        self.hub.tally()
    }

    /// Models in memory.
    pub fn known_models(&self) -> usize {
        self.known.len()
    }

    /// How the cache on disk is; `None` where nothing is kept on disk.
    pub fn cache_standing(&self) -> Option<CacheStanding> {
        self.disk.as_ref().map(|disk| disk.standing())
    }

    pub(super) fn hub_settings(&self) -> &HubSettings {
        self.hub.settings()
    }

    /// This program's own token for the Hub that has `reference`; whether a caller may use it is the caller's to decide.
    pub fn own_auth(&self, reference: &ModelReference) -> Auth {
        match &reference.place {
            Place::Hub { repo, .. } => self.hub.settings().endpoint_for(repo).1.cloned().into(),
            _ => Auth::Anonymous,
        }
    }

    /// The model that `reference` names, as `auth` may see it. `now` decides what is fresh.
    ///
    /// Local places are opened as this process; a daemon must not pass on a path that a client names.
    pub async fn describe(
        &self,
        reference: &ModelReference,
        auth: &Auth,
        now: SystemTime,
    ) -> Result<Described, SourceError> {
        let Place::Hub { repo, revision } = &reference.place else {
            let metadata = self.read(reference, auth, now).await?;
            return Ok(Described { model: model(&metadata)?, stale: false, requests: 0, origin: Origin::Disk });
        };
        let revision = revision.as_deref().unwrap_or("main");
        let asked = Asked { repo, revision, file: reference.file.as_deref(), auth, now };
        if let Some(fresh) = self.fresh_in_memory(&asked) {
            return Ok(fresh);
        }
        self.known.once(&key(&asked, &auth.identity()), self.describe_from_hub(&asked)).await
    }

    /// As [`SourceClient::describe`], of what is in memory and fresh; `None` where that is nothing, or the place is local.
    pub fn at_hand(&self, reference: &ModelReference, auth: &Auth, now: SystemTime) -> Option<Described> {
        let Place::Hub { repo, revision } = &reference.place else { return None };
        let revision = revision.as_deref().unwrap_or("main");
        self.fresh_in_memory(&Asked { repo, revision, file: reference.file.as_deref(), auth, now })
    }

    /// Whether the model is in memory, however old: then the Hub is asked for its revision, and seldom for more.
    pub fn is_known(&self, reference: &ModelReference, auth: &Auth, now: SystemTime) -> bool {
        let Place::Hub { repo, revision } = &reference.place else { return false };
        let revision = revision.as_deref().unwrap_or("main");
        self.in_memory(&Asked { repo, revision, file: reference.file.as_deref(), auth, now }).is_some()
    }

    /// The metadata of `reference`, for a bundle or for sending to a daemon. A Hub is asked anew.
    pub async fn read(
        &self,
        reference: &ModelReference,
        auth: &Auth,
        now: SystemTime,
    ) -> Result<Metadata, SourceError> {
        let at = if let Place::Hub { repo, .. } = &reference.place { AdapterAt::Hub(repo) } else { AdapterAt::Disk };
        let metadata = self.read_alone(reference, auth, now).await?;
        Box::pin(self.with_base(metadata, at, auth, now)).await
    }

    /// As [`SourceClient::read`]; of an adapter the adapter alone.
    async fn read_alone(
        &self,
        reference: &ModelReference,
        auth: &Auth,
        now: SystemTime,
    ) -> Result<Metadata, SourceError> {
        let file = reference.file.as_deref();
        match &reference.place {
            Place::Hub { .. } => self.read_from_hub(reference, auth, now).await,
            Place::Path(path) => self.read_path(path, file).await,
            Place::Ollama(name) => {
                let folder = known_folder(self.folders.ollama.as_deref(), "Ollama", "OLLAMA_MODELS")?;
                let pulled = ollama::find(folder, name)?;
                let identity =
                    Identity { repo: reference.name(), commit: Some(pulled.digest.clone()), ..Identity::default() };
                local::pulled(&pulled, identity).await
            }
            Place::LmStudio(name) => {
                let folder = known_folder(self.folders.lm_studio.as_deref(), "LM Studio", "HOME")?;
                let identity = Identity { repo: reference.name(), ..Identity::default() };
                local::metadata(&folder.join(name), identity, file).await
            }
        }
    }

    /// A repository as the Hub has it now, or offline as huggingface_hub's cache does.
    pub(super) async fn read_from_hub(
        &self,
        reference: &ModelReference,
        auth: &Auth,
        now: SystemTime,
    ) -> Result<Metadata, SourceError> {
        let Place::Hub { repo, revision } = &reference.place else { return self.read_path(Path::new(""), None).await };
        let revision = revision.as_deref().unwrap_or("main");
        let file = reference.file.as_deref();
        let asked = Asked { repo, revision, file, auth, now };
        if self.hub.settings().offline {
            return match self.metadata_on_disk(&asked, Some).await {
                Some((_, metadata, _)) => Ok(metadata),
                None => self.in_hf_cache(&asked).await.unwrap_or_else(|| Err(self.offline(&asked))),
            };
        }
        let reading = self.hub.begin(repo, revision, auth)?;
        let found = reading.revision().await?;
        let private = found.private;
        let (mut metadata, _) = reading.metadata(found, file).await?;
        metadata.gated |= private;
        Ok(metadata)
    }

    pub(super) async fn read_path(&self, path: &Path, file: Option<&str>) -> Result<Metadata, SourceError> {
        let identity = Identity { repo: path.display().to_string(), ..Identity::default() };
        local::metadata(path, identity, file).await
    }

    /// A known model whose revision was checked lately, or cannot change.
    fn fresh_in_memory(&self, asked: &Asked<'_>) -> Option<Described> {
        let fresh = |kept: &Kept| cannot_change(asked.revision) || kept.is_fresh(asked.now, self.revalidate_after);
        let kept = Self::scopes(asked).iter().filter_map(|scope| self.known.get(&key(asked, scope))).find(fresh)?;
        Some(Described { model: kept.model, stale: kept.stale, requests: 0, origin: Origin::Memory })
    }

    fn in_memory(&self, asked: &Asked<'_>) -> Option<Kept> {
        Self::scopes(asked).iter().find_map(|scope| self.known.get(&key(asked, scope)))
    }

    /// Where `asked` may look: what is everyone's, then what is its token's.
    fn scopes(asked: &Asked<'_>) -> Vec<String> {
        let identity = asked.auth.identity();
        if identity == PUBLIC { vec![PUBLIC.into()] } else { vec![PUBLIC.into(), identity] }
    }

    async fn describe_from_hub(&self, asked: &Asked<'_>) -> Result<Described, SourceError> {
        // The wait for another asker's reading may have answered the question.
        if let Some(fresh) = self.fresh_in_memory(asked) {
            return Ok(fresh);
        }
        let on_disk = self.on_disk(asked).await;
        if let Some(kept) = on_disk
            .as_ref()
            .filter(|kept| cannot_change(asked.revision) || kept.is_fresh(asked.now, self.revalidate_after))
        {
            let model = Arc::clone(&kept.model);
            return Ok(Described { model, stale: false, requests: 0, origin: Origin::Disk });
        }
        let in_memory = self.in_memory(asked);
        let origin = if in_memory.is_some() { Origin::Memory } else { Origin::Disk };
        let old = in_memory.or(on_disk);
        if self.hub.settings().offline {
            return match old {
                Some(old) => Ok(Described { model: old.model, stale: true, requests: 0, origin }),
                None => self.stale_in_hf_cache(asked).await.unwrap_or_else(|| Err(self.offline(asked))),
            };
        }
        let reading = self.hub.begin(asked.repo, asked.revision, asked.auth)?;
        let outcome = self.ask_hub(asked, &reading, old.as_ref()).await;
        let requests = reading.requests();
        match (outcome, old) {
            (Ok(model), _) => Ok(Described { model, stale: false, requests, origin: Origin::Hub }),
            (Err(error), Some(old)) if error.is_transient() => {
                // One for each question: the warning comes with the daemon's health.
                tracing::debug!(repo = asked.repo, %error, "a model known from before is given, for the Hub cannot be asked");
                let kept = Kept { model: Arc::clone(&old.model), checked: asked.now, stale: true };
                self.known.keep(key(asked, &asked.auth.identity()), kept);
                Ok(Described { model: old.model, stale: true, requests, origin })
            }
            (Err(error), None) if error.is_transient() => match self.stale_in_hf_cache(asked).await {
                Some(Ok(found)) => Ok(Described { requests, ..found }),
                _ => Err(error),
            },
            (Err(error), old) => {
                // The Hub itself says that this asker may not see it (any more).
                if old.is_some() {
                    for scope in Self::scopes(asked) {
                        self.known.forget(&key(asked, &scope));
                    }
                }
                Err(error)
            }
        }
    }

    /// Asks for the commit, and reads it unless it is known.
    async fn ask_hub(
        &self,
        asked: &Asked<'_>,
        reading: &Reading<'_>,
        old: Option<&Kept>,
    ) -> Result<Arc<Model>, SourceError> {
        let found = match old {
            None => reading.revision().await?,
            // There is an answer already: a Hub that is slow is not worth a long wait.
            Some(_) => timeout(REVALIDATE_WITHIN, reading.revision()).await.unwrap_or_else(|_| {
                Err(SourceError::HubUnreachable {
                    url: self.hub.settings().endpoint_for(asked.repo).0.to_string(),
                    why: "no answer in time".into(),
                    attempts: reading.requests(),
                    elapsed: REVALIDATE_WITHIN,
                })
            })?,
        };
        let identity = asked.auth.identity();
        // What needed a token is kept for that token alone.
        let scope = if found.gated || found.private { identity.as_str() } else { PUBLIC };
        let note = RevisionNote::new(&found.repo, &found.commit, asked.now);
        // An adapter's commit says nothing of its base model, which may have changed, or been closed, meanwhile.
        let same = old
            .filter(|old| old.model.adapter.is_none())
            .filter(|old| old.model.asked().commit.as_deref() == Some(found.commit.as_str()));
        let model = match same {
            Some(old) => Arc::clone(&old.model),
            None => self.read_commit(asked, reading, found, scope).await?,
        };
        // An adapter on a gated model is kept as that one is.
        let scope = if model.adapter.as_ref().is_some_and(|it| it.base_gated) { identity.as_str() } else { scope };
        if let Some(disk) = &self.disk {
            disk.keep_note(Scope(scope), asked.repo, asked.revision, &note);
        }
        self.known.keep(key(asked, scope), Kept { model: Arc::clone(&model), checked: asked.now, stale: false });
        Ok(model)
    }

    async fn read_commit(
        &self,
        asked: &Asked<'_>,
        reading: &Reading<'_>,
        found: Revision,
        scope: &str,
    ) -> Result<Arc<Model>, SourceError> {
        let kept = self.kept_on_disk(scope, &found.repo, &found.commit, asked.file, |metadata| model(&metadata).ok());
        if let Some(model) = kept.await.filter(|model| model.adapter.is_none()) {
            return Ok(model);
        }
        let (metadata, seat) = reading.metadata(found, asked.file).await?;
        // An adapter is small, and its base model is a reading of its own.
        let seat = Some(seat).filter(|_| metadata.base_model.is_none());
        let metadata = Box::pin(self.with_base(metadata, AdapterAt::Hub(asked.repo), asked.auth, asked.now)).await?;
        let own = asked.auth.identity();
        let scope = if metadata.base.as_ref().is_some_and(|base| base.gated) { own.as_str() } else { scope };
        let disk = self.disk.clone().filter(|_| !metadata.partial);
        let (scope, file) = (scope.to_owned(), asked.file.map(ToOwned::to_owned));
        let bytes = if seat.as_ref().is_some_and(Seat::is_large) { u64::MAX } else { metadata.work_bytes() };
        let keep = move || {
            if let Some(disk) = disk {
                disk.keep(Scope(&scope), &metadata, file.as_deref());
            }
            model(&metadata)
        };
        turns::work(bytes, seat, keep).await
    }

    /// What `take` makes of what the disk holds of a commit.
    async fn kept_on_disk<T: Send + 'static>(
        &self,
        scope: &str,
        repo: &str,
        commit: &str,
        file: Option<&str>,
        take: impl FnOnce(Metadata) -> Option<T> + Send + 'static,
    ) -> Option<T> {
        let disk = self.disk.clone().filter(|disk| disk.has(Scope(scope), repo, commit, file))?;
        let [scope, repo, commit] = [scope, repo, commit].map(ToOwned::to_owned);
        let file = file.map(ToOwned::to_owned);
        turns::load(move || take(disk.metadata(Scope(&scope), &repo, &commit, file.as_deref())?)).await
    }

    /// What the disk holds of the revision, with when it was last checked; it is known in memory from then on.
    async fn on_disk(&self, asked: &Asked<'_>) -> Option<Kept> {
        let (scope, model, checked) = self.metadata_on_disk(asked, |metadata| model(&metadata).ok()).await?;
        let kept = Kept { model, checked, stale: false };
        self.known.keep(key(asked, &scope), kept.clone());
        Some(kept)
    }

    /// What `take` makes of the same, with the scope that it is kept under.
    async fn metadata_on_disk<T: Send + 'static>(
        &self,
        asked: &Asked<'_>,
        take: impl Fn(Metadata) -> Option<T> + Clone + Send + 'static,
    ) -> Option<(String, T, SystemTime)> {
        let disk = self.disk.as_ref()?;
        for scope in Self::scopes(asked) {
            let note = if cannot_change(asked.revision) {
                Some(RevisionNote::new(asked.repo, asked.revision, asked.now))
            } else {
                disk.note(Scope(&scope), asked.repo, asked.revision)
            };
            let Some(note) = note else { continue };
            let taken = self.kept_on_disk(&scope, &note.repo, &note.commit, asked.file, take.clone()).await;
            if let Some(taken) = taken {
                return Some((scope, taken, note.checked()));
            }
        }
        None
    }

    async fn stale_in_hf_cache(&self, asked: &Asked<'_>) -> Option<Result<Described, SourceError>> {
        let metadata = match self.in_hf_cache(asked).await? {
            Ok(adapter) => Box::pin(self.with_base(adapter, AdapterAt::Hub(asked.repo), asked.auth, asked.now)).await,
            Err(error) => Err(error),
        };
        let described = |metadata: Metadata| {
            Ok(Described { model: model(&metadata)?, stale: true, requests: 0, origin: Origin::Disk })
        };
        Some(metadata.and_then(described))
    }

    /// The snapshot that huggingface_hub has downloaded, if it has. It was downloaded for this program's own user, and
    /// nothing in it says whether a token was needed: who asks as somebody else is not shown it.
    async fn in_hf_cache(&self, asked: &Asked<'_>) -> Option<Result<Metadata, SourceError>> {
        if self.hub.settings().endpoint_for(asked.repo).1 != asked.auth.token() {
            return None;
        }
        let cache = self.hub.settings().cache_folder.as_deref()?;
        let snapshot = hf_cache::find(cache, asked.repo, asked.revision)?;
        let identity = Identity {
            repo: asked.repo.into(),
            revision: Some(asked.revision.into()),
            commit: Some(snapshot.commit),
            file: None,
        };
        Some(local::metadata(&snapshot.folder, identity, asked.file).await)
    }

    fn offline(&self, asked: &Asked<'_>) -> SourceError {
        let folder = self.hub.settings().cache_folder.as_ref().map(|folder| folder.display().to_string());
        SourceError::Offline { what: format!("{}@{}", asked.repo, asked.revision), folder }
    }
}

/// A folder of another program, if there is a place for it.
fn known_folder<'a>(folder: Option<&'a Path>, program: &str, variable: &str) -> Result<&'a Path, SourceError> {
    folder.ok_or_else(|| SourceError::BadSetting {
        name: variable.into(),
        why: format!("it is not set, so the folder of {program} is not known"),
    })
}

/// Whether a revision is a whole commit. A shorter run of hex digits may be a branch that looks like one.
fn cannot_change(revision: &str) -> bool {
    revision.len() == 40 && is_commit(revision)
}

fn key(asked: &Asked<'_>, scope: &str) -> Key {
    Key {
        scope: scope.into(),
        repo: asked.repo.into(),
        revision: asked.revision.into(),
        file: asked.file.map(Into::into),
    }
}

fn model(metadata: &Metadata) -> Result<Arc<Model>, SourceError> {
    let refuse = |error: super::metadata::RecordError| SourceError::MissingMetadata {
        what: metadata.identity.repo.clone(),
        why: error.to_string(),
    };
    assemble(metadata).map(Arc::new).map_err(refuse)
}
