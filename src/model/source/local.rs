//! Models on this host's disk: a folder, one weights file, or a bundle, told apart by what they are.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::buffer::Buffer;
use super::bundle;
use super::error::SourceError;
use super::metadata::Metadata;
use super::metadata::{ADAPTER, PARAMETERS};
use super::ollama::Pulled;
use super::read::{self, Files, Found};
use super::weights::{self, Listing};
use crate::model::Identity;

/// Files of one folder that are looked at.
const MAX_LISTED: usize = 20_000;
/// Folders below the model's own in which components and modules lie.
const MAX_DEPTH: usize = 3;

/// Reads the model at `path`. `identity` is what is written down for it; `file` is `--file`.
pub(super) async fn metadata(path: &Path, identity: Identity, file: Option<&str>) -> Result<Metadata, SourceError> {
    let kind = std::fs::metadata(path).map_err(|error| io(path, &error))?;
    let (root, listing, file) = if kind.is_dir() {
        (path.to_owned(), list(path)?, file.map(ToOwned::to_owned))
    } else if bundle::is_bundle(path) {
        return bundle::read(path, file);
    } else {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(name) = name else { return Err(io(path, &std::io::Error::other("its name is not UTF-8"))) };
        if !name.contains('.') && is_gguf(path) {
            // A blob of Ollama's, or any other file whose content alone says what it is.
            return named_files(&[("model.gguf".into(), path.to_owned())], identity).await;
        }
        (folder.to_owned(), list_one(folder, name)?, Some(name.to_owned()))
    };
    let files = LocalFiles { name: path.display().to_string(), root, elsewhere: BTreeMap::new() };
    let found = Found { identity, listing, gated: false, hub_totals: None };
    Ok(read::metadata(&files, found, file.as_deref()).await?.0)
}

/// Reads a model whose files lie under other names than a loader knows them by: (name, where it is).
pub(super) async fn named_files(named: &[(String, PathBuf)], identity: Identity) -> Result<Metadata, SourceError> {
    let mut listing = Listing::new();
    for (name, path) in named {
        listing.insert(name.clone(), Some(std::fs::metadata(path).map_err(|error| io(path, &error))?.len()));
    }
    let elsewhere = named.iter().cloned().collect();
    let files = LocalFiles { name: identity.repo.clone(), root: PathBuf::new(), elsewhere };
    let found = Found { identity, listing, gated: false, hub_totals: None };
    Ok(read::metadata(&files, found, None).await?.0)
}

/// Reads a model that Ollama has pulled, with the adapters that it is loaded with.
pub(super) async fn pulled(pulled: &Pulled, identity: Identity) -> Result<Metadata, SourceError> {
    let mut metadata = named_files(&pulled.files, identity).await?;
    for path in &pulled.adapters {
        let adapter = named_files(&[("adapter.gguf".into(), path.clone())], metadata.identity.clone()).await?;
        metadata.tensors.extend(adapter.tensors.into_iter().map(|mut tensor| {
            tensor.component = ADAPTER.into();
            tensor
        }));
    }
    if let Some(parameters) = &pulled.parameters {
        metadata.documents.insert(PARAMETERS.into(), parameters.clone());
    }
    Ok(metadata)
}

/// Whether the file opens as GGUF does.
fn is_gguf(path: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"GGUF"
}

/// The file, the parts that it is split into, and the configuration beside it.
fn list_one(folder: &Path, name: &str) -> Result<Listing, SourceError> {
    let mut listing = Listing::new();
    let same_model =
        |other: &str| match name.rsplit_once("-of-").and_then(|(rest, of)| Some((rest.rsplit_once('-')?.0, of))) {
            Some((stem, of)) if weights::is_gguf(name) => other.starts_with(stem) && other.ends_with(of),
            _ => other == name,
        };
    for entry in std::fs::read_dir(folder).map_err(|error| io(folder, &error))?.flatten().take(MAX_LISTED) {
        let Ok(other) = entry.file_name().into_string() else { continue };
        if same_model(&other) || other == "config.json" || other == "hf_quant_config.json" {
            listing.insert(other, std::fs::metadata(entry.path()).ok().map(|found| found.len()));
        }
    }
    Ok(listing)
}

/// Every file below `root`, by its path from there. Links to files are followed (the Hugging Face cache is made of them).
fn list(root: &Path) -> Result<Listing, SourceError> {
    let mut listing = Listing::new();
    let mut folders = vec![(root.to_owned(), String::new(), 0)];
    while let Some((folder, prefix, depth)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|error| io(&folder, &error))? {
            let entry = entry.map_err(|error| io(&folder, &error))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = format!("{prefix}{name}");
            // A link that leads nowhere is a file that is not there.
            let Ok(kind) = std::fs::metadata(entry.path()) else { continue };
            if kind.is_file() {
                listing.insert(path, Some(kind.len()));
            } else if kind.is_dir() && depth < MAX_DEPTH && !name.starts_with('.') {
                folders.push((entry.path(), format!("{path}/"), depth + 1));
            }
            if listing.len() > MAX_LISTED {
                let why = format!("it holds more than {MAX_LISTED} files; name the model's own folder");
                return Err(SourceError::MissingMetadata { what: root.display().to_string(), why });
            }
        }
    }
    Ok(listing)
}

struct LocalFiles {
    name: String,
    root: PathBuf,
    /// Files that lie elsewhere, by the name they are listed under.
    elsewhere: BTreeMap<String, PathBuf>,
}

impl LocalFiles {
    async fn read(&self, path: &str, start: u64, length: u64) -> Result<Vec<u8>, SourceError> {
        let path = self.elsewhere.get(path).cloned().unwrap_or_else(|| self.root.join(path));
        let read = move || read_at(&path, start, length).map_err(|error| io(&path, &error));
        tokio::task::spawn_blocking(read)
            .await
            .unwrap_or_else(|error| Err(io(&self.root, &std::io::Error::other(error))))
    }
}

impl Files for LocalFiles {
    fn name(&self) -> &str {
        &self.name
    }

    async fn whole(&self, path: &str, limit: u64) -> Result<Buffer, SourceError> {
        let bytes = self.read(path, 0, limit.saturating_add(1)).await?;
        if bytes.len() as u64 > limit {
            let why = format!("{path} has more than {limit} bytes");
            return Err(SourceError::MissingMetadata { what: self.name.clone(), why });
        }
        Ok(bytes.into())
    }

    async fn range(&self, path: &str, start: u64, length: u64) -> Result<Buffer, SourceError> {
        self.read(path, start, length).await.map(Buffer::from)
    }

    fn concurrency(&self) -> usize {
        4
    }

    fn reads_are_dear(&self) -> bool {
        false
    }
}

/// Grows with what is really there, so that a length from a hostile header allocates nothing by itself.
fn read_at(path: &Path, start: u64, length: u64) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// An error of the disk; an absent path is "not found".
pub(super) fn io(path: &Path, error: &std::io::Error) -> SourceError {
    let path = path.display().to_string();
    match error.kind() {
        ErrorKind::NotFound => SourceError::NotFound { what: path, place: "on this host".into(), hint: None },
        _ => SourceError::Io { path, why: error.to_string() },
    }
}
