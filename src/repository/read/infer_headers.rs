//! Infers the headers of some files from those of others, which saves requests.
//!
//! An index names every tensor and its file. Tensors nearly always have the same type and shape if
//! two things hold: their names differ only in numbers, and the names in their layers are the same.
//! So the reader reads a few files in which every such [`TensorKind`] occurs and predicts the
//! tensors of the others by kind. It accepts the prediction only if everything known about the
//! repository agrees:
//!
//! 1. the length of each unread file, less its predicted data, leaves a header of exactly the
//!    length that such tensors need;
//! 2. the data of all files adds up to the index's `total_size`;
//! 3. the Hub lists its totals, and the elements by type add up to them.
//!
//! Otherwise, or if a kind has two shapes, the reader reads every header. Before any of this, it
//! tries to predict all tensors from the configuration, without a header (`predict_from_config`).

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use hf_mem_core::bytes::Bytes;
use hf_mem_core::model::gguf::TablePlace;
use hf_mem_core::model::metadata::Evidence;
use hf_mem_core::model::safetensors::{LENGTH_BYTES, TensorEntry};
use hf_mem_core::model::tensors::{InventoryBuilder, Storage};
use hf_mem_core::model::weight_files::{Index, WeightFile};

use super::ReadWeights;
use super::coverage::Coverage;

/// Minimum number of files: with fewer there is nothing to save.
const MIN_FILES: usize = 4;
/// Maximum kinds with an example. Real models have some hundred; with more kinds every header is
/// read.
const MAX_KINDS: usize = 1 << 16;
/// JSON around one tensor besides name, type, shape and offsets:
/// `"":{"dtype":"","shape":[],"data_offsets":[,]},`.
const PUNCTUATION_BYTES: u64 = 46;
/// `{}`, and at most this much of `__metadata__`, whose text varies by writer.
const METADATA_BYTES: u64 = 512;

/// Returns the positions of files in which every kind of tensor occurs. Returns `None` if reading
/// all files is as good.
pub(super) fn sample(
    files: &[WeightFile],
    index: &Index,
    kinds: &HeaderKinds,
) -> Option<Vec<usize>> {
    if files.len() < MIN_FILES
        || index.total_bytes.is_none()
        || files.iter().any(|file| file.bytes.is_none())
    {
        return None;
    }

    let mut kinds_of: BTreeMap<&str, BTreeSet<TensorKind>> = BTreeMap::new();
    for (name, file) in index.weight_map.iter() {
        kinds_of
            .entry(file)
            .or_default()
            .insert(kinds.kind_of(&name));
    }

    let mut wanted: BTreeSet<TensorKind> = kinds_of.values().flatten().copied().collect();
    let mut chosen = Vec::new();

    // Greedy cover: take the file with most missing kinds, the first of equals.
    while !wanted.is_empty() {
        let count_missing = |file: &WeightFile| {
            kinds_of
                .get(file.path.as_str())
                .map_or(0, |kinds| kinds.intersection(&wanted).count())
        };

        let (position, file) = files
            .iter()
            .enumerate()
            .rev()
            .max_by_key(|(_, file)| count_missing(file))?;
        for kind in kinds_of.get(file.path.as_str())? {
            wanted.remove(kind);
        }

        chosen.push(position);
        if chosen.len() * 2 > files.len() {
            return None;
        }
    }

    Some(chosen)
}

/// The headers that were read.
#[derive(Debug)]
pub(super) struct Sample {
    /// Paths of their files.
    pub(super) files: BTreeSet<String>,
    /// Their tensors, folded.
    pub(super) builder: InventoryBuilder,
    /// An example of each kind. `None` if two of a kind differ, or if the index does not name one.
    pub(super) examples: Option<Examples>,
    /// Whether a header had a warning.
    pub(super) has_warnings: bool,
}

/// Infers the weights of all `files` from the headers in `read`. Returns `None` if anything known
/// contradicts that.
pub(super) fn infer(
    files: &[WeightFile],
    index: &Index,
    kinds: &HeaderKinds,
    hub_totals: Option<&BTreeMap<String, u64>>,
    read: Sample,
) -> Option<ReadWeights> {
    if read.has_warnings {
        return None;
    }

    let (known, mut builder) = (read.examples?, read.builder);
    let mut predicted: HashMap<&str, PredictedFile> = HashMap::new();

    for (name, path) in index
        .weight_map
        .iter()
        .filter(|(_, path)| !read.files.contains(*path))
    {
        let like = known.0.get(&kinds.kind_of(&name))?;
        let dtype = match &like.storage {
            Storage::Known(dtype) => dtype.name(),
            Storage::Unknown(name) => name,
        };

        predicted
            .entry(path)
            .or_default()
            .add(&name, dtype, &like.shape, like.bytes);
        builder.add("", &name, like.storage.clone(), &like.shape, like.bytes);
    }

    for file in files.iter().filter(|file| !read.files.contains(&file.path)) {
        predicted.get_mut(file.path.as_str())?.fits(file.bytes?)?;
    }

    let inventory = builder.finish();

    // Every tensor of the index, no more and no less.
    if inventory.tensors() != index.weight_map.len() as u64
        || inventory.bytes() != Bytes::new(index.total_bytes?)
    {
        return None;
    }

    let mut elements: BTreeMap<&str, u64> = BTreeMap::new();
    for class in &inventory.classes {
        let count = elements.entry(class.dtype()?.name()).or_default();
        *count = count.saturating_add(class.elements_each().saturating_mul(class.count));
    }

    let totals = hub_totals?;
    let agrees = totals.len() == elements.len()
        && elements
            .iter()
            .all(|(name, count)| totals.get(*name) == Some(count));
    let (read, of) = (
        u32::try_from(read.files.len()).ok()?,
        u32::try_from(files.len()).ok()?,
    );

    let (table, evidence) = (TablePlace::default(), Evidence::Inferred { read, of });

    // No file that was read has warnings, and the length of every other file leaves room only for
    // its header.
    let (coverage, warnings) = (Coverage::default(), Vec::new());
    agrees.then_some(ReadWeights {
        inventory,
        gguf: None,
        ctranslate2: None,
        table,
        evidence,
        coverage,
        warnings,
    })
}

/// An example tensor of each kind.
#[derive(Debug, Default)]
pub(super) struct Examples(HashMap<TensorKind, Example>);

/// A tensor of a kind.
#[derive(Debug, PartialEq, Eq)]
struct Example {
    storage: Storage,
    shape: Box<[u64]>,
    bytes: Bytes,
}

impl Examples {
    /// Adds a tensor of a header. Returns `None` if the index does not name it, if it differs from
    /// another of its kind, or if there are too many kinds.
    pub(super) fn add(
        &mut self,
        tensor: &TensorEntry<'_>,
        index: &Index,
        kinds: &HeaderKinds,
    ) -> Option<()> {
        if !index.weight_map.contains(tensor.name) {
            return None;
        }

        let kind = kinds.kind_of(tensor.name);
        let new_example = || Example {
            storage: tensor.storage.clone(),
            shape: tensor.shape.into(),
            bytes: tensor.bytes,
        };

        let first = self.0.entry(kind).or_insert_with(new_example);
        let agrees = *first.shape == *tensor.shape && first.storage == tensor.storage;

        (agrees && self.0.len() <= MAX_KINDS).then_some(())
    }

    /// Adds the examples of another header.
    pub(super) fn absorb(&mut self, other: Self) -> Option<()> {
        for (kind, example) in other.0 {
            match self.0.entry(kind) {
                Entry::Vacant(free) => drop(free.insert(example)),
                Entry::Occupied(first) => {
                    let first = first.get();
                    (first.shape == example.shape && first.storage == example.storage)
                        .then_some(())?;
                }
            }
        }

        (self.0.len() <= MAX_KINDS).then_some(())
    }
}

/// The predicted content of an unread file.
#[derive(Debug, Default)]
pub(super) struct PredictedFile {
    data: Bytes,
    /// Header bytes without the offsets' digits.
    header: u64,
    /// Bytes of each tensor.
    sizes: Vec<u64>,
}

impl PredictedFile {
    pub(super) fn add(&mut self, name: &str, dtype: &str, shape: &[u64], bytes: Bytes) {
        self.data += bytes;
        let shape = shape
            .iter()
            .map(|size| digits(*size) + 1)
            .sum::<u64>()
            .saturating_sub(1);

        self.header += PUNCTUATION_BYTES + name.len() as u64 + dtype.len() as u64 + shape;
        self.sizes.push(bytes.get());
    }

    /// Whether a file of `length` bytes can hold exactly this data.
    /// The order of the tensors is unknown. Their offsets have the fewest digits if the smallest
    /// comes first, and the most if the largest does. Writers pad headers with up to seven spaces,
    /// and `__metadata__` is short.
    pub(super) fn fits(&mut self, length: u64) -> Option<()> {
        let header = length
            .checked_sub(self.data.get())?
            .checked_sub(LENGTH_BYTES)?;
        self.sizes.sort_unstable();
        let fewest = offset_digits(self.sizes.iter());
        let most = offset_digits(self.sizes.iter().rev());
        let least = self.header.checked_add(fewest)?;

        let most = self
            .header
            .checked_add(most)?
            .checked_add(METADATA_BYTES + 8)?;

        (least..=most).contains(&header).then_some(())
    }
}

/// Returns the number of digits in all begins and ends of consecutive tensors.
fn offset_digits<'a>(sizes: impl Iterator<Item = &'a u64>) -> u64 {
    let (mut sum, mut at) = (0_u64, 0_u64);
    for size in sizes {
        let end = at.saturating_add(*size);
        sum = sum.saturating_add(digits(at) + digits(end));
        at = end;
    }

    sum
}

fn digits(number: u64) -> u64 {
    u64::from(number.checked_ilog10().unwrap_or(0)) + 1
}

/// What tensors of one type and shape have in common: the name without its numbers, and the names
/// in their layer.
///
/// The second distinguishes different kinds of layers. Layers without quantization have no scales,
/// and layers of a hybrid's other mixer have other projections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct TensorKind {
    pattern: u64,
    layer: u64,
}

/// The kind of every tensor of an index.
#[derive(Debug)]
pub(super) struct HeaderKinds {
    /// A hash of the names in each layer.
    layers: HashMap<String, u64>,
}

impl HeaderKinds {
    pub(super) fn new(index: &Index) -> Self {
        let mut layers: HashMap<String, BTreeSet<u64>> = HashMap::new();
        for (name, _) in index.weight_map.iter() {
            let (layer, pattern) = (layer(&name), pattern(&name));
            match layers.get_mut(layer) {
                Some(patterns) => drop(patterns.insert(pattern)),
                None => drop(layers.insert(layer.to_owned(), BTreeSet::from([pattern]))),
            }
        }

        Self {
            layers: layers
                .into_iter()
                .map(|(layer, names)| (layer, hash(names)))
                .collect(),
        }
    }

    fn kind_of(&self, name: &str) -> TensorKind {
        TensorKind {
            pattern: pattern(name),
            layer: self.layers.get(layer(name)).copied().unwrap_or(0),
        }
    }
}

/// Returns the name up to its first number: `model.layers.17` of
/// `model.layers.17.mlp.up_proj.weight`. Returns an empty text for a name without a number.
fn layer(name: &str) -> &str {
    let mut end = 0;
    for segment in name.split('.') {
        end += segment.len();
        if is_number(segment) {
            return name.get(..end).unwrap_or(name);
        }
        end += 1;
    }

    ""
}

/// Returns a hash of the name without its numbers. If two names share a hash, the checks still
/// decide.
fn pattern(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    for segment in name.split('.') {
        if is_number(segment) { "*" } else { segment }.hash(&mut hasher);
    }
    hasher.finish()
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn is_number(segment: &str) -> bool {
    !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hf_mem_core::model::Dtype;
    use hf_mem_core::model::safetensors::{Header, Tensor};
    use hf_mem_core::model::weight_files::WeightMap;

    fn weight_map<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> WeightMap {
        WeightMap::collect(pairs).expect("names")
    }

    /// Six files of a layer each; `width` returns the width of a layer.
    struct Repository {
        files: Vec<WeightFile>,
        index: Index,
        headers: Vec<Header>,
        totals: BTreeMap<String, u64>,
    }

    fn repository(width: impl Fn(usize) -> u64) -> Repository {
        let (mut files, mut headers, mut names) = (Vec::new(), Vec::new(), Vec::new());
        let (mut total, mut elements) = (0, 0);

        for layer in 0..6 {
            let path = format!("model-{layer}.safetensors");
            let name = format!("model.layers.{layer}.w");
            let bytes = width(layer) * 2 * 100;
            let json = format!(
                r#"{{"__metadata__":{{"format":"pt"}},"{name}":{{"dtype":"BF16","shape":[100,{}],"data_offsets":[0,{bytes}]}}}}"#,
                width(layer)
            );
            headers.push(
                hf_mem_core::model::safetensors::parse(json.as_bytes(), Some(bytes))
                    .expect("a header"),
            );
            let length = 8 + (json.len() as u64).next_multiple_of(8) + bytes;

            files.push(WeightFile {
                path: path.clone(),
                component: String::new(),
                bytes: Some(length),
            });

            names.push((name, path));
            total += bytes;
            elements += width(layer) * 100;
        }

        let weight_map = weight_map(
            names
                .iter()
                .map(|(name, path)| (name.as_str(), path.as_str())),
        );
        let index = Index {
            total_bytes: Some(total),
            weight_map,
        };

        Repository {
            files,
            index,
            headers,
            totals: BTreeMap::from([("BF16".into(), elements)]),
        }
    }

    impl Repository {
        fn inferred(&self) -> Option<ReadWeights> {
            let kinds = HeaderKinds::new(&self.index);
            assert_eq!(sample(&self.files, &self.index, &kinds)?, [0]);
            let (file, header) = (&self.files[0], &self.headers[0]);
            let (mut builder, mut examples) = (InventoryBuilder::default(), Examples::default());
            header.add_to(&file.component, &mut builder);

            for tensor in &header.tensors {
                let Tensor {
                    name,
                    storage,
                    shape,
                    bytes,
                } = tensor;

                let entry = TensorEntry {
                    name,
                    storage: storage.clone(),
                    shape,
                    bytes: *bytes,
                    begin: 0,
                };

                examples.add(&entry, &self.index, &kinds)?;
            }

            let files = BTreeSet::from([file.path.clone()]);
            let read = Sample {
                files,
                builder,
                examples: Some(examples),
                has_warnings: !header.warnings.is_empty(),
            };

            infer(&self.files, &self.index, &kinds, Some(&self.totals), read)
        }
    }

    #[test]
    fn equal_layers_are_inferred_from_one() {
        let repository = repository(|_| 50);
        let weights = repository.inferred().expect("inferred");
        assert_eq!(weights.evidence, Evidence::Inferred { read: 1, of: 6 });
        assert_eq!(weights.inventory.bytes(), Bytes::new(6 * 10_000));
        assert_eq!(weights.inventory.classes[0].dtype(), Some(Dtype::BF16));
    }

    #[test]
    fn any_contradiction_prevents_inference() {
        assert!(
            repository(|layer| if layer == 3 { 49 } else { 50 })
                .inferred()
                .is_none()
        );

        let mut other = repository(|_| 50);
        other.index.total_bytes = Some(60_001);
        assert!(other.inferred().is_none());
        let mut other = repository(|_| 50);
        other.totals.insert("F32".into(), 1);
        assert!(other.inferred().is_none());
        let mut other = repository(|_| 50);
        other.files[5].bytes = other.files[5].bytes.map(|bytes| bytes + 1000);
        assert!(other.inferred().is_none());
        let mut other = repository(|_| 50);
        other.index.total_bytes = None;
        assert!(sample(&other.files, &other.index, &HeaderKinds::new(&other.index)).is_none());
    }

    #[test]
    fn header_length_follows_from_tensors() {
        let tensor = r#""a":{"dtype":"F32","shape":[3,40],"data_offsets":[0,480]},"#;
        let mut predicted = PredictedFile::default();
        predicted.add("a", "F32", &[3, 40], Bytes::new(480));

        assert_eq!(
            predicted.header + offset_digits(predicted.sizes.iter()),
            tensor.len() as u64
        );
        assert!(predicted.fits(8 + 480 + tensor.len() as u64).is_some());
        assert!(predicted.fits(8 + 480 + tensor.len() as u64 - 1).is_none());
    }

    #[test]
    fn layers_with_other_names_differ_in_kind() {
        let names = [
            "l.0.w",
            "l.1.w",
            "l.1.w_scale",
            "l.2.w",
            "l.2.w_scale",
            "head",
        ];
        let index = Index {
            total_bytes: None,
            weight_map: weight_map(names.map(|name| (name, "f"))),
        };

        let kinds = HeaderKinds::new(&index);
        assert_eq!(kinds.kind_of("l.1.w"), kinds.kind_of("l.2.w"));
        assert_ne!(kinds.kind_of("l.0.w"), kinds.kind_of("l.1.w"));

        assert_eq!(
            (layer("model.layers.17.mlp.3.w"), layer("head")),
            ("model.layers.17", "")
        );
    }

    /// Two layers that differ by the same amount in opposite directions keep every total. The
    /// lengths of their files reveal them.
    #[test]
    fn compensating_differences_show_in_lengths() {
        let odd = repository(|layer| match layer {
            3 => 40,
            4 => 60,
            _ => 50,
        });
        assert_eq!(odd.index.total_bytes, Some(60_000));
        assert!(odd.inferred().is_none());
    }
}
