//! Reads a repository's metadata through [`Files`], wherever they are.
//!
//! A reading fetches a few documents, then the headers of the weight files, many at once.

mod coverage;
mod ctranslate2_variables;
mod documents;
mod gguf_headers;
mod headers;
mod infer_headers;
mod pickle;
mod predict_from_config;
mod safetensors_headers;
mod variants;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coverage::Coverage;
use documents::DocumentsRead;
use hf_mem_core::model::ctranslate2::ModelBin;
use hf_mem_core::model::gguf::{Gguf, TablePlace};
use hf_mem_core::model::metadata::{Evidence, MAX_CLASSES, Metadata, TensorRecord, VERSION};
use hf_mem_core::model::weight_files;
use hf_mem_core::model::weight_files::{Choice, ChoiceError, Listing};
use hf_mem_core::model::{Format, Identity};
use tokio::time::Instant;
use variants::Variants;

use super::buffer::Buffer;
use super::error::SourceError;
use crate::admission::read_limits::ReadSlot;

/// Maximum weight files of one model; the largest known have some 300.
const MAX_FILES: usize = 4096;
/// Maximum other GGUF models that are recorded for suggestions.
const MAX_SIBLINGS: usize = 128;

/// The files of one model at one commit.
pub(super) trait Files: Sync {
    /// Returns the name of the repository or folder, for messages.
    fn name(&self) -> &str;

    /// Reads a whole file of at most `limit` bytes.
    fn whole(
        &self,
        path: &str,
        limit: u64,
    ) -> impl Future<Output = Result<Buffer, SourceError>> + Send;

    /// Reads bytes `start..start + length`; fewer only at the end of the file.
    fn range(
        &self,
        path: &str,
        start: u64,
        length: u64,
    ) -> impl Future<Output = Result<Buffer, SourceError>> + Send;

    /// Returns the maximum number of concurrent reads.
    fn concurrency(&self) -> usize;

    /// Whether a read is so expensive that inferring a header is better.
    fn prefer_inference(&self) -> bool;

    /// Excludes `time` from the deadline of these files. The reading spent it waiting for other
    /// readings.
    fn exclude_wait(&self, _time: Duration) {}
}

/// The list of a model's files.
#[derive(Debug)]
pub(super) struct ListedFiles {
    pub(super) identity: Identity,
    pub(super) listing: Listing,
    pub(super) gated: bool,
    pub(super) hub_totals: Option<BTreeMap<String, u64>>,
}

/// Reads the metadata that an answer needs of `listed`. `file` is `--file`. Keep the returned slot
/// while you work on the metadata, and drop it before you read anything else.
///
/// The reading starts as a small one. If it turns out to be large, it drops what it has read and
/// starts again as the one large reading.
///
/// This order cannot deadlock. A reading that waits for a slot holds no slot and no unparsed text.
/// It holds at most the permit of a long list, and no reading with a slot waits for that permit. A
/// reading with a slot waits only for unparsed texts of other readings with slots.
pub(super) async fn metadata(
    files: &impl Files,
    listed: ListedFiles,
    file: Option<&str>,
) -> Result<(Metadata, ReadSlot), SourceError> {
    let slot = wait_for_slot(files, ReadSlot::take()).await;
    {
        // In a box of this block, so that the reading is dropped before its slot.
        let small = Box::pin(read(files, &listed, file, &slot));
        tokio::select! {
            biased;
            read = small => return Ok((read?, slot)),
            () = slot.outgrown() => {}
        }
    }

    let slot = wait_for_slot(files, ReadSlot::take_large(slot.release())).await;
    let metadata = Box::pin(read(files, &listed, file, &slot)).await?;

    Ok((metadata, slot))
}

/// Waits for a slot and excludes the wait from the deadline of `files`.
async fn wait_for_slot(files: &impl Files, slot: impl Future<Output = ReadSlot>) -> ReadSlot {
    let since = Instant::now();
    let slot = slot.await;
    files.exclude_wait(since.elapsed());
    slot
}

/// Reads everything within the slot.
async fn read(
    files: &impl Files,
    listed: &ListedFiles,
    file: Option<&str>,
    slot: &ReadSlot,
) -> Result<Metadata, SourceError> {
    let listing = &listed.listing;
    let mut reading = DocumentsRead::new();
    let needed = weight_files::documents_needed(listing);
    reading.read(files, listing, slot, needed).await?;

    let more = weight_files::more_documents(listing, &reading.documents);
    reading.read(files, listing, slot, more).await?;

    let documents = Arc::new(std::mem::take(&mut reading.documents));
    let mut choice = weight_files::choose(listing, &documents, file)
        .map_err(|error| choice_error(files.name(), error))?;
    if choice.files.len() > MAX_FILES {
        let count = choice.files.len();
        return Err(unreadable(
            files,
            format!("it has {count} weight files, more than {MAX_FILES}"),
        ));
    }

    if choice.base_model.is_some() && !reading.budget.is_small() {
        // A separate reading reads the base model next.
        return Err(unreadable(
            files,
            "its adapter_config.json is larger than that of any adapter".to_owned(),
        ));
    }

    let variables = Box::pin(ctranslate2_variables::read(files, &choice.files)).await?;
    let weights = if let Some(weights) = variables {
        choice.format = Format::Ctranslate2;
        weights
    } else if choice.format == Format::Gguf {
        gguf_headers::read(files, &choice.files, slot).await?
    } else {
        let totals = listed.hub_totals.as_ref();
        headers::read_all(files, &choice.files, &documents, totals, slot).await?
    };

    if weights.inventory.classes.len() > MAX_CLASSES {
        return Err(unreadable(
            files,
            format!("its headers describe more than {MAX_CLASSES} kinds of tensors"),
        ));
    }

    let others = std::mem::take(&mut choice.others);

    // In a box, because nearly all models have no variants, and every caller that waits would carry
    // the size of this future.
    let variants = Box::pin(variants::read(files, others, &weights, slot)).await;
    reading.documents = Arc::unwrap_or_clone(documents);

    Ok(finish(listed, choice, reading, weights, variants, file))
}

fn unreadable(files: &impl Files, why: String) -> SourceError {
    SourceError::MissingMetadata {
        what: files.name().into(),
        why,
    }
}

/// The weights as they were read.
#[derive(Debug)]
struct ReadWeights {
    inventory: hf_mem_core::model::Inventory,
    gguf: Option<Gguf>,
    ctranslate2: Option<ModelBin>,
    /// Position of a GGUF file's tensor table.
    table: TablePlace,
    evidence: Evidence,
    /// Files that contradict their headers.
    coverage: Coverage,
    warnings: Vec<String>,
}

fn finish(
    listed: &ListedFiles,
    choice: Choice,
    reading: DocumentsRead,
    weights: ReadWeights,
    variants: Variants,
    file: Option<&str>,
) -> Metadata {
    let mut identity = listed.identity.clone();

    // A GGUF model is one of several: record which, requested or not.
    identity.file = match (choice.format, choice.files.first()) {
        (Format::Gguf, Some(first)) => Some(first.path.clone()),
        (_, first) => file.and(first).map(|first| first.path.clone()),
    };

    let is_chosen = |path: &String| choice.files.iter().any(|file| file.path == *path);
    let siblings = listed
        .listing
        .iter()
        .filter(|(path, _)| weight_files::is_gguf(path) && !is_chosen(path));

    Metadata {
        version: VERSION,
        identity,
        format: choice.format,
        siblings: siblings
            .take(MAX_SIBLINGS)
            .map(|(path, bytes)| (path.clone(), *bytes))
            .collect(),
        files: choice.files,
        projectors: choice.projectors,
        tensors: weights
            .inventory
            .classes
            .iter()
            .map(TensorRecord::from)
            .collect(),
        documents: reading.documents.json,
        unreadable: reading.unreadable,
        components: choice.components,
        base_model: choice.base_model,
        base: None,
        gguf: weights.gguf,
        ctranslate2: weights.ctranslate2,
        hub_totals: listed.hub_totals.clone(),
        gated: listed.gated,
        variants: variants.all,
        partial: variants.partial,
        evidence: weights.evidence,
        contradiction: weights.coverage.contradiction(),
        warnings: choice.notes.into_iter().chain(weights.warnings).collect(),
    }
}

fn choice_error(name: &str, error: ChoiceError) -> SourceError {
    match error {
        ChoiceError::NoSuchFile {
            ref file,
            ref candidates,
        } => SourceError::NotFound {
            what: format!("file {file}"),
            place: format!("in {name}"),
            hint: (!candidates.is_empty()).then(|| format!("there is {}", candidates.join(", "))),
        },
        error => SourceError::MissingMetadata {
            what: name.into(),
            why: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::poll;

    use super::*;

    /// A repository with a configuration and one weight file, whose header is padded.
    struct Repo {
        weights: Vec<u8>,
        waited: Mutex<Duration>,
    }

    impl Repo {
        fn new(spaces: usize) -> Self {
            let tensor = r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
            let header = format!("{tensor}{}", " ".repeat(spaces));
            let mut weights = (header.len() as u64).to_le_bytes().to_vec();
            weights.extend(header.as_bytes());
            weights.extend([0; 4]);

            Self {
                weights,
                waited: Mutex::default(),
            }
        }

        async fn read(&self) -> Result<(Metadata, ReadSlot), SourceError> {
            let lengths = [
                ("config.json", 2),
                ("model.safetensors", self.weights.len() as u64),
            ];
            let listing = lengths
                .into_iter()
                .map(|(path, bytes)| (path.to_owned(), Some(bytes)))
                .collect();

            metadata(
                self,
                ListedFiles {
                    identity: Identity::default(),
                    listing,
                    gated: false,
                    hub_totals: None,
                },
                None,
            )
            .await
        }
    }

    impl Files for Repo {
        fn name(&self) -> &'static str {
            "a/b"
        }

        async fn whole(&self, _path: &str, _limit: u64) -> Result<Buffer, SourceError> {
            Ok(b"{}".to_vec().into())
        }

        async fn range(&self, _path: &str, start: u64, length: u64) -> Result<Buffer, SourceError> {
            let (start, length) = (
                usize::try_from(start).unwrap(),
                usize::try_from(length).unwrap(),
            );

            Ok(self
                .weights
                .iter()
                .skip(start)
                .take(length)
                .copied()
                .collect::<Vec<_>>()
                .into())
        }

        fn concurrency(&self) -> usize {
            1
        }

        fn prefer_inference(&self) -> bool {
            false
        }

        fn exclude_wait(&self, time: Duration) {
            *self.waited.lock().unwrap() += time;
        }
    }

    #[tokio::test]
    async fn waiting_large_readings_hold_no_slot() {
        let other = ReadSlot::take_large(ReadSlot::take().await.release()).await;
        let (large, small) = (Repo::new(2 << 20), Repo::new(0));

        // More readings than slots.
        let mut waiting: Vec<_> = (0..40).map(|_| Box::pin(large.read())).collect();
        for reading in &mut waiting {
            assert!(poll!(reading).is_pending());
        }

        let read = tokio::time::timeout(Duration::from_secs(60), small.read())
            .await
            .expect("a slot");
        let (read, slot) = read.unwrap();
        assert!(read.tensors.len() == 1 && !slot.is_large());
        drop(slot);
        waiting.truncate(1);
        let (before, since) = (*large.waited.lock().unwrap(), Instant::now());
        assert!(poll!(&mut waiting[0]).is_pending());
        let at_least = since.elapsed();
        drop(other);
        let (read, slot) = waiting.remove(0).await.unwrap();
        assert!(read.tensors.len() == 1 && slot.is_large());
        assert!(
            *large.waited.lock().unwrap() >= before + at_least,
            "the wait is excluded from the deadline"
        );
    }
}
