//! Reads GGUF headers, each through a growing prefix of its file.

use futures_util::{StreamExt, TryStreamExt, stream};
use hf_mem_core::model::gguf;
use hf_mem_core::model::gguf::{Gguf, Progress};
use hf_mem_core::model::metadata::Evidence;
use hf_mem_core::model::weight_files::WeightFile;

use super::coverage::Coverage;
use super::headers::bad_header;
use super::{Files, ReadWeights};
use crate::admission::read_limits;
use crate::admission::read_limits::ReadSlot;
use crate::repository::error::SourceError;

/// Length of the first prefix. It holds the whole header of a model with a small vocabulary.
const FIRST_PREFIX_BYTES: u64 = 1 << 20;
/// Length of the second prefix. It holds the header of nearly all models with a large vocabulary
/// (150 000 tokens and their merges take some 6 MB).
const SECOND_PREFIX_BYTES: u64 = 8 << 20;
/// Maximum parts of a split model that are read at once. All but the first have short headers.
const MAX_PARTS_AT_ONCE: usize = 4;

/// Reads the header of a GGUF model. The parts of a split model are read many at once.
pub(super) async fn read(
    source: &impl Files,
    files: &[WeightFile],
    slot: &ReadSlot,
) -> Result<ReadWeights, SourceError> {
    let read_file = |file: WeightFile| async move {
        Ok::<_, SourceError>((read_header(source, &file, slot).await?, file))
    };

    let concurrency = source.concurrency().min(MAX_PARTS_AT_ONCE);
    let mut reads =
        stream::iter(files.iter().cloned().map(read_file)).buffer_unordered(concurrency);
    let (mut parts, mut coverage) = (Vec::new(), Coverage::default());
    while let Some((header, file)) = reads.try_next().await? {
        coverage.add(&file, header.uncovered_bytes);
        parts.push(header);
    }

    gguf::combine(parts)
        .map(|header| to_weights(header, coverage))
        .map_err(|error| SourceError::BadHeader {
            what: source.name().into(),
            file: files
                .first()
                .map_or_else(String::new, |file| file.path.clone()),
            why: error.to_string(),
        })
}

/// Reads the header of one file.
async fn read_header(
    source: &impl Files,
    file: &WeightFile,
    slot: &ReadSlot,
) -> Result<Gguf, SourceError> {
    let mut wanted = file
        .bytes
        .map_or(FIRST_PREFIX_BYTES, |length| FIRST_PREFIX_BYTES.min(length));
    let mut prefix = source.range(&file.path, 0, wanted).await?;
    let mut permit = None;

    loop {
        let (bytes, length) = (prefix.len() as u64, file.bytes);
        let parse = move || (gguf::parse(&prefix, length), prefix, permit);
        let parsed;
        (parsed, prefix, permit) = read_limits::work(bytes, (), parse).await;

        match parsed.map_err(|error| bad_header(source, file, error.to_string()))? {
            Progress::Complete(header) => return Ok(*header),
            Progress::NeedMore { at_least } => {
                let have = prefix.len() as u64;
                // A shorter read than requested means the end of the file.
                let next = next_prefix(wanted, at_least, file.bytes).filter(|_| have == wanted);
                let Some(next) = next else {
                    let why = format!("the header is not complete within {have} bytes");
                    return Err(bad_header(source, file, why));
                };

                if next <= SECOND_PREFIX_BYTES {
                    permit = read_limits::unparsed(next).await;
                    prefix.extend(&source.range(&file.path, have, next - have).await?);
                } else {
                    // So long a header is rare, and makes the reading a large one. Hold nothing
                    // while it waits.
                    drop((prefix, permit));
                    slot.hold(next).await;
                    permit = read_limits::unparsed(next).await;
                    prefix = source.range(&file.path, 0, next).await?;
                }

                wanted = next;
            }
        }
    }
}

/// Returns the length of the next prefix to read.
///
/// That is what the parser asked for, at least the second prefix or four times the last one, within
/// the file and the parser's limit.
fn next_prefix(last: u64, at_least: u64, file_bytes: Option<u64>) -> Option<u64> {
    let wanted = at_least
        .max(SECOND_PREFIX_BYTES)
        .max(last.saturating_mul(4))
        .min(gguf::MAX_HEADER_BYTES);
    let wanted = file_bytes.map_or(wanted, |file| wanted.min(file));
    (wanted > last).then_some(wanted)
}

fn to_weights(mut header: Gguf, coverage: Coverage) -> ReadWeights {
    let warnings = header
        .unknown_types
        .iter()
        .map(|unknown| {
            let (id, tensors, first) = (unknown.id, unknown.tensors, &unknown.first);
            format!(
                "{tensors} tensors have the unknown ggml type {id} ({first} first); \
                 their sizes come from their offsets"
            )
        })
        .collect();

    let inventory = std::mem::take(&mut header.inventory);
    let table = std::mem::take(&mut header.table);

    ReadWeights {
        inventory,
        gguf: Some(header),
        ctranslate2: None,
        table,
        evidence: Evidence::EveryHeader,
        coverage,
        warnings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_grow_within_their_limits() {
        assert_eq!(next_prefix(1 << 20, 0, None), Some(8 << 20));
        assert_eq!(next_prefix(1 << 20, 9 << 20, None), Some(9 << 20));
        assert_eq!(next_prefix(8 << 20, 0, None), Some(32 << 20));

        assert_eq!(
            next_prefix(1 << 20, u64::MAX, None),
            Some(gguf::MAX_HEADER_BYTES)
        );
        assert_eq!(next_prefix(gguf::MAX_HEADER_BYTES, 0, None), None);
        assert_eq!(next_prefix(1 << 20, 0, Some(2 << 20)), Some(2 << 20));
        assert_eq!(next_prefix(2 << 20, 0, Some(2 << 20)), None);
    }
}
