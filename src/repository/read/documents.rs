//! Reads the documents of a model: its configuration files and the indices of its weights.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};
use hf_mem_core::model::bounded_json;
use hf_mem_core::model::bounded_json::{DocumentBudget, DocumentError};
use hf_mem_core::model::weight_files::{Documents, Index, Listing};
use serde_json::Value;

use super::{Files, unreadable};
use crate::admission::read_limits;
use crate::admission::read_limits::{ReadPermit, ReadSlot, SMALL_BYTES};
use crate::repository::buffer::Buffer;
use crate::repository::error::SourceError;

/// The documents read so far.
#[derive(Debug)]
pub(super) struct DocumentsRead {
    pub(super) documents: Documents,
    pub(super) unreadable: BTreeMap<String, String>,
    pub(super) budget: DocumentBudget,
}

impl DocumentsRead {
    pub(super) fn new() -> Self {
        Self {
            documents: Documents::default(),
            unreadable: BTreeMap::new(),
            budget: DocumentBudget::small(),
        }
    }

    /// Reads `paths` concurrently. A document that is not JSON is recorded as unreadable. An
    /// invalid index is an error: without it, copies of the weights could be taken for the weights.
    pub(super) async fn read(
        &mut self,
        files: &impl Files,
        listing: &Listing,
        slot: &ReadSlot,
        paths: Vec<String>,
    ) -> Result<(), SourceError> {
        let expected = paths.iter().map(|path| expected_bytes(listing, path));
        slot.hold(expected.fold(0, u64::saturating_add)).await;

        let fetch = |path: String| async move {
            let permit = read_limits::unparsed(expected_bytes(listing, &path)).await;
            let text = files.whole(&path, max_bytes(listing, &path)).await?;
            Ok::<_, SourceError>((path, text, permit))
        };

        let mut texts =
            stream::iter(paths.into_iter().map(fetch)).buffer_unordered(files.concurrency());
        while let Some((path, text, permit)) = texts.try_next().await? {
            match self.parse(is_index(&path), text, permit, slot).await {
                Ok(Parsed::Index(index)) => drop(self.documents.indices.insert(path, index)),
                Ok(Parsed::Document(document)) => drop(self.documents.json.insert(path, document)),
                Err(DocumentError::NotJson(why)) if !is_index(&path) => {
                    drop(self.unreadable.insert(path, why));
                }
                Err(refused) => return Err(unreadable(files, format!("{path}: {refused}"))),
            }
        }

        Ok(())
    }

    /// Parses one text. If it turns out to be large in a small reading, the reading starts again.
    async fn parse(
        &mut self,
        is_index: bool,
        text: Buffer,
        permit: ReadPermit,
        slot: &ReadSlot,
    ) -> Result<Parsed, DocumentError> {
        let bytes = text.len() as u64;
        if slot.is_large() {
            self.budget.become_large();
        }

        let mut budget = std::mem::take(&mut self.budget);
        let parse = move || {
            let parsed = if is_index {
                budget.index(&text).map(Parsed::Index)
            } else {
                budget.document(&text).map(Parsed::Document)
            };
            (budget, parsed)
        };

        let parsed;
        (self.budget, parsed) = read_limits::work(bytes, (permit, slot.clone()), parse).await;

        if matches!(parsed, Err(DocumentError::Large)) {
            slot.hold(u64::MAX).await;
        }

        parsed
    }
}

/// A parsed document.
enum Parsed {
    Document(Value),
    Index(Index),
}

fn is_index(path: &str) -> bool {
    path.ends_with(".index.json")
}

fn limit_of_kind(path: &str) -> u64 {
    if is_index(path) {
        bounded_json::MAX_INDEX_BYTES
    } else {
        bounded_json::MAX_DOCUMENT_BYTES
    }
}

fn listed_bytes(listing: &Listing, path: &str) -> Option<u64> {
    listing.get(path).copied().flatten()
}

/// Returns how many bytes the document at `path` takes: its listed length, else its limit.
fn expected_bytes(listing: &Listing, path: &str) -> u64 {
    let limit = limit_of_kind(path);
    listed_bytes(listing, path).map_or(limit, |listed| listed.min(limit))
}

/// Returns how many bytes of the document at `path` to read at most. A small document may be longer
/// than listed.
fn max_bytes(listing: &Listing, path: &str) -> u64 {
    let limit = limit_of_kind(path);
    listed_bytes(listing, path).map_or(limit, |listed| listed.max(SMALL_BYTES).min(limit))
}
