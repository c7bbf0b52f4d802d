//! Models on this host's disk: a folder, one weight file or a bundle, recognized by content.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use hf_mem_core::model::Identity;
use hf_mem_core::model::metadata::Metadata;
use hf_mem_core::model::metadata::{ADAPTER, PARAMETERS};
use hf_mem_core::model::weight_files;
use hf_mem_core::model::weight_files::Listing;

use super::buffer::Buffer;
use super::bundle;
use super::error::SourceError;
use super::ollama::OllamaModel;
use super::read::{self, Files, ListedFiles};
use crate::files::{Disk, FilePlace};

/// Maximum entries of one model's folder.
const MAX_LISTED: usize = 20_000;
/// Maximum depth of the folders that hold components and modules, below the model's own.
const MAX_DEPTH: usize = 3;

/// The target of a path.
enum LocalKind {
    /// A folder, with its files.
    Folder(Listing),
    /// A packed bundle.
    Bundle(Vec<u8>),
    /// A GGUF file without an extension, such as a blob of Ollama. Only its content says what it
    /// is.
    NamelessGguf,
    /// A weight file, with the other files in its folder that belong to it.
    File {
        folder: PathBuf,
        name: String,
        listing: Listing,
    },
}

/// Reads the model at `path`. The metadata records `identity`; `file` is `--file`.
pub(super) async fn metadata(
    place: &FilePlace,
    path: &Path,
    identity: Identity,
    file: Option<&str>,
) -> Result<Metadata, SourceError> {
    let inspected = path.to_owned();
    let kind = run_on(place, path, move |disk| inspect(disk, &inspected)).await??;
    let (root, listing, file) = match kind {
        LocalKind::Folder(listing) => (path.to_owned(), listing, file.map(ToOwned::to_owned)),
        LocalKind::Bundle(packed) => return bundle::read(&packed, path, file),
        LocalKind::NamelessGguf => {
            return named_files(place, &[("model.gguf".into(), path.to_owned())], identity).await;
        }
        LocalKind::File {
            folder,
            name,
            listing,
        } => (folder, listing, Some(name)),
    };

    let place = place.clone();
    let files = LocalFiles {
        place,
        name: path.display().to_string(),
        root,
        elsewhere: BTreeMap::new(),
    };

    let found = ListedFiles {
        identity,
        listing,
        gated: false,
        hub_totals: None,
    };

    Ok(read::metadata(&files, found, file.as_deref()).await?.0)
}

/// Runs `work` on the files of `place`, of which `path` is one.
async fn run_on<T: Send + 'static>(
    place: &FilePlace,
    path: &Path,
    work: impl FnOnce(&Disk) -> T + Send + 'static,
) -> Result<T, SourceError> {
    place
        .run(move |disk| Ok(work(disk)))
        .await
        .map_err(|error| io_error(path, &error))
}

fn inspect(disk: &Disk, path: &Path) -> Result<LocalKind, SourceError> {
    let kind = disk
        .metadata(path)
        .map_err(|error| io_error(path, &error))?;
    if kind.is_dir() {
        return Ok(LocalKind::Folder(list(disk, path)?));
    }
    // A special file fails here, with its kind.
    disk.open(path).map_err(|error| io_error(path, &error))?;

    if bundle::is_bundle(disk, path) {
        let packed = disk
            .read(path, bundle::MAX_PACKED_BYTES)
            .map_err(|error| io_error(path, &error))?;
        return Ok(LocalKind::Bundle(packed));
    }

    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let name = path.file_name().and_then(|name| name.to_str());
    let Some(name) = name else {
        return Err(io_error(
            path,
            &std::io::Error::other("its name is not UTF-8"),
        ));
    };

    if !name.contains('.') && is_gguf(disk, path) {
        return Ok(LocalKind::NamelessGguf);
    }

    let listing = list_one(disk, folder, name)?;
    Ok(LocalKind::File {
        folder: folder.to_owned(),
        name: name.to_owned(),
        listing,
    })
}

/// Reads a model whose files have other names than a loader expects: pairs of the expected name and
/// the path.
pub(super) async fn named_files(
    place: &FilePlace,
    named: &[(String, PathBuf)],
    identity: Identity,
) -> Result<Metadata, SourceError> {
    let elsewhere: BTreeMap<String, PathBuf> = named.iter().cloned().collect();
    let lengths = elsewhere.clone();

    let list_files = move |disk: &Disk| {
        lengths
            .into_iter()
            .map(|(name, path)| Ok((name, Some(length_of(disk, &path)?))))
            .collect::<Result<Listing, SourceError>>()
    };

    let listing = run_on(place, Path::new(&identity.repo), list_files).await??;

    let files = LocalFiles {
        place: place.clone(),
        name: identity.repo.clone(),
        root: PathBuf::new(),
        elsewhere,
    };

    let found = ListedFiles {
        identity,
        listing,
        gated: false,
        hub_totals: None,
    };

    Ok(read::metadata(&files, found, None).await?.0)
}

fn length_of(disk: &Disk, path: &Path) -> Result<u64, SourceError> {
    let found = disk.open(path).and_then(|file| file.metadata());
    found
        .map(|found| found.len())
        .map_err(|error| io_error(path, &error))
}

/// Reads a model that Ollama has pulled, with the adapters that it is loaded with.
pub(super) async fn pulled_model(
    place: &FilePlace,
    pulled: &OllamaModel,
    identity: Identity,
) -> Result<Metadata, SourceError> {
    let mut metadata = named_files(place, &pulled.files, identity).await?;
    for path in &pulled.adapters {
        let named = [("adapter.gguf".into(), path.clone())];
        let adapter = named_files(place, &named, metadata.identity.clone()).await?;
        metadata.contradiction = metadata.contradiction.or(adapter.contradiction);

        metadata
            .tensors
            .extend(adapter.tensors.into_iter().map(|mut tensor| {
                tensor.component = ADAPTER.into();
                tensor
            }));
    }

    if let Some(parameters) = &pulled.parameters {
        metadata
            .documents
            .insert(PARAMETERS.into(), parameters.clone());
    }

    Ok(metadata)
}

/// Whether the file begins as GGUF does.
fn is_gguf(disk: &Disk, path: &Path) -> bool {
    disk.read_range(path, 0, 4)
        .is_ok_and(|magic| magic == b"GGUF")
}

/// Lists the file, the other parts of a split model, and its configuration.
fn list_one(disk: &Disk, folder: &Path, name: &str) -> Result<Listing, SourceError> {
    let mut listing = Listing::new();
    let same_model = |other: &str| match name
        .rsplit_once("-of-")
        .and_then(|(rest, of)| Some((rest.rsplit_once('-')?.0, of)))
    {
        Some((stem, of)) if weight_files::is_gguf(name) => {
            other.starts_with(stem) && other.ends_with(of)
        }
        _ => other == name,
    };

    let belongs_to_model = |other: &OsStr| {
        let other = other.to_str().unwrap_or_default();
        same_model(other) || other == "config.json" || other == "hf_quant_config.json"
    };

    for entry in disk
        .list(folder, MAX_LISTED, belongs_to_model)
        .map_err(|error| io_error(folder, &error))?
    {
        if let Ok(other) = entry.name.into_string() {
            listing.insert(other, entry.metadata.map(|found| found.len()));
        }
    }

    Ok(listing)
}

/// Lists every file below `root`, by its path from there. Follows links, because the Hugging Face
/// cache consists of them.
fn list(disk: &Disk, root: &Path) -> Result<Listing, SourceError> {
    let too_many = || SourceError::MissingMetadata {
        what: root.display().to_string(),
        why: format!("it holds more than {MAX_LISTED} files; name the model's own folder"),
    };

    let mut listing = Listing::new();
    let mut looked_at = 0;
    let mut folders = vec![(root.to_owned(), String::new(), 0)];
    while let Some((folder, prefix, depth)) = folders.pop() {
        let entries =
            disk.list(&folder, MAX_LISTED, |_| true)
                .map_err(|error| match error.kind() {
                    ErrorKind::FileTooLarge => too_many(),
                    _ => io_error(&folder, &error),
                })?;
        looked_at += entries.len();

        if looked_at > MAX_LISTED {
            return Err(too_many());
        }

        for entry in entries {
            let Ok(name) = entry.name.into_string() else {
                continue;
            };

            let path = format!("{prefix}{name}");

            // A dangling link counts as an absent file.
            let Some(kind) = entry.metadata else { continue };
            if kind.is_file() {
                listing.insert(path, Some(kind.len()));
            } else if kind.is_dir() && depth < MAX_DEPTH && !name.starts_with('.') {
                folders.push((entry.path, format!("{path}/"), depth + 1));
            }
        }
    }

    Ok(listing)
}

struct LocalFiles {
    place: FilePlace,
    name: String,
    root: PathBuf,
    /// Paths of files outside the root, by the name they are listed under.
    elsewhere: BTreeMap<String, PathBuf>,
}

impl LocalFiles {
    async fn read(&self, path: &str, start: u64, length: u64) -> Result<Vec<u8>, SourceError> {
        let path = self
            .elsewhere
            .get(path)
            .cloned()
            .unwrap_or_else(|| self.root.join(path));
        let file = path.clone();
        let read = self
            .place
            .run(move |disk| disk.read_range(&file, start, length));

        read.await.map_err(|error| io_error(&path, &error))
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
            return Err(SourceError::MissingMetadata {
                what: self.name.clone(),
                why,
            });
        }

        Ok(bytes.into())
    }

    async fn range(&self, path: &str, start: u64, length: u64) -> Result<Buffer, SourceError> {
        self.read(path, start, length).await.map(Buffer::from)
    }

    fn concurrency(&self) -> usize {
        4
    }

    fn prefer_inference(&self) -> bool {
        false
    }
}

/// Converts an error of the disk; an absent path becomes "not found".
pub(super) fn io_error(path: &Path, error: &std::io::Error) -> SourceError {
    let path = path.display().to_string();
    match error.kind() {
        ErrorKind::NotFound => SourceError::NotFound {
            what: path,
            place: "on this host".into(),
            hint: None,
        },
        _ => SourceError::Io {
            path,
            why: error.to_string(),
        },
    }
}
