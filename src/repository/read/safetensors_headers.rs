//! Reads safetensors headers, many at once.
//!
//! The index tells about how long each header is, which sizes the first read. Only if that was too
//! short, a second read fetches the exact rest.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use hf_mem_core::model::gguf::TablePlace;
use hf_mem_core::model::metadata::{Evidence, MAX_CLASSES};
use hf_mem_core::model::safetensors;
use hf_mem_core::model::safetensors::{HeaderError, LENGTH_BYTES, Outline, TensorEntry};
use hf_mem_core::model::tensors::InventoryBuilder;
use hf_mem_core::model::weight_files::{Index, WeightFile};

use super::coverage::Coverage;
use super::headers::{IndexedKinds, bad_header, too_many_kinds};
use super::infer_headers::{Examples, Sample};
use super::{Files, ReadWeights};
use crate::admission::read_limits;
use crate::admission::read_limits::{ReadSlot, SMALL_BYTES};
use crate::repository::error::SourceError;

/// Length of the first read of a file without an index. It holds the header of nearly all
/// single-file models, and costs less than the second request after a shorter read.
const FIRST_GUESS_BYTES: u64 = 128 << 10;
/// Header bytes of one tensor besides its name: type, shape, two offsets of eleven digits,
/// punctuation.
pub(super) const BYTES_A_TENSOR: u64 = 112;
/// Header bytes of a file besides its tensors.
const BYTES_A_FILE: u64 = 512;
/// Maximum length of a first read.
const MAX_GUESS_BYTES: u64 = 8 << 20;
/// Maximum tensors of all files together, which bounds memory. The largest known model has some
/// 280 000.
const MAX_TENSORS: usize = 1 << 20;

/// Inputs for reading a header: its expected length, and the slot of the reading.
pub(super) struct HeaderContext<'a> {
    pub(super) guesses: HeaderGuesses,
    pub(super) slot: &'a ReadSlot,
}

/// The expected length of each header, from the names in an index.
pub(super) struct HeaderGuesses(BTreeMap<String, u64>);

impl HeaderGuesses {
    pub(super) fn new(files: &[WeightFile], indices: &BTreeMap<String, Index>) -> Self {
        let mut guesses: BTreeMap<String, u64> = BTreeMap::new();
        for (path, index) in indices {
            let folder = path
                .rsplit_once('/')
                .map_or(String::new(), |(folder, _)| format!("{folder}/"));
            let mut lengths: HashMap<&str, u64> = HashMap::new();
            for (name, file) in index.weight_map.iter() {
                *lengths.entry(file).or_insert(BYTES_A_FILE) += name.len() as u64 + BYTES_A_TENSOR;
            }

            for (file, bytes) in lengths {
                *guesses.entry(format!("{folder}{file}")).or_default() += bytes;
            }
        }

        let files: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
        guesses.retain(|path, _| files.contains(path.as_str()));

        Self(guesses)
    }

    fn first_read(&self, file: &WeightFile) -> u64 {
        self.0.get(&file.path).map_or(FIRST_GUESS_BYTES, |guess| {
            guess.next_multiple_of(1024).min(MAX_GUESS_BYTES)
        })
    }
}

/// A header folded into kinds of tensors.
#[derive(Default)]
struct FoldedHeader {
    builder: InventoryBuilder,
    outline: Outline,
    /// A tensor of each kind, if requested and if all tensors of a kind agree.
    examples: Option<Examples>,
}

/// The headers of several files, folded as they arrive. Memory grows with the kinds of tensors, not
/// with their number.
#[derive(Default)]
pub(super) struct HeaderFold {
    builder: InventoryBuilder,
    /// Pairs of a file and a warning about it.
    warnings: Vec<(String, String)>,
    coverage: Coverage,
    tensors: usize,
    /// A tensor of each kind, if requested and if all tensors of a kind agree.
    examples: Option<Examples>,
}

/// Reads and folds the headers of `files`.
pub(super) async fn read_headers(
    source: &impl Files,
    files: &[WeightFile],
    context: &HeaderContext<'_>,
) -> Result<HeaderFold, SourceError> {
    let mut fold = HeaderFold::default();
    fold.read(source, files, context, None).await?;
    Ok(fold)
}

impl HeaderFold {
    /// Creates an empty fold that collects an example of each kind.
    pub(super) fn with_examples(examples: Examples) -> Self {
        Self {
            examples: Some(examples),
            ..Self::default()
        }
    }

    /// Reads the headers of `files` and adds them. With `indexed`, collects an example of each kind
    /// of the index.
    pub(super) async fn read(
        &mut self,
        source: &impl Files,
        files: &[WeightFile],
        context: &HeaderContext<'_>,
        indexed: Option<&Arc<IndexedKinds>>,
    ) -> Result<(), SourceError> {
        let read_file = |file: WeightFile| async move {
            let header = read_header(source, &file, context, indexed.cloned()).await?;
            Ok::<_, SourceError>((file, header))
        };

        let mut headers = stream::iter(files.iter().cloned().map(read_file))
            .buffer_unordered(source.concurrency());
        while let Some((file, header)) = headers.try_next().await? {
            self.tensors += header.outline.tensors;
            if self.tensors > MAX_TENSORS {
                let why = format!("the files together name more than {MAX_TENSORS} tensors");
                return Err(bad_header(source, &file, why));
            }

            self.builder.absorb(header.builder);
            if self.builder.classes() > MAX_CLASSES {
                return Err(too_many_kinds(source, &file));
            }

            self.coverage.add(&file, header.outline.uncovered_bytes);
            self.warnings.extend(
                header
                    .outline
                    .warnings
                    .into_iter()
                    .map(|warning| (file.path.clone(), warning)),
            );

            self.examples = self
                .examples
                .take()
                .zip(header.examples)
                .and_then(|(mut all, more)| all.absorb(more).map(|()| all));
        }

        Ok(())
    }

    /// Returns what was read of `files`, to infer other headers from. The tensors stay here, too.
    pub(super) fn take_sample(&mut self, files: &[WeightFile]) -> Sample {
        Sample {
            files: files.iter().map(|file| file.path.clone()).collect(),
            builder: self.builder.clone(),
            examples: self.examples.take(),
            has_warnings: !self.warnings.is_empty(),
        }
    }

    pub(super) fn into_weights(mut self) -> ReadWeights {
        self.warnings
            .sort_by(|(left, _), (right, _)| left.cmp(right));
        ReadWeights {
            inventory: self.builder.finish(),
            gguf: None,
            ctranslate2: None,
            table: TablePlace::default(),
            evidence: Evidence::EveryHeader,
            coverage: self.coverage,
            warnings: group_warnings(self.warnings),
        }
    }
}

/// Returns each warning once, with its file or the number of its files.
fn group_warnings(warnings: Vec<(String, String)>) -> Vec<String> {
    let mut files_by_warning: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (file, warning) in warnings {
        files_by_warning.entry(warning).or_default().push(file);
    }

    files_by_warning
        .into_iter()
        .map(|(warning, files)| match files.as_slice() {
            [file] => format!("{file}: {warning}"),
            _ => format!("{} files: {warning}", files.len()),
        })
        .collect()
}

/// Reads one header, in one read if the guess was long enough, else in two.
async fn read_header(
    source: &impl Files,
    file: &WeightFile,
    context: &HeaderContext<'_>,
    indexed: Option<Arc<IndexedKinds>>,
) -> Result<FoldedHeader, SourceError> {
    let to_source_error = |error: HeaderError| bad_header(source, file, error.to_string());
    let guess = context.guesses.first_read(file);
    let first = file.bytes.map_or(guess, |length| guess.min(length));
    context.slot.hold(first).await;
    let mut permit = read_limits::unparsed(first).await;
    let mut bytes = source.range(&file.path, 0, first).await?;
    let length = safetensors::header_length(&bytes, file.bytes).map_err(to_source_error)?;
    let end = LENGTH_BYTES + length;
    let have = bytes.len() as u64;
    let mut start = LENGTH_BYTES;

    if have < end && length > SMALL_BYTES {
        // Read a long header again as one piece, so that it is never held twice.
        drop((bytes, permit));
        context.slot.hold(length).await;
        permit = read_limits::unparsed(length).await;
        bytes = source.range(&file.path, LENGTH_BYTES, length).await?;
        start = 0;
    } else if have < end {
        bytes.extend(&source.range(&file.path, have, end - have).await?);
    }

    let inside = usize::try_from(start)
        .ok()
        .zip(usize::try_from(start + length).ok())
        .map(|(start, end)| start..end);
    let Some(inside) = inside.filter(|inside| inside.end <= bytes.len()) else {
        let why =
            format!("the header has {length} bytes and the file ends before them; it is truncated");
        return Err(bad_header(source, file, why));
    };

    let (component, data_bytes) = (
        file.component.clone(),
        file.bytes.map(|file| file.saturating_sub(end)),
    );
    let fold = move || {
        let json = bytes.get(inside).unwrap_or_default();
        fold_header(json, data_bytes, &component, indexed.as_deref())
    };

    read_limits::work(length, (permit, context.slot.clone()), fold)
        .await
        .map_err(to_source_error)
}

/// Folds the header `json` into kinds of `component`. With `indexed`, keeps a tensor of each kind
/// of the index.
fn fold_header(
    json: &[u8],
    data_bytes: Option<u64>,
    component: &str,
    indexed: Option<&IndexedKinds>,
) -> Result<FoldedHeader, HeaderError> {
    let mut builder = InventoryBuilder::default();
    let indexed = indexed.and_then(|indexed| Some((indexed.index()?, &indexed.kinds)));
    let mut examples = indexed.map(|_| Examples::default());
    let outline = safetensors::walk(json, data_bytes, &mut |entry| {
        examples = examples
            .take()
            .zip(indexed)
            .and_then(|(mut examples, (index, kinds))| {
                examples.add(&entry, index, kinds).map(|()| examples)
            });

        let TensorEntry {
            name,
            storage,
            shape,
            bytes,
            ..
        } = entry;

        builder.add(component, name, storage, shape, bytes);
        if builder.classes() > MAX_CLASSES {
            Err(HeaderError::TooManyKinds(MAX_CLASSES))
        } else {
            Ok(())
        }
    })?;

    Ok(FoldedHeader {
        builder,
        outline,
        examples,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header_of(tensors: u32, name: impl Fn(u32) -> String) -> String {
        let tensor_json = |at| {
            format!(
                r#""{}":{{"dtype":"U8","shape":[1],"data_offsets":[{at},{}]}}"#,
                name(at),
                at + 1
            )
        };

        format!(
            "{{{}}}",
            (0..tensors).map(tensor_json).collect::<Vec<_>>().join(",")
        )
    }

    #[test]
    fn memory_grows_with_kinds_only() {
        let fold = |json: &str| fold_header(json.as_bytes(), None, "", None);
        let many = fold(&header_of(40_000, |at| format!("layers.{at}.w"))).expect("one kind");
        assert_eq!((many.builder.classes(), many.outline.tensors), (1, 40_000));

        let rejected = fold(&header_of(40_000, |at| format!("w{at}"))).err();
        assert_eq!(
            rejected,
            Some(HeaderError::TooManyKinds(MAX_CLASSES)),
            "the number of kinds is bounded"
        );
    }
}
