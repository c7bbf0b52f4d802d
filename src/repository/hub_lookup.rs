//! Describes a model of a Hub: from the cache if it is fresh, else from the Hub, else stale.

use std::sync::Arc;
use std::time::Duration;

use hf_mem_core::model::Model;
use tokio::time::timeout;

use super::client::{
    Described, ModelRequest, Origin, PUBLIC, SharedReading, SourceClient, model_key,
};
use super::disk_cache::RevisionNote;
use super::error::SourceError;
use super::hub::HubReading;
use super::model_cache::CachedModel;

/// How long a cached model waits for the Hub to confirm that it is the newest.
const REVALIDATE_TIMEOUT: Duration = Duration::from_secs(5);

impl SourceClient {
    /// Describes what `request` asks for, for all callers with the same token.
    pub(super) async fn describe_from_hub(
        &self,
        request: &ModelRequest<'_>,
    ) -> Result<SharedReading, SourceError> {
        // While this caller waited for another reading, that one may have filled the cache.
        if let Some(fresh) = self.fresh_in_memory(request) {
            return Ok(SharedReading::Described(fresh));
        }

        let on_disk = self.model_on_disk(request).await;
        let fresh = on_disk
            .as_ref()
            .filter(|cached| self.is_fresh(cached, request));
        if let Some(cached) = fresh {
            let model = Arc::clone(&cached.model);
            return Ok(SharedReading::Described(Described {
                model,
                stale: false,
                requests: 0,
                origin: Origin::Disk,
            }));
        }

        let in_memory = self.in_memory(request);
        let origin = if in_memory.is_some() {
            Origin::Memory
        } else {
            Origin::Disk
        };

        let old = in_memory.or(on_disk);
        if self.hub.settings().offline {
            return Ok(match old {
                Some(old) => SharedReading::Described(Described {
                    model: old.model,
                    stale: true,
                    requests: 0,
                    origin,
                }),
                None => SharedReading::Unreachable {
                    why: self.offline(request),
                    requests: 0,
                },
            });
        }

        let (outcome, requests) = match self
            .hub
            .begin(request.repo, request.revision, request.auth)
            .await
        {
            Ok(reading) => (
                self.ask_hub(request, &reading, old.as_ref()).await,
                reading.requests(),
            ),
            Err(error) => (Err(error), 0),
        };

        match (outcome, old) {
            (Ok(model), _) => Ok(SharedReading::Described(Described {
                model,
                stale: false,
                requests,
                origin: Origin::Hub,
            })),
            (Err(error), Some(old)) if error.is_transient() => {
                // This happens for every request: the daemon's health has the warning.
                tracing::debug!(
                    repo = request.repo, %error,
                    "the Hub is unreachable: answering with a cached model"
                );
                let cached = CachedModel {
                    model: Arc::clone(&old.model),
                    checked: request.now,
                    stale: true,
                };

                self.models
                    .insert(model_key(request, &request.auth.identity()), cached);
                Ok(SharedReading::Described(Described {
                    model: old.model,
                    stale: true,
                    requests,
                    origin,
                }))
            }
            (Err(why), None) if why.is_transient() => {
                Ok(SharedReading::Unreachable { why, requests })
            }
            (Err(error), old) => {
                // The Hub itself denies access to this caller, possibly since a short time.
                if old.is_some() {
                    for scope in Self::scopes(request) {
                        self.models.forget(&model_key(request, &scope));
                    }
                }
                Err(error)
            }
        }
    }

    /// Asks for the commit, and reads its metadata unless the cached model is of that commit.
    async fn ask_hub(
        &self,
        request: &ModelRequest<'_>,
        reading: &HubReading<'_>,
        old: Option<&CachedModel>,
    ) -> Result<Arc<Model>, SourceError> {
        let found = match old {
            None => reading.revision().await?,
            // A cached answer exists, so a slow Hub is not worth a long wait.
            Some(_) => timeout(REVALIDATE_TIMEOUT, reading.revision())
                .await
                .unwrap_or_else(|_| {
                    Err(SourceError::HubUnreachable {
                        url: self.hub.settings().endpoint_for(request.repo).0.to_string(),
                        why: "no response in time".into(),
                        attempts: reading.requests(),
                        elapsed: REVALIDATE_TIMEOUT,
                    })
                })?,
        };

        let identity = request.auth.identity();

        // Metadata that needed a token is cached for that token only.
        let scope = if found.gated || found.private {
            identity.as_str()
        } else {
            PUBLIC
        };

        let note = RevisionNote::new(&found.repo, &found.commit, request.now);

        // An adapter's commit says nothing about its base model, which may have changed or become
        // gated.
        let same = old
            .filter(|old| old.model.adapter.is_none())
            .filter(|old| old.model.asked().commit.as_deref() == Some(found.commit.as_str()));
        let model = match same {
            Some(old) => Arc::clone(&old.model),
            None => self.read_commit(request, reading, found, scope).await?,
        };

        // An adapter on a gated model has the scope of that model.
        let scope = if model.adapter.as_ref().is_some_and(|it| it.base_gated) {
            identity.as_str()
        } else {
            scope
        };

        self.store_note(request, scope, note).await;
        self.models.insert(
            model_key(request, scope),
            CachedModel {
                model: Arc::clone(&model),
                checked: request.now,
                stale: false,
            },
        );

        Ok(model)
    }

    pub(super) fn offline(&self, request: &ModelRequest<'_>) -> SourceError {
        let folder = self
            .hub
            .settings()
            .cache_folder
            .as_ref()
            .map(|folder| folder.display().to_string());

        SourceError::Offline {
            what: format!("{}@{}", request.repo, request.revision),
            folder,
        }
    }
}
