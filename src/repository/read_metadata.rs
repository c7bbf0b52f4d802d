//! Reads metadata from its source, for a bundle or for sending to a daemon.

use std::path::Path;
use std::time::SystemTime;

use hf_mem_core::model::Identity;
use hf_mem_core::model::metadata::Metadata;

use super::base_model::AdapterOrigin;
use super::client::{ModelRequest, SourceClient};
use super::error::SourceError;
use super::permissions::FileReader;
use super::reference::{ModelReference, Place};
use super::token::Auth;
use super::{local, ollama};

impl SourceClient {
    /// Reads the metadata of `reference`. A Hub is asked even if the cache has the model.
    pub async fn read(
        &self,
        reference: &ModelReference,
        auth: &Auth,
        now: SystemTime,
    ) -> Result<Metadata, SourceError> {
        let origin = if let Place::Hub { repo, .. } = &reference.place {
            AdapterOrigin::Hub(repo)
        } else {
            AdapterOrigin::Disk
        };

        let metadata = self.read_alone(reference, auth, now).await?;
        let reader = self.own_reader(reference, auth);

        Box::pin(self.with_base(metadata, origin, &reader, auth, now)).await
    }

    /// As [`SourceClient::read`], but without the base model of an adapter.
    async fn read_alone(
        &self,
        reference: &ModelReference,
        auth: &Auth,
        now: SystemTime,
    ) -> Result<Metadata, SourceError> {
        let file = reference.file.as_deref();
        match &reference.place {
            Place::Hub { .. } => {
                self.read_from_hub(&self.own_reader(reference, auth), reference, auth, now)
                    .await
            }
            Place::Path(path) => self.read_path(path, file).await,
            Place::Ollama(name) => {
                let folder =
                    program_folder(self.folders.ollama.as_deref(), "Ollama", "OLLAMA_MODELS")?;
                let place = self.files.at(folder);
                let (models, wanted) = (folder.to_owned(), name.clone());
                let found = place
                    .run(move |disk| Ok(ollama::find(disk, &models, &wanted)))
                    .await;
                let pulled = found.map_err(|error| local::io_error(folder, &error))??;
                let identity = Identity {
                    repo: reference.name(),
                    commit: Some(pulled.digest.clone()),
                    ..Identity::default()
                };

                local::pulled_model(&place, &pulled, identity).await
            }
            Place::LmStudio(name) => {
                let folder =
                    program_folder(self.folders.lm_studio.as_deref(), "LM Studio", "HOME")?;
                let identity = Identity {
                    repo: reference.name(),
                    ..Identity::default()
                };
                local::metadata(&self.files.at(folder), &folder.join(name), identity, file).await
            }
        }
    }

    /// Reads a repository from the Hub, or offline from the caches.
    pub(super) async fn read_from_hub(
        &self,
        reader: &FileReader,
        reference: &ModelReference,
        auth: &Auth,
        now: SystemTime,
    ) -> Result<Metadata, SourceError> {
        let Some(request) = ModelRequest::of_hub(reference, auth, now) else {
            return self.read_path(Path::new(""), None).await;
        };

        if self.hub.settings().offline {
            return match self.metadata_on_disk(&request, Some).await {
                Some((_, metadata, _)) => Ok(metadata),
                None => self
                    .in_hf_cache(&request, reader)
                    .await
                    .unwrap_or_else(|| Err(self.offline(&request))),
            };
        }

        let reading = self.hub.begin(request.repo, request.revision, auth).await?;
        let found = reading.revision().await?;
        let private = found.private;
        let (mut metadata, _) = reading.metadata(found, request.file).await?;
        metadata.gated |= private;

        Ok(metadata)
    }

    pub(super) async fn read_path(
        &self,
        path: &Path,
        file: Option<&str>,
    ) -> Result<Metadata, SourceError> {
        let identity = Identity {
            repo: path.display().to_string(),
            ..Identity::default()
        };
        local::metadata(&self.files.at(path), path, identity, file).await
    }
}

/// Returns the model folder of another program. `variable` is what would set it.
fn program_folder<'a>(
    folder: Option<&'a Path>,
    program: &str,
    variable: &str,
) -> Result<&'a Path, SourceError> {
    folder.ok_or_else(|| SourceError::BadSetting {
        name: variable.into(),
        why: format!("it is not set, so the folder of {program} is unknown"),
    })
}
