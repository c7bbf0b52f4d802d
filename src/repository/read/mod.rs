//! Reads a repository's metadata through [`Files`], wherever they are: a few documents, then
//! headers, many at once.

mod coverage;
mod headers;
mod infer_headers;
mod pickle;
mod predict_from_config;
mod variants;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coverage::Coverage;
use futures_util::{StreamExt, TryStreamExt, stream};
use hf_mem_core::model::bounded_json;
use hf_mem_core::model::bounded_json::{Refused, Room};
use hf_mem_core::model::gguf::{Gguf, TablePlace};
use hf_mem_core::model::metadata::{Evidence, MAX_CLASSES, Metadata, TensorRecord, VERSION};
use hf_mem_core::model::weight_files;
use hf_mem_core::model::weight_files::{Choice, ChoiceError, Documents, Index, Listing};
use hf_mem_core::model::{Format, Identity};
use serde_json::Value;
use tokio::time::Instant;
use variants::Variants;

use super::buffer::Buffer;
use super::error::SourceError;
use crate::admission::read_limits;
use crate::admission::read_limits::{ReadPermit, ReadSlot, SMALL_BYTES};

/// Weight files of one model; the largest known have some 300.
const MAX_FILES: usize = 4096;
/// Other GGUF models that are remembered for suggestions.
const MAX_SIBLINGS: usize = 128;

/// The files of one model at one commit.
pub(super) trait Files: Sync {
    /// The repository or folder, for messages.
    fn name(&self) -> &str;

    /// A whole file of at most `limit` bytes.
    fn whole(
        &self,
        path: &str,
        limit: u64,
    ) -> impl Future<Output = Result<Buffer, SourceError>> + Send;

    /// Bytes `start..start + length`, fewer only at the end of the file.
    fn range(
        &self,
        path: &str,
        start: u64,
        length: u64,
    ) -> impl Future<Output = Result<Buffer, SourceError>> + Send;

    /// Requests that may be under way at once.
    fn concurrency(&self) -> usize;

    /// Whether a read costs enough that some are worth avoiding by proof.
    fn reads_are_dear(&self) -> bool;

    /// This much time went by in waiting for other readings: it is not the files' to answer for.
    fn waited(&self, _time: Duration) {}
}

/// A model's files, listed.
#[derive(Debug)]
pub(super) struct FoundFiles {
    pub(super) identity: Identity,
    pub(super) listing: Listing,
    pub(super) gated: bool,
    pub(super) hub_totals: Option<BTreeMap<String, u64>>,
}

/// Reads everything that an answer needs of `found`. `file` is `--file`. The seat is that of this
/// reading: to be kept for as long as the metadata is worked on, and to be given up before anything
/// else is read.
///
/// It is tried as a small reading first. Where it turns out to be large, all that was read is
/// dropped, and it is read again as the large one. So no two readings can wait for each other: who
/// waits for a seat of the small or of the large has neither and no unparsed text, but at most the
/// turn of a long list, which nobody with a seat waits for; and who has a seat waits only for
/// unparsed texts of others who have seats, and no such text is held by one that waits for a seat.
pub(super) async fn metadata(
    files: &impl Files,
    found: FoundFiles,
    file: Option<&str>,
) -> Result<(Metadata, ReadSlot), SourceError> {
    let seat = in_turn(files, ReadSlot::take()).await;
    {
        // Boxed: it goes before its seat does.
        let small = Box::pin(read(files, &found, file, &seat));
        tokio::select! {
            biased;
            read = small => return Ok((read?, seat)),
            () = seat.outgrown() => {}
        }
    }

    let seat = in_turn(files, ReadSlot::take_large(seat.release())).await;
    let metadata = Box::pin(read(files, &found, file, &seat)).await?;

    Ok((metadata, seat))
}

/// A seat, once it is free; the wait for it is told to `files`.
async fn in_turn(files: &impl Files, seat: impl Future<Output = ReadSlot>) -> ReadSlot {
    let since = Instant::now();
    let seat = seat.await;
    files.waited(since.elapsed());
    seat
}

/// Reads everything, in the seat that there is.
async fn read(
    files: &impl Files,
    found: &FoundFiles,
    file: Option<&str>,
    seat: &ReadSlot,
) -> Result<Metadata, SourceError> {
    let listing = &found.listing;
    let mut reading = DocumentsRead::new();
    reading
        .read(
            files,
            (listing, seat),
            weight_files::documents_needed(listing),
        )
        .await?;

    reading
        .read(
            files,
            (listing, seat),
            weight_files::more_documents(listing, &reading.documents),
        )
        .await?;

    let documents = Arc::new(std::mem::take(&mut reading.documents));
    let mut choice = weight_files::choose(listing, &documents, file)
        .map_err(|error| choice_error(files.name(), error))?;
    if choice.files.len() > MAX_FILES {
        let why = format!(
            "its weights lie in {} files, more than {MAX_FILES}",
            choice.files.len()
        );
        return Err(SourceError::MissingMetadata {
            what: files.name().into(),
            why,
        });
    }

    if choice.base_model.is_some() && !reading.room.is_small() {
        // Its base model is read next, by a reading of its own.
        let why = "its adapter_config.json is larger than that of any adapter".to_owned();
        return Err(SourceError::MissingMetadata {
            what: files.name().into(),
            why,
        });
    }

    let weights = match choice.format {
        Format::Gguf => headers::gguf(files, &choice.files, seat).await?,
        _ => {
            headers::all(
                files,
                &choice.files,
                &documents,
                found.hub_totals.as_ref(),
                seat,
            )
            .await?
        }
    };

    if weights.inventory.classes.len() > MAX_CLASSES {
        let why = format!("its headers describe more than {MAX_CLASSES} kinds of tensors");
        return Err(SourceError::MissingMetadata {
            what: files.name().into(),
            why,
        });
    }

    let others = std::mem::take(&mut choice.others);

    // Boxed: for nearly all models there is nothing to do in it, and everyone who waits would carry
    // its size.
    let variants = Box::pin(variants::read(files, others, &weights, seat)).await;
    reading.documents = Arc::unwrap_or_clone(documents);

    Ok(finish(found, choice, reading, (weights, variants), file))
}

/// The weights as they were read.
#[derive(Debug)]
struct WeightsToRead {
    inventory: hf_mem_core::model::Inventory,
    gguf: Option<Gguf>,
    /// Where a GGUF file has its tensor table.
    table: TablePlace,
    evidence: Evidence,
    /// Files whose headers contradict them.
    coverage: Coverage,
    doubts: Vec<String>,
}

fn finish(
    found: &FoundFiles,
    choice: Choice,
    reading: DocumentsRead,
    (weights, variants): (WeightsToRead, Variants),
    file: Option<&str>,
) -> Metadata {
    let mut identity = found.identity.clone();

    // A GGUF model is one of several: say which, asked for or not.
    identity.file = match (choice.format, choice.files.first()) {
        (Format::Gguf, Some(first)) => Some(first.path.clone()),
        (_, first) => file.and(first).map(|first| first.path.clone()),
    };

    let chosen = |path: &String| choice.files.iter().any(|file| file.path == *path);
    let siblings = found
        .listing
        .iter()
        .filter(|(path, _)| weight_files::is_gguf(path) && !chosen(path));

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
        hub_totals: found.hub_totals.clone(),
        gated: found.gated,
        variants: variants.all,
        partial: variants.partial,
        evidence: weights.evidence,
        contradiction: weights.coverage.contradiction(),
        doubts: choice.notes.into_iter().chain(weights.doubts).collect(),
    }
}

/// Documents as they come in.
#[derive(Debug)]
struct DocumentsRead {
    documents: Documents,
    unreadable: BTreeMap<String, String>,
    room: Room,
}

impl DocumentsRead {
    fn new() -> Self {
        Self {
            documents: Documents::default(),
            unreadable: BTreeMap::new(),
            room: Room::small(),
        }
    }

    /// Reads `paths` at once. A document that is no JSON is remembered as unreadable; an index that
    /// is none is an error, for without it copies of the weights could be taken for the weights.
    async fn read(
        &mut self,
        files: &impl Files,
        (listing, seat): (&Listing, &ReadSlot),
        paths: Vec<String>,
    ) -> Result<(), SourceError> {
        let bytes_of = |path: &String| {
            let limit = if is_index(path) {
                bounded_json::MAX_INDEX_BYTES
            } else {
                bounded_json::MAX_DOCUMENT_BYTES
            };

            let listed = listing.get(path).copied().flatten();
            (
                listed.map_or(limit, |listed| listed.min(limit)),
                listed.map_or(limit, |it| it.max(SMALL_BYTES).min(limit)),
            )
        };

        seat.hold(
            paths
                .iter()
                .map(|path| bytes_of(path).0)
                .fold(0, u64::saturating_add),
        )
        .await;

        let fetch = |path: String| async move {
            let (bytes, limit) = bytes_of(&path);
            let turn = read_limits::unparsed(bytes).await;
            let text = files.whole(&path, limit).await?;
            Ok::<_, SourceError>((path, text, turn))
        };

        let mut texts =
            stream::iter(paths.into_iter().map(fetch)).buffer_unordered(files.concurrency());
        while let Some((path, text, turn)) = texts.try_next().await? {
            match self.parse(is_index(&path), text, (turn, seat)).await {
                Ok(Parsed::Index(index)) => drop(self.documents.indices.insert(path, index)),
                Ok(Parsed::Document(document)) => drop(self.documents.json.insert(path, document)),
                Err(Refused::NotJson(why)) if !is_index(&path) => {
                    drop(self.unreadable.insert(path, why));
                }
                Err(refused) => {
                    let why = format!("{path}: {refused}");
                    return Err(SourceError::MissingMetadata {
                        what: files.name().into(),
                        why,
                    });
                }
            }
        }

        Ok(())
    }

    /// Parses one text, unless it turns out to be large in a small reading.
    async fn parse(
        &mut self,
        index: bool,
        text: Buffer,
        (turn, seat): (ReadPermit, &ReadSlot),
    ) -> Result<Parsed, Refused> {
        let bytes = text.len() as u64;
        if seat.is_large() {
            self.room.become_large();
        }

        let mut room = std::mem::take(&mut self.room);
        let parse = move || {
            let parsed = if index {
                room.index(&text).map(Parsed::Index)
            } else {
                room.document(&text).map(Parsed::Document)
            };
            (room, parsed)
        };

        let parsed;
        (self.room, parsed) = read_limits::work(bytes, (turn, seat.clone()), parse).await;

        if matches!(parsed, Err(Refused::Large)) {
            seat.hold(u64::MAX).await;
        }

        parsed
    }
}

/// A document that was understood.
enum Parsed {
    Document(Value),
    Index(Index),
}

fn is_index(path: &str) -> bool {
    path.ends_with(".index.json")
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

    /// A repository of a configuration and one file whose header is padded.
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
                FoundFiles {
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

        fn reads_are_dear(&self) -> bool {
            false
        }

        fn waited(&self, time: Duration) {
            *self.waited.lock().unwrap() += time;
        }
    }

    #[tokio::test]
    async fn who_waits_for_the_turn_of_a_large_reading_keeps_nobody_from_a_seat_and_its_wait_does_not_count()
     {
        let other = ReadSlot::take_large(ReadSlot::take().await.release()).await;
        let (large, small) = (Repo::new(2 << 20), Repo::new(0));

        // More than there are seats.
        let mut waiting: Vec<_> = (0..40).map(|_| Box::pin(large.read())).collect();
        for reading in &mut waiting {
            assert!(poll!(reading).is_pending());
        }

        let read = tokio::time::timeout(Duration::from_secs(60), small.read())
            .await
            .expect("a seat");
        let (read, seat) = read.unwrap();
        assert!(read.tensors.len() == 1 && !seat.is_large());
        drop(seat);
        waiting.truncate(1);
        let (before, since) = (*large.waited.lock().unwrap(), Instant::now());
        assert!(poll!(&mut waiting[0]).is_pending());
        let at_least = since.elapsed();
        drop(other);
        let (read, seat) = waiting.remove(0).await.unwrap();
        assert!(read.tensors.len() == 1 && seat.is_large());
        assert!(*large.waited.lock().unwrap() >= before + at_least);
    }
}
