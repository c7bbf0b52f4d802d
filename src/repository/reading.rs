//! Metadata as it is: read anew, for a bundle or for sending to a daemon.

use std::path::Path;
use std::time::SystemTime;

use hf_mem_core::model::Identity;
use hf_mem_core::model::metadata::Metadata;

use super::base::AdapterAt;
use super::client::{ModelRequest, SourceClient};
use super::error::SourceError;
use super::permissions::FileReader;
use super::reference::{ModelReference, Place};
use super::token::Auth;
use super::{local, ollama};

impl SourceClient {
    /// The metadata of `reference`, for a bundle or for sending to a daemon. A Hub is asked anew.
    pub async fn read(
        &self,
        reference: &ModelReference,
        auth: &Auth,
        now: SystemTime,
    ) -> Result<Metadata, SourceError> {
        let at = if let Place::Hub { repo, .. } = &reference.place {
            AdapterAt::Hub(repo)
        } else {
            AdapterAt::Disk
        };

        let metadata = self.read_alone(reference, auth, now).await?;
        let reader = self.own_reader(reference, auth);

        Box::pin(self.with_base(metadata, at, &reader, auth, now)).await
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
            Place::Hub { .. } => {
                self.read_from_hub(&self.own_reader(reference, auth), reference, auth, now)
                    .await
            }
            Place::Path(path) => self.read_path(path, file).await,
            Place::Ollama(name) => {
                let folder =
                    known_folder(self.folders.ollama.as_deref(), "Ollama", "OLLAMA_MODELS")?;
                let place = self.files.at(folder);
                let (models, wanted) = (folder.to_owned(), name.clone());
                let found = place
                    .run(move |disk| Ok(ollama::find(disk, &models, &wanted)))
                    .await;
                let pulled = found.map_err(|error| local::io(folder, &error))??;
                let identity = Identity {
                    repo: reference.name(),
                    commit: Some(pulled.digest.clone()),
                    ..Identity::default()
                };

                local::pulled(&place, &pulled, identity).await
            }
            Place::LmStudio(name) => {
                let folder = known_folder(self.folders.lm_studio.as_deref(), "LM Studio", "HOME")?;
                let identity = Identity {
                    repo: reference.name(),
                    ..Identity::default()
                };
                local::metadata(&self.files.at(folder), &folder.join(name), identity, file).await
            }
        }
    }

    /// A repository as the Hub has it now, or offline as huggingface_hub's cache does.
    pub(super) async fn read_from_hub(
        &self,
        reader: &FileReader,
        reference: &ModelReference,
        auth: &Auth,
        now: SystemTime,
    ) -> Result<Metadata, SourceError> {
        let Place::Hub { repo, revision } = &reference.place else {
            return self.read_path(Path::new(""), None).await;
        };

        let revision = revision.as_deref().unwrap_or("main");
        let file = reference.file.as_deref();

        let asked = ModelRequest {
            repo,
            revision,
            file,
            auth,
            now,
        };

        if self.hub.settings().offline {
            return match self.metadata_on_disk(&asked, Some).await {
                Some((_, metadata, _)) => Ok(metadata),
                None => self
                    .in_hf_cache(&asked, reader)
                    .await
                    .unwrap_or_else(|| Err(self.offline(&asked))),
            };
        }

        let reading = self.hub.begin(repo, revision, auth).await?;
        let found = reading.revision().await?;
        let private = found.private;
        let (mut metadata, _) = reading.metadata(found, file).await?;
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

/// A folder of another program, if there is a place for it.
fn known_folder<'a>(
    folder: Option<&'a Path>,
    program: &str,
    variable: &str,
) -> Result<&'a Path, SourceError> {
    folder.ok_or_else(|| SourceError::BadSetting {
        name: variable.into(),
        why: format!("it is not set, so the folder of {program} is not known"),
    })
}
