//! The one door: a reference goes in, a model comes out, from memory, disk, a folder or a Hub.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hf_mem_core::model::Model;
use hf_mem_core::model::metadata::{Metadata, RecordError, assemble};
use tokio::time::timeout;

use super::disk::{CacheStanding, DiskCache, RevisionNote};
use super::error::SourceError;
use super::hub::{HubClient, HubReading, HubStats, is_commit};
use super::known::{Kept, Key, KnownModels};
use super::permissions::FileReader;
use super::reference::{ModelReference, Place};
use super::settings::{HubSettings, LocalFolders};
use super::token::Auth;
use crate::files::FileThreads;

/// The scope of what anyone may see.
const PUBLIC: &str = "public";

/// Threads that touch files for models. One that hangs is not to be had back, so there are few.
const FILE_THREADS: usize = 4;

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
    /// How long one access to a file may take.
    pub file_deadline: Duration,
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
            // A folder of the user's own on a slow network: listing it is one access.
            file_deadline: Duration::from_secs(30),
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
    pub(super) hub: HubClient,
    pub(super) files: FileThreads,
    pub(super) disk: Option<Arc<DiskCache>>,
    pub(super) folders: LocalFolders,
    pub(super) known: KnownModels<Shared>,
    revalidate_after: Duration,
}

/// What is asked of a Hub.
#[derive(Clone, Copy)]
pub(super) struct ModelRequest<'a> {
    pub(super) repo: &'a str,
    pub(super) revision: &'a str,
    pub(super) file: Option<&'a str>,
    pub(super) auth: &'a Auth,
    pub(super) now: SystemTime,
}

/// What one reading comes to for all who ask with the same token. The Hugging Face cache has no
/// part in it: what that shows depends on the user.
#[derive(Clone, Debug)]
pub(super) enum Shared {
    /// The model.
    Described(Described),
    /// The Hub could not be asked, or may not be, and nothing is known from before.
    Unreached {
        why: SourceError,
        /// Requests that were made.
        requests: u32,
    },
}

impl SourceClient {
    /// A client with nothing known. Opens no connection.
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
            known: KnownModels::new(settings.known_models, settings.known_bytes),
            revalidate_after: settings.revalidate_after,
        }
    }

    /// How requests to Hubs have ended so far.
    pub fn hub_tally(&self) -> &HubStats {
        self.hub.tally()
    }

    /// Models in memory.
    pub fn known_models(&self) -> usize {
        self.known.len()
    }

    /// How the cache on disk is, as far as that was measured; `None` where nothing is kept on disk.
    pub fn cache_standing(&self) -> Option<CacheStanding> {
        self.disk.as_ref().map(|disk| disk.standing())
    }

    /// Begins to add up what the cache on disk holds.
    pub fn measure_cache(&self) {
        if let Some(disk) = self.disk.clone() {
            let place = disk.folder().to_owned();
            self.files
                .try_detached(&place, move |access| disk.measure(access));
        }
    }

    /// The place that has not answered for too long, and is skipped meanwhile.
    pub fn hung_files(&self) -> Option<String> {
        self.files.trouble().map(|hung| hung.to_string())
    }

    pub(super) fn hub_settings(&self) -> &HubSettings {
        self.hub.settings()
    }

    /// This program's own token for the Hub that has `reference`; whether a caller may use it is
    /// the caller's to decide.
    pub fn own_auth(&self, reference: &ModelReference) -> Auth {
        match &reference.place {
            Place::Hub { repo, .. } => self.hub.settings().endpoint_for(repo).1.cloned().into(),
            _ => Auth::Anonymous,
        }
    }

    /// The model that `reference` names, as `auth` may see it. `now` decides what is fresh.
    ///
    /// Local places are opened as this process; a daemon must not pass on a path that a client
    /// names.
    pub async fn describe(
        &self,
        reference: &ModelReference,
        auth: &Auth,
        now: SystemTime,
    ) -> Result<Described, SourceError> {
        self.describe_for(&self.own_reader(reference, auth), reference, auth, now)
            .await
    }

    /// As [`SourceClient::describe`], with what the Hugging Face cache has for `reader`.
    pub async fn describe_for(
        &self,
        reader: &FileReader,
        reference: &ModelReference,
        auth: &Auth,
        now: SystemTime,
    ) -> Result<Described, SourceError> {
        let Place::Hub { repo, revision } = &reference.place else {
            let metadata = self.read(reference, auth, now).await?;
            return Ok(Described {
                model: model(&metadata)?,
                stale: false,
                requests: 0,
                origin: Origin::Disk,
            });
        };

        let revision = revision.as_deref().unwrap_or("main");
        let asked = ModelRequest {
            repo,
            revision,
            file: reference.file.as_deref(),
            auth,
            now,
        };

        if let Some(fresh) = self.fresh_in_memory(&asked) {
            return Ok(fresh);
        }

        let reading = Box::pin(self.describe_from_hub(&asked));
        let shared = self
            .known
            .once(&key(&asked, &auth.identity()), reading)
            .await?;

        match shared {
            Shared::Described(described) => Ok(described),
            Shared::Unreached { why, requests } => {
                Box::pin(self.stale_in_hf_cache(&asked, reader, why, requests)).await
            }
        }
    }

    /// The reader of files for who asks as this program itself does. Of another token it says
    /// nothing.
    pub(super) fn own_reader(&self, reference: &ModelReference, auth: &Auth) -> FileReader {
        if self.own_auth(reference) == *auth {
            FileReader::Own
        } else {
            FileReader::Unknown
        }
    }

    /// As [`SourceClient::describe`], of what is in memory and fresh; `None` where that is nothing,
    /// or the place is local.
    pub fn at_hand(
        &self,
        reference: &ModelReference,
        auth: &Auth,
        now: SystemTime,
    ) -> Option<Described> {
        let Place::Hub { repo, revision } = &reference.place else {
            return None;
        };

        let revision = revision.as_deref().unwrap_or("main");
        self.fresh_in_memory(&ModelRequest {
            repo,
            revision,
            file: reference.file.as_deref(),
            auth,
            now,
        })
    }

    /// Whether the model is in memory, however old: then the Hub is asked for its revision, and
    /// seldom for more.
    pub fn is_known(&self, reference: &ModelReference, auth: &Auth, now: SystemTime) -> bool {
        let Place::Hub { repo, revision } = &reference.place else {
            return false;
        };

        let revision = revision.as_deref().unwrap_or("main");
        self.in_memory(&ModelRequest {
            repo,
            revision,
            file: reference.file.as_deref(),
            auth,
            now,
        })
        .is_some()
    }

    /// A known model whose revision was checked lately, or cannot change.
    fn fresh_in_memory(&self, asked: &ModelRequest<'_>) -> Option<Described> {
        let fresh = |kept: &Kept| {
            cannot_change(asked.revision) || kept.is_fresh(asked.now, self.revalidate_after)
        };

        let kept = Self::scopes(asked)
            .iter()
            .filter_map(|scope| self.known.get(&key(asked, scope)))
            .find(fresh)?;

        Some(Described {
            model: kept.model,
            stale: kept.stale,
            requests: 0,
            origin: Origin::Memory,
        })
    }

    pub(super) fn in_memory(&self, asked: &ModelRequest<'_>) -> Option<Kept> {
        Self::scopes(asked)
            .iter()
            .find_map(|scope| self.known.get(&key(asked, scope)))
    }

    /// Where `asked` may look: what is everyone's, then what is its token's.
    pub(super) fn scopes(asked: &ModelRequest<'_>) -> Vec<String> {
        let identity = asked.auth.identity();
        if identity == PUBLIC {
            vec![PUBLIC.into()]
        } else {
            vec![PUBLIC.into(), identity]
        }
    }

    async fn describe_from_hub(&self, asked: &ModelRequest<'_>) -> Result<Shared, SourceError> {
        // The wait for another asker's reading may have answered the question.
        if let Some(fresh) = self.fresh_in_memory(asked) {
            return Ok(Shared::Described(fresh));
        }

        let on_disk = self.on_disk(asked).await;
        if let Some(kept) = on_disk.as_ref().filter(|kept| {
            cannot_change(asked.revision) || kept.is_fresh(asked.now, self.revalidate_after)
        }) {
            let model = Arc::clone(&kept.model);
            return Ok(Shared::Described(Described {
                model,
                stale: false,
                requests: 0,
                origin: Origin::Disk,
            }));
        }

        let in_memory = self.in_memory(asked);
        let origin = if in_memory.is_some() {
            Origin::Memory
        } else {
            Origin::Disk
        };

        let old = in_memory.or(on_disk);
        if self.hub.settings().offline {
            return Ok(match old {
                Some(old) => Shared::Described(Described {
                    model: old.model,
                    stale: true,
                    requests: 0,
                    origin,
                }),
                None => Shared::Unreached {
                    why: self.offline(asked),
                    requests: 0,
                },
            });
        }

        let (outcome, requests) = match self.hub.begin(asked.repo, asked.revision, asked.auth).await
        {
            Ok(reading) => (
                self.ask_hub(asked, &reading, old.as_ref()).await,
                reading.requests(),
            ),
            Err(error) => (Err(error), 0),
        };

        match (outcome, old) {
            (Ok(model), _) => Ok(Shared::Described(Described {
                model,
                stale: false,
                requests,
                origin: Origin::Hub,
            })),
            (Err(error), Some(old)) if error.is_transient() => {
                // One for each question: the warning comes with the daemon's health.
                tracing::debug!(repo = asked.repo, %error, "a model known from before is given, for the Hub cannot be asked");
                let kept = Kept {
                    model: Arc::clone(&old.model),
                    checked: asked.now,
                    stale: true,
                };

                self.known.keep(key(asked, &asked.auth.identity()), kept);
                Ok(Shared::Described(Described {
                    model: old.model,
                    stale: true,
                    requests,
                    origin,
                }))
            }
            (Err(why), None) if why.is_transient() => Ok(Shared::Unreached { why, requests }),
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
        asked: &ModelRequest<'_>,
        reading: &HubReading<'_>,
        old: Option<&Kept>,
    ) -> Result<Arc<Model>, SourceError> {
        let found = match old {
            None => reading.revision().await?,
            // There is an answer already: a Hub that is slow is not worth a long wait.
            Some(_) => timeout(REVALIDATE_WITHIN, reading.revision())
                .await
                .unwrap_or_else(|_| {
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
        let scope = if found.gated || found.private {
            identity.as_str()
        } else {
            PUBLIC
        };

        let note = RevisionNote::new(&found.repo, &found.commit, asked.now);

        // An adapter's commit says nothing of its base model, which may have changed, or been
        // closed, meanwhile.
        let same = old
            .filter(|old| old.model.adapter.is_none())
            .filter(|old| old.model.asked().commit.as_deref() == Some(found.commit.as_str()));
        let model = match same {
            Some(old) => Arc::clone(&old.model),
            None => self.read_commit(asked, reading, found, scope).await?,
        };

        // An adapter on a gated model is kept as that one is.
        let scope = if model.adapter.as_ref().is_some_and(|it| it.base_gated) {
            identity.as_str()
        } else {
            scope
        };

        self.keep_note(asked, scope, note).await;
        self.known.keep(
            key(asked, scope),
            Kept {
                model: Arc::clone(&model),
                checked: asked.now,
                stale: false,
            },
        );

        Ok(model)
    }

    pub(super) fn offline(&self, asked: &ModelRequest<'_>) -> SourceError {
        let folder = self
            .hub
            .settings()
            .cache_folder
            .as_ref()
            .map(|folder| folder.display().to_string());

        SourceError::Offline {
            what: format!("{}@{}", asked.repo, asked.revision),
            folder,
        }
    }
}

/// Whether a revision is a whole commit. A shorter run of hex digits may be a branch that looks
/// like one.
pub(super) fn cannot_change(revision: &str) -> bool {
    revision.len() == 40 && is_commit(revision)
}

pub(super) fn key(asked: &ModelRequest<'_>, scope: &str) -> Key {
    Key {
        scope: scope.into(),
        repo: asked.repo.into(),
        revision: asked.revision.into(),
        file: asked.file.map(Into::into),
    }
}

pub(super) fn model(metadata: &Metadata) -> Result<Arc<Model>, SourceError> {
    let refuse = |error: RecordError| SourceError::MissingMetadata {
        what: metadata.identity.repo.clone(),
        why: error.to_string(),
    };
    assemble(metadata).map(Arc::new).map_err(refuse)
}
