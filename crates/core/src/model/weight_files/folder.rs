//! The choice of the weights directly in one folder.
//!
//! The index determines them. Without an index they are the plain files, never copies or variants.

use std::collections::BTreeSet;

use super::{ChoiceError, Documents, Listing, WeightFile};
use crate::model::Format;

/// The index of pickled shards.
pub(super) const BIN_INDEX: &str = "pytorch_model.bin.index.json";
/// The indices of safetensors shards: transformers' first, then diffusers'.
const INDICES: [&str; 2] = [
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors.index.json",
];
/// File names that loaders prefer to other files.
const CANONICAL_NAMES: [&str; 4] = [
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.bin",
];
/// Pickles that are not weights.
const NOT_WEIGHTS: [&str; 6] = [
    "training_args.bin",
    "optimizer.bin",
    "scheduler.bin",
    "random_states.bin",
    "rng_state.pth",
    "optimizer.pt",
];

/// The weights of one folder.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) format: Format,
    pub(super) files: Vec<WeightFile>,
    pub(super) notes: Vec<String>,
}

/// Chooses among the files directly in `folder`, which is empty for the root.
///
/// Returns `None` if the folder has no weights.
pub(super) fn choose(
    listing: &Listing,
    documents: &Documents,
    folder: &str,
) -> Result<Option<Folder>, ChoiceError> {
    let safetensors = choose_safetensors(listing, documents, folder)?;
    let (format, chosen) = match safetensors {
        Some(chosen) => (Format::Safetensors, chosen),
        None => match choose_pickles(listing, documents, folder)? {
            Some(chosen) => (Format::PytorchBin, chosen),
            None => return Ok(None),
        },
    };

    let files = chosen.paths.into_iter().map(|path| WeightFile {
        bytes: listing.get(&path).copied().flatten(),
        path,
        component: folder.into(),
    });
    Ok(Some(Folder {
        format,
        files: files.collect(),
        notes: chosen.notes,
    }))
}

/// Chosen paths of one format.
struct ChosenPaths {
    paths: Vec<String>,
    notes: Vec<String>,
}

impl ChosenPaths {
    fn without_notes(paths: Vec<String>) -> Self {
        Self {
            paths,
            notes: Vec::new(),
        }
    }
}

fn choose_safetensors(
    listing: &Listing,
    documents: &Documents,
    folder: &str,
) -> Result<Option<ChosenPaths>, ChoiceError> {
    for index in INDICES {
        if let Some(paths) = by_index(listing, documents, &within(folder, index))? {
            return Ok(Some(ChosenPaths::without_notes(paths)));
        }
    }

    let (copies, plain): (Vec<_>, Vec<_>) = paths_ending(listing, folder, ".safetensors")
        .filter(|path| !name_of(path).starts_with("adapter_"))
        .partition(|path| name_of(path).starts_with("consolidated"));
    if let Some(chosen) = without_variants(plain) {
        return Ok(Some(chosen));
    }

    Ok((!copies.is_empty()).then(|| ChosenPaths {
        paths: copies,
        notes: vec!["only Mistral's consolidated files are there".into()],
    }))
}

fn choose_pickles(
    listing: &Listing,
    documents: &Documents,
    folder: &str,
) -> Result<Option<ChosenPaths>, ChoiceError> {
    if let Some(paths) = by_index(listing, documents, &within(folder, BIN_INDEX))? {
        return Ok(Some(ChosenPaths::without_notes(paths)));
    }

    let bins = paths_ending(listing, folder, ".bin")
        .filter(|path| is_pickled_weights(name_of(path)))
        .collect();
    if let Some(chosen) = without_variants(bins) {
        return Ok(Some(chosen));
    }

    let pickles = paths_ending(listing, folder, ".pt")
        .chain(paths_ending(listing, folder, ".pth"))
        .filter(|path| !NOT_WEIGHTS.contains(&name_of(path)))
        .collect();
    Ok(without_variants(pickles))
}

/// Returns the paths directly in `folder` that end in `ending`.
fn paths_ending(listing: &Listing, folder: &str, ending: &str) -> impl Iterator<Item = String> {
    listing
        .keys()
        .filter(move |path| is_directly_in(path, folder) && path.ends_with(ending))
        .cloned()
}

/// Returns the files that an index names, each once. Returns `None` if the index is absent.
fn by_index(
    listing: &Listing,
    documents: &Documents,
    path: &str,
) -> Result<Option<Vec<String>>, ChoiceError> {
    let Some(index) = documents.indices.get(path) else {
        return Ok(None);
    };

    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let names = index.weight_map.files();
    if names.is_empty() {
        return Err(ChoiceError::BadDocument {
            path: path.into(),
            why: "its weight_map names no file".into(),
        });
    }

    let mut paths = Vec::with_capacity(names.len());
    for name in names {
        let file = within(folder, name);
        if !listing.contains_key(&file) {
            return Err(ChoiceError::Incomplete {
                by: path.into(),
                file,
            });
        }
        paths.push(file);
    }

    Ok(Some(paths))
}

/// Drops variants such as `model.fp16.safetensors` if there are plain files.
///
/// Without plain files, chooses the first variant by name.
fn without_variants(paths: Vec<String>) -> Option<ChosenPaths> {
    let (variants, plain): (Vec<_>, Vec<_>) = paths
        .into_iter()
        .partition(|path| variant(name_of(path)).is_some());
    if plain.is_empty() {
        let label = variants
            .iter()
            .filter_map(|path| variant(name_of(path)))
            .min()?
            .to_owned();
        let paths: Vec<_> = variants
            .into_iter()
            .filter(|path| variant(name_of(path)) == Some(label.as_str()))
            .collect();
        return Some(ChosenPaths {
            paths,
            notes: vec![format!("only variants are there; {label} is counted")],
        });
    }

    // Loaders prefer the file with the canonical name to shards of the same weights.
    let canonical = plain
        .iter()
        .find(|path| CANONICAL_NAMES.contains(&name_of(path)));
    let paths = match canonical {
        Some(canonical)
            if plain
                .iter()
                .all(|path| path == canonical || name_of(path).contains("-of-")) =>
        {
            vec![canonical.clone()]
        }
        _ => plain,
    };

    Some(ChosenPaths::without_notes(paths))
}

/// Returns the variant in a name.
///
/// It is `fp16` in both `model.fp16.safetensors` and `model.fp16-00001-of-00002.safetensors`.
fn variant(name: &str) -> Option<&str> {
    let stem = name.rsplit_once('.')?.0;
    let (_, variant) = stem.split_once('.')?;
    let word = variant.split('-').next()?;

    // A version number in a name (`sd_xl_base_1.0.safetensors`) is not a variant.
    (!word.is_empty() && !word.starts_with(|c: char| c.is_ascii_digit())).then_some(word)
}

fn is_pickled_weights(name: &str) -> bool {
    !NOT_WEIGHTS.contains(&name)
        && !name.starts_with("adapter_")
        && !name.starts_with("rng_state")
        && (name.starts_with("pytorch_model")
            || name.starts_with("diffusion_pytorch_model")
            || name.starts_with("model"))
}

/// Returns whether the safetensors files of `folder` are exactly the parts of one split.
///
/// Variants do not count. The folder's index then names these files and no others.
pub(super) fn is_whole_split(listing: &Listing, folder: &str) -> bool {
    let inside = listing
        .keys()
        .filter(|path| is_directly_in(path, folder) && path.ends_with(".safetensors"));
    let mut parts = inside
        .map(|path| name_of(path))
        .filter(|name| variant(name).is_none())
        .map(parse_part)
        .peekable();

    let Some(Some((stem, _, count))) = parts.peek().copied() else {
        return false;
    };

    let mut numbers = BTreeSet::new();
    for part in parts {
        match part {
            Some((other_stem, number, other_count))
                if (other_stem, other_count) == (stem, count) =>
            {
                numbers.insert(number)
            }
            _ => return false,
        };
    }

    numbers.iter().copied().eq(1..=count)
}

/// Returns stem, number and count of a name such as `model-00001-of-00003.safetensors`.
fn parse_part(name: &str) -> Option<(&str, u32, u32)> {
    let (rest, count) = name.strip_suffix(".safetensors")?.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let five_digits = |text: &str| (text.len() == 5).then(|| text.parse().ok()).flatten();
    Some((stem, five_digits(number)?, five_digits(count)?))
}

/// Returns whether `path` is in `folder` and in none of its subfolders.
pub(super) fn is_directly_in(path: &str, folder: &str) -> bool {
    path.rsplit_once('/').map_or("", |(parent, _)| parent) == folder
}

/// Returns whether `path` is a component's configuration.
pub(super) fn is_config(path: &str) -> bool {
    name_of(path) == "config.json"
}

/// Returns whether `path` is an index that [`choose`] looks for.
pub(super) fn is_index(path: &str) -> bool {
    INDICES.contains(&name_of(path)) || name_of(path) == BIN_INDEX
}

/// Returns the path of `name` in `folder`.
pub(super) fn within(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.into()
    } else {
        format!("{folder}/{name}")
    }
}

/// Returns the last part of a path.
pub(super) fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
