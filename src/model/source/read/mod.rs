//! Reads a repository's metadata through [`Files`], wherever they are: a few documents, then headers, many at once.

mod headers;
mod pickle;
mod promise;
mod proof;
mod variants;

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::error::SourceError;
use super::json::{self, Refused, Room};
use super::metadata::{Evidence, MAX_CLASSES, Metadata, TensorRecord, VERSION};
use super::weights::{self, Choice, ChoiceError, Documents, Listing};
use crate::model::gguf::{Gguf, TablePlace};
use crate::model::{Format, Identity};
use variants::Variants;

/// Weight files of one model; the largest known have some 300.
const MAX_FILES: usize = 4096;
/// Other GGUF models that are remembered for suggestions.
const MAX_SIBLINGS: usize = 128;

/// The files of one model at one commit.
pub(super) trait Files: Sync {
    /// The repository or folder, for messages.
    fn name(&self) -> &str;

    /// A whole file of at most `limit` bytes.
    fn whole(&self, path: &str, limit: u64) -> impl Future<Output = Result<Vec<u8>, SourceError>> + Send;

    /// Bytes `start..start + length`, fewer only at the end of the file.
    fn range(&self, path: &str, start: u64, length: u64) -> impl Future<Output = Result<Vec<u8>, SourceError>> + Send;

    /// Requests that may be under way at once.
    fn concurrency(&self) -> usize;

    /// Whether a read costs enough that some are worth avoiding by proof.
    fn reads_are_dear(&self) -> bool;
}

/// A model's files, listed.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) identity: Identity,
    pub(super) listing: Listing,
    pub(super) gated: bool,
    pub(super) hub_totals: Option<BTreeMap<String, u64>>,
}

/// Reads everything that an answer needs of `found`. `file` is `--file`.
pub(super) async fn metadata(files: &impl Files, found: Found, file: Option<&str>) -> Result<Metadata, SourceError> {
    let listing = &found.listing;
    let mut reading = DocumentsRead::default();
    reading.read(files, weights::documents_needed(listing)).await?;
    reading.read(files, weights::more_documents(listing, &reading.documents)).await?;
    let mut choice =
        weights::choose(listing, &reading.documents, file).map_err(|error| choice_error(files.name(), error))?;
    if choice.files.len() > MAX_FILES {
        let why = format!("its weights lie in {} files, more than {MAX_FILES}", choice.files.len());
        return Err(SourceError::MissingMetadata { what: files.name().into(), why });
    }
    let weights = match choice.format {
        Format::Gguf => headers::gguf(files, &choice.files).await?,
        _ => headers::all(files, &choice.files, &reading.documents, found.hub_totals.as_ref()).await?,
    };
    if weights.inventory.classes.len() > MAX_CLASSES {
        let why = format!("its headers describe more than {MAX_CLASSES} kinds of tensors");
        return Err(SourceError::MissingMetadata { what: files.name().into(), why });
    }
    let others = std::mem::take(&mut choice.others);
    // Boxed: for nearly all models there is nothing to do in it, and everyone who waits would carry its size.
    let variants = Box::pin(variants::read(files, others, &weights)).await;
    Ok(finish(found, choice, reading, (weights, variants), file))
}

/// The weights as they were read.
#[derive(Debug)]
struct Weights {
    inventory: crate::model::Inventory,
    gguf: Option<Gguf>,
    /// Where a GGUF file has its tensor table.
    table: TablePlace,
    evidence: Evidence,
    doubts: Vec<String>,
}

fn finish(
    found: Found,
    choice: Choice,
    reading: DocumentsRead,
    (weights, variants): (Weights, Variants),
    file: Option<&str>,
) -> Metadata {
    let mut identity = found.identity;
    // A GGUF model is one of several: say which, asked for or not.
    identity.file = match (choice.format, choice.files.first()) {
        (Format::Gguf, Some(first)) => Some(first.path.clone()),
        (_, first) => file.and(first).map(|first| first.path.clone()),
    };
    let chosen = |path: &String| choice.files.iter().any(|file| file.path == *path);
    let siblings = found.listing.iter().filter(|(path, _)| weights::is_gguf(path) && !chosen(path));
    Metadata {
        version: VERSION,
        identity,
        format: choice.format,
        siblings: siblings.take(MAX_SIBLINGS).map(|(path, bytes)| (path.clone(), *bytes)).collect(),
        files: choice.files,
        projectors: choice.projectors,
        tensors: weights.inventory.classes.iter().map(TensorRecord::from).collect(),
        documents: reading.documents.json,
        unreadable: reading.unreadable,
        components: choice.components,
        base_model: choice.base_model,
        base: None,
        gguf: weights.gguf,
        hub_totals: found.hub_totals,
        gated: found.gated,
        variants: variants.all,
        partial: variants.partial,
        evidence: weights.evidence,
        doubts: choice.notes.into_iter().chain(weights.doubts).collect(),
    }
}

/// Documents as they come in.
#[derive(Debug, Default)]
struct DocumentsRead {
    documents: Documents,
    unreadable: BTreeMap<String, String>,
    room: Room,
}

impl DocumentsRead {
    /// Reads `paths` at once. A document that is no JSON is remembered as unreadable; an index that is none is an error,
    /// for without it copies of the weights could be taken for the weights.
    async fn read(&mut self, files: &impl Files, paths: Vec<String>) -> Result<(), SourceError> {
        let fetch = |path: String| async move {
            let limit = if path.ends_with(".index.json") { json::MAX_INDEX_BYTES } else { json::MAX_DOCUMENT_BYTES };
            let text = files.whole(&path, limit).await?;
            Ok::<_, SourceError>((path, text))
        };
        let mut texts = stream::iter(paths.into_iter().map(fetch)).buffer_unordered(files.concurrency());
        while let Some((path, text)) = texts.try_next().await? {
            let refuse =
                |why| SourceError::MissingMetadata { what: files.name().into(), why: format!("{path}: {why}") };
            if path.ends_with(".index.json") {
                let index =
                    self.room.index(&text).map_err(|(Refused::NotJson(why) | Refused::TooMuch(why))| refuse(why))?;
                self.documents.indices.insert(path, index);
            } else {
                match self.room.document(&text) {
                    Ok(document) => drop(self.documents.json.insert(path, document)),
                    Err(Refused::NotJson(why)) => drop(self.unreadable.insert(path, why)),
                    Err(Refused::TooMuch(why)) => return Err(refuse(why)),
                }
            }
        }
        Ok(())
    }
}

fn choice_error(name: &str, error: ChoiceError) -> SourceError {
    match error {
        ChoiceError::NoSuchFile { ref file, ref candidates } => SourceError::NotFound {
            what: format!("file {file}"),
            place: format!("in {name}"),
            hint: (!candidates.is_empty()).then(|| format!("there is {}", candidates.join(", "))),
        },
        error => SourceError::MissingMetadata { what: name.into(), why: error.to_string() },
    }
}
