//! Headers of weight files, many at once: a first read sized by what is known, an exact second one
//! only where it was short.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use hf_mem_core::model::gguf;
use hf_mem_core::model::gguf::{Gguf, Progress, TablePlace};
use hf_mem_core::model::metadata::{Evidence, MAX_CLASSES};
use hf_mem_core::model::safetensors;
use hf_mem_core::model::safetensors::{HeaderError, LENGTH_BYTES, Outline, Passing};
use hf_mem_core::model::tensors::InventoryBuilder;
use hf_mem_core::model::weight_files::{Documents, Index, WeightFile};

use super::coverage::Coverage;
use super::infer_headers::{Examples, HeaderKinds, Sample};
use super::{Files, WeightsToRead, infer_headers, pickle, predict_from_config};
use crate::admission::read_limits;
use crate::admission::read_limits::{ReadSlot, SMALL_BYTES};
use crate::repository::error::SourceError;

/// The first read of a file that nothing is known of: holds the header of nearly all single-file
/// models, and costs less than the second request that a shorter one would.
const FIRST_GUESS_BYTES: u64 = 128 << 10;
/// The first prefix of a GGUF file: holds the whole header of a model with a small vocabulary.
const FIRST_PREFIX_BYTES: u64 = 1 << 20;
/// The second: holds that of nearly all with a large one (150 000 tokens and their merges take some
/// 6 MB).
const SECOND_PREFIX_BYTES: u64 = 8 << 20;
/// Parts of a split GGUF model that are read at once; all but the first have short headers.
const MAX_PARTS_AT_ONCE: usize = 4;
/// JSON around one tensor's name: type, shape, two offsets of eleven digits, punctuation.
const BYTES_A_TENSOR: u64 = 112;
/// Tensors of all files together; bounds memory while they are folded. The largest known model has
/// some 280 000.
const MAX_TENSORS: usize = 1 << 20;

const INDEX: &str = "model.safetensors.index.json";

/// Reads what `files` hold. Where reads are dear and the index allows it, some headers are proved
/// instead of read.
pub(super) async fn all(
    source: &impl Files,
    files: &[WeightFile],
    documents: &Arc<Documents>,
    hub_totals: Option<&BTreeMap<String, u64>>,
    seat: &ReadSlot,
) -> Result<WeightsToRead, SourceError> {
    let hints = Hints {
        guesses: Guesses::new(files, &documents.indices),
        seat,
    };

    if files
        .iter()
        .any(|file| !file.path.ends_with(".safetensors"))
    {
        return every(source, files, &hints).await;
    }

    let names = documents
        .indices
        .get(INDEX)
        .map_or(0, |index| index.weight_map.len()) as u64;
    let work = names.saturating_mul(BYTES_A_TENSOR);

    if let (true, Some(totals)) = (
        source.reads_are_dear() && documents.json.contains_key("config.json"),
        hub_totals,
    ) && let (root, others) = files
        .iter()
        .cloned()
        .partition::<Vec<_>, _>(|file| file.component.is_empty())
        && let (documents, totals) = (Arc::clone(documents), totals.clone())
        && let Some(mut weights) = read_limits::work(work, seat.clone(), move || {
            predict_from_config::keep(
                &root,
                documents.indices.get(INDEX),
                documents.json.get("config.json")?,
                &totals,
            )
        })
        .await
    {
        // The Hub's totals are those of the root; modules in folders of their own are read.
        let read = folded(source, &others, &hints).await?.weights();
        weights.inventory.classes.extend(read.inventory.classes);
        weights.doubts.extend(read.doubts);
        weights.coverage.absorb(read.coverage);

        weights.evidence = Evidence::Inferred {
            read: count(&others),
            of: count(files),
        };

        return Ok(weights);
    }

    let (own, theirs) = (files.to_vec(), Arc::clone(documents));
    if source.reads_are_dear()
        && let Some((kinds, chosen)) =
            read_limits::work(work, seat.clone(), move || sampled(&own, theirs)).await
    {
        let mut all = Folded {
            examples: Some(Examples::default()),
            ..Folded::default()
        };

        all.read(source, &chosen, &hints, Some(&kinds)).await?;
        let (own, totals, sample) = (files.to_vec(), hub_totals.cloned(), all.sample(&chosen));
        let prove = move || {
            infer_headers::prove(&own, kinds.index()?, &kinds.kinds, totals.as_ref(), sample)
        };

        if let Some(weights) = read_limits::work(work, seat.clone(), prove).await {
            return Ok(weights);
        }
        // Not proved: read the others as well.
        let others: Vec<WeightFile> = files
            .iter()
            .filter(|file| !chosen.contains(file))
            .cloned()
            .collect();

        all.read(source, &others, &hints, None).await?;
        return Ok(all.weights());
    }

    Ok(folded(source, files, &hints).await?.weights())
}

/// An index and the kinds of its tensors.
struct Indexed {
    documents: Arc<Documents>,
    kinds: HeaderKinds,
}

impl Indexed {
    fn index(&self) -> Option<&Index> {
        self.documents.indices.get(INDEX)
    }
}

/// The files to read first, by which the others may be proved.
fn sampled(
    files: &[WeightFile],
    documents: Arc<Documents>,
) -> Option<(Arc<Indexed>, Vec<WeightFile>)> {
    let kinds = HeaderKinds::new(documents.indices.get(INDEX)?);
    let indexed = Indexed { documents, kinds };
    let positions = infer_headers::sample(files, indexed.index()?, &indexed.kinds)?;
    let chosen = positions
        .into_iter()
        .filter_map(|position| files.get(position).cloned())
        .collect();

    Some((Arc::new(indexed), chosen))
}

/// safetensors and pickled files mixed, as a diffusers pipeline may have them.
async fn every(
    source: &impl Files,
    files: &[WeightFile],
    hints: &Hints<'_>,
) -> Result<WeightsToRead, SourceError> {
    let (headed, pickled): (Vec<_>, Vec<_>) = files
        .iter()
        .cloned()
        .partition(|file| file.path.ends_with(".safetensors"));
    let mut weights = folded(source, &headed, hints).await?.weights();
    let mut builder = InventoryBuilder::default();
    let read = |file: WeightFile| async move {
        Ok::<_, SourceError>((pickle::storages(source, &file, hints.seat).await?, file))
    };

    let mut reads =
        stream::iter(pickled.into_iter().map(read)).buffer_unordered(source.concurrency());
    while let Some((storages, file)) = reads.try_next().await? {
        storages.add_to(&file.component, &mut builder);
        weights.coverage.add(&file, storages.uncovered_bytes);

        if builder.classes() > MAX_CLASSES {
            return Err(bad(
                source,
                &file,
                HeaderError::TooManyKinds(MAX_CLASSES).to_string(),
            ));
        }

        weights.doubts.extend(
            storages
                .doubts
                .into_iter()
                .map(|doubt| format!("{}: {doubt}", file.path)),
        );
    }

    weights.inventory.classes.extend(builder.finish().classes);
    weights.evidence = Evidence::Lengths;

    Ok(weights)
}

/// Files are at most some thousands.
fn count(files: &[WeightFile]) -> u32 {
    u32::try_from(files.len()).unwrap_or(u32::MAX)
}

/// One header, its tensors folded.
#[derive(Default)]
struct One {
    builder: InventoryBuilder,
    outline: Outline,
    /// A tensor of each kind, where they were asked for and agree.
    examples: Option<Examples>,
}

/// The headers of several files, folded as they come: what is kept grows with the kinds of tensors,
/// not with tensors.
#[derive(Default)]
struct Folded {
    builder: InventoryBuilder,
    /// What was odd, by file.
    doubts: Vec<(String, String)>,
    coverage: Coverage,
    tensors: usize,
    /// A tensor of each kind, where they are wanted and agree.
    examples: Option<Examples>,
}

async fn folded(
    source: &impl Files,
    files: &[WeightFile],
    hints: &Hints<'_>,
) -> Result<Folded, SourceError> {
    let mut all = Folded::default();
    all.read(source, files, hints, None).await?;
    Ok(all)
}

impl Folded {
    async fn read(
        &mut self,
        source: &impl Files,
        files: &[WeightFile],
        hints: &Hints<'_>,
        indexed: Option<&Arc<Indexed>>,
    ) -> Result<(), SourceError> {
        let read = |file: WeightFile| async move {
            let one = header(source, &file, hints, indexed.cloned()).await?;
            Ok::<_, SourceError>((file, one))
        };

        let mut headers =
            stream::iter(files.iter().cloned().map(read)).buffer_unordered(source.concurrency());
        while let Some((file, one)) = headers.try_next().await? {
            self.tensors += one.outline.tensors;
            if self.tensors > MAX_TENSORS {
                return Err(bad(
                    source,
                    &file,
                    format!("the files together name more than {MAX_TENSORS} tensors"),
                ));
            }

            self.builder.absorb(one.builder);
            if self.builder.classes() > MAX_CLASSES {
                return Err(bad(
                    source,
                    &file,
                    HeaderError::TooManyKinds(MAX_CLASSES).to_string(),
                ));
            }

            self.coverage.add(&file, one.outline.uncovered_bytes);
            self.doubts.extend(
                one.outline
                    .doubts
                    .into_iter()
                    .map(|doubt| (file.path.clone(), doubt)),
            );

            self.examples = self
                .examples
                .take()
                .zip(one.examples)
                .and_then(|(mut all, more)| all.absorb(more).map(|()| all));
        }

        Ok(())
    }

    /// What was read of `files`, to prove others by; the tensors stay here as well.
    fn sample(&mut self, files: &[WeightFile]) -> Sample {
        Sample {
            files: files.iter().map(|file| file.path.clone()).collect(),
            builder: self.builder.clone(),
            examples: self.examples.take(),
            is_doubtful: !self.doubts.is_empty(),
        }
    }

    fn weights(mut self) -> WeightsToRead {
        self.doubts.sort_by(|(left, _), (right, _)| left.cmp(right));
        WeightsToRead {
            inventory: self.builder.finish(),
            gguf: None,
            table: TablePlace::default(),
            evidence: Evidence::EveryHeader,
            coverage: self.coverage,
            doubts: told_once(self.doubts),
        }
    }
}

/// Each doubt once, with the file or the number of files that raise it.
fn told_once(doubts: Vec<(String, String)>) -> Vec<String> {
    let mut raised: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (file, doubt) in doubts {
        raised.entry(doubt).or_default().push(file);
    }

    let told = |(doubt, files): (String, Vec<String>)| match files.as_slice() {
        [file] => format!("{file}: {doubt}"),
        _ => format!("{} files: {doubt}", files.len()),
    };

    raised.into_iter().map(told).collect()
}

/// One header in one read if `guess` was enough, else in two.
async fn header(
    source: &impl Files,
    file: &WeightFile,
    hints: &Hints<'_>,
    indexed: Option<Arc<Indexed>>,
) -> Result<One, SourceError> {
    let refuse = |error: HeaderError| bad(source, file, error.to_string());
    let guess = hints.guesses.of(file);
    let first = file.bytes.map_or(guess, |length| guess.min(length));
    hints.seat.hold(first).await;
    let mut turn = read_limits::unparsed(first).await;
    let mut bytes = source.range(&file.path, 0, first).await?;
    let length = safetensors::header_length(&bytes, file.bytes).map_err(refuse)?;
    let end = LENGTH_BYTES + length;
    let have = bytes.len() as u64;
    let mut start = LENGTH_BYTES;

    if have < end && length > SMALL_BYTES {
        // A long one is read again as one piece, so that it is never held twice.
        drop((bytes, turn));
        hints.seat.hold(length).await;
        turn = read_limits::unparsed(length).await;
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
        return Err(bad(source, file, why));
    };

    let (component, data_bytes) = (
        file.component.clone(),
        file.bytes.map(|file| file.saturating_sub(end)),
    );
    let fold = move || {
        one(
            bytes.get(inside).unwrap_or_default(),
            data_bytes,
            &component,
            indexed.as_deref(),
        )
    };

    read_limits::work(length, (turn, hints.seat.clone()), fold)
        .await
        .map_err(refuse)
}

/// Folds the header `json` into kinds of `component`. With `indexed`, a tensor of each kind of the
/// index is kept.
fn one(
    json: &[u8],
    data_bytes: Option<u64>,
    component: &str,
    indexed: Option<&Indexed>,
) -> Result<One, HeaderError> {
    let mut builder = InventoryBuilder::default();
    let indexed = indexed.and_then(|indexed| Some((indexed.index()?, &indexed.kinds)));
    let mut examples = indexed.map(|_| Examples::default());
    let outline = safetensors::walk(json, data_bytes, &mut |passing| {
        examples = examples
            .take()
            .zip(indexed)
            .and_then(|(mut examples, (index, kinds))| {
                examples.add(&passing, index, kinds).map(|()| examples)
            });

        let Passing {
            name,
            storage,
            shape,
            bytes,
            ..
        } = passing;

        builder.add(component, name, storage, shape, bytes);
        if builder.classes() > MAX_CLASSES {
            Err(HeaderError::TooManyKinds(MAX_CLASSES))
        } else {
            Ok(())
        }
    })?;

    Ok(One {
        builder,
        outline,
        examples,
    })
}

/// The header of a GGUF model; the parts of a split one many at once, each through a growing
/// prefix.
pub(super) async fn gguf(
    source: &impl Files,
    files: &[WeightFile],
    seat: &ReadSlot,
) -> Result<WeightsToRead, SourceError> {
    let read = |file: WeightFile| async move {
        Ok::<_, SourceError>((gguf_header(source, &file, seat).await?, file))
    };

    let at_once = source.concurrency().min(MAX_PARTS_AT_ONCE);
    let mut reads = stream::iter(files.iter().cloned().map(read)).buffer_unordered(at_once);
    let (mut parts, mut coverage) = (Vec::new(), Coverage::default());
    while let Some((header, file)) = reads.try_next().await? {
        coverage.add(&file, header.uncovered_bytes);
        parts.push(header);
    }

    let refuse = |error: gguf::GgufError| SourceError::BadHeader {
        what: source.name().into(),
        file: files
            .first()
            .map_or_else(String::new, |file| file.path.clone()),
        why: error.to_string(),
    };

    gguf::combine(parts)
        .map(|header| from_gguf(header, coverage))
        .map_err(refuse)
}

/// The header of one file.
async fn gguf_header(
    source: &impl Files,
    file: &WeightFile,
    seat: &ReadSlot,
) -> Result<Gguf, SourceError> {
    let mut wanted = file
        .bytes
        .map_or(FIRST_PREFIX_BYTES, |length| FIRST_PREFIX_BYTES.min(length));
    let mut prefix = source.range(&file.path, 0, wanted).await?;
    let mut turn = None;

    loop {
        let (bytes, length) = (prefix.len() as u64, file.bytes);
        let parse = move || (gguf::parse(&prefix, length), prefix, turn);
        let parsed;
        (parsed, prefix, turn) = read_limits::work(bytes, (), parse).await;

        match parsed.map_err(|error| bad(source, file, error.to_string()))? {
            Progress::Complete(header) => return Ok(*header),
            Progress::NeedMore { at_least } => {
                let have = prefix.len() as u64;
                // A read that came back short was the end of the file.
                let next = next_prefix(wanted, at_least, file.bytes).filter(|_| have == wanted);
                let Some(next) = next else {
                    return Err(bad(
                        source,
                        file,
                        format!("the header is not complete within {have} bytes"),
                    ));
                };
                if next <= SECOND_PREFIX_BYTES {
                    turn = read_limits::unparsed(next).await;
                    prefix.extend(&source.range(&file.path, have, next - have).await?);
                } else {
                    // Hardly any model has so long a header: it is large, and nothing is held while
                    // it waits.
                    drop((prefix, turn));
                    seat.hold(next).await;
                    turn = read_limits::unparsed(next).await;
                    prefix = source.range(&file.path, 0, next).await?;
                }
                wanted = next;
            }
        }
    }
}

/// The next prefix to try: what the parser asked for, the second that is worth a try or four times
/// the last, within the file and the parser's bound.
fn next_prefix(last: u64, at_least: u64, file_bytes: Option<u64>) -> Option<u64> {
    let wanted = at_least
        .max(SECOND_PREFIX_BYTES)
        .max(last.saturating_mul(4))
        .min(gguf::MAX_HEADER_BYTES);
    let wanted = file_bytes.map_or(wanted, |file| wanted.min(file));
    (wanted > last).then_some(wanted)
}

fn from_gguf(mut header: Gguf, coverage: Coverage) -> WeightsToRead {
    let doubt = |unknown: &gguf::UnknownType| {
        let (id, tensors, first) = (unknown.id, unknown.tensors, &unknown.first);
        format!(
            "{tensors} tensors have ggml type {id}, which is not known ({first} first); sized by their offsets"
        )
    };

    let doubts = header.unknown_types.iter().map(doubt).collect();
    let inventory = std::mem::take(&mut header.inventory);
    let table = std::mem::take(&mut header.table);

    WeightsToRead {
        inventory,
        gguf: Some(header),
        table,
        evidence: Evidence::EveryHeader,
        coverage,
        doubts,
    }
}

/// What a header is read by: how long it may be, and for which reading.
struct Hints<'a> {
    guesses: Guesses,
    seat: &'a ReadSlot,
}

/// How long each header will be, from the names that an index gives.
struct Guesses(BTreeMap<String, u64>);

impl Guesses {
    fn new(files: &[WeightFile], indices: &BTreeMap<String, Index>) -> Self {
        let mut guesses: BTreeMap<String, u64> = BTreeMap::new();
        for (path, index) in indices {
            let folder = path
                .rsplit_once('/')
                .map_or(String::new(), |(folder, _)| format!("{folder}/"));
            let mut of: HashMap<&str, u64> = HashMap::new();
            for (name, file) in index.weight_map.iter() {
                *of.entry(file).or_insert(512) += name.len() as u64 + BYTES_A_TENSOR;
            }

            for (file, bytes) in of {
                *guesses.entry(format!("{folder}{file}")).or_default() += bytes;
            }
        }

        let files: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
        guesses.retain(|path, _| files.contains(path.as_str()));

        Self(guesses)
    }

    fn of(&self, file: &WeightFile) -> u64 {
        self.0.get(&file.path).map_or(FIRST_GUESS_BYTES, |guess| {
            guess.next_multiple_of(1024).min(8 << 20)
        })
    }
}

pub(super) fn bad(source: &impl Files, file: &WeightFile, why: String) -> SourceError {
    SourceError::BadHeader {
        what: source.name().into(),
        file: file.path.clone(),
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header_of(tensors: u32, name: impl Fn(u32) -> String) -> String {
        let tensor = |at| {
            format!(
                r#""{}":{{"dtype":"U8","shape":[1],"data_offsets":[{at},{}]}}"#,
                name(at),
                at + 1
            )
        };

        format!(
            "{{{}}}",
            (0..tensors).map(tensor).collect::<Vec<_>>().join(",")
        )
    }

    #[test]
    fn what_is_kept_grows_with_the_kinds_of_tensors_and_those_are_bounded() {
        let read = |json: &str| one(json.as_bytes(), None, "", None);
        let many = read(&header_of(40_000, |at| format!("layers.{at}.w"))).expect("one kind");
        assert_eq!((many.builder.classes(), many.outline.tensors), (1, 40_000));
        let refused = read(&header_of(40_000, |at| format!("w{at}"))).err();
        assert_eq!(refused, Some(HeaderError::TooManyKinds(MAX_CLASSES)));
    }

    #[test]
    fn prefixes_grow_within_the_file_and_the_bound() {
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
