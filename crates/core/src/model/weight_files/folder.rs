//! The weights that lie directly in one folder: by index, else the plain files, never copies or
//! variants of them.

use std::collections::BTreeSet;

use super::{ChoiceError, Documents, Listing, WeightFile};
use crate::model::Format;

/// The index of pickled shards.
pub(super) const BIN_INDEX: &str = "pytorch_model.bin.index.json";
/// Indices of safetensors shards, transformers' first, then diffusers'.
const INDICES: [&str; 2] = [
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors.index.json",
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

/// What one folder holds.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) format: Format,
    pub(super) files: Vec<WeightFile>,
    pub(super) notes: Vec<String>,
}

/// Chooses among the files directly in `folder` (empty for the root); `None` where there are no
/// weights in it.
pub(super) fn choose(
    listing: &Listing,
    documents: &Documents,
    folder: &str,
) -> Result<Option<Folder>, ChoiceError> {
    let found = |format, paths: Vec<String>, notes| {
        let file = |path: String| {
            let bytes = listing.get(&path).copied().flatten();
            WeightFile {
                path,
                component: folder.into(),
                bytes,
            }
        };

        Ok(Some(Folder {
            format,
            files: paths.into_iter().map(file).collect(),
            notes,
        }))
    };

    for index in INDICES {
        if let Some(paths) = by_index(listing, documents, &within(folder, index))? {
            return found(Format::Safetensors, paths, Vec::new());
        }
    }

    let inside: Vec<&String> = listing
        .keys()
        .filter(|path| is_directly_in(path, folder))
        .collect();
    let ending = |ending: &'static str| {
        inside
            .iter()
            .filter(move |path| path.ends_with(ending))
            .map(|&path| path.clone())
    };

    let (copies, plain): (Vec<_>, Vec<_>) = ending(".safetensors")
        .filter(|path| !name_of(path).starts_with("adapter_"))
        .partition(|path| name_of(path).starts_with("consolidated"));
    if let Some((paths, notes)) = without_variants(plain) {
        return found(Format::Safetensors, paths, notes);
    }

    if !copies.is_empty() {
        return found(
            Format::Safetensors,
            copies,
            vec!["only Mistral's consolidated files are there".into()],
        );
    }

    if let Some(paths) = by_index(listing, documents, &within(folder, BIN_INDEX))? {
        return found(Format::PytorchBin, paths, Vec::new());
    }

    let bins: Vec<_> = ending(".bin")
        .filter(|path| is_pickled_weights(name_of(path)))
        .collect();
    if let Some((paths, notes)) = without_variants(bins) {
        return found(Format::PytorchBin, paths, notes);
    }

    let pickles = ending(".pt")
        .chain(ending(".pth"))
        .filter(|path| !NOT_WEIGHTS.contains(&name_of(path)))
        .collect();

    match without_variants(pickles) {
        Some((paths, notes)) => found(Format::PytorchBin, paths, notes),
        None => Ok(None),
    }
}

/// The files that an index names, each once; `None` where there is no such index.
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

/// Drops variants (`model.fp16.safetensors`) where plain files are there; of variants alone takes
/// one.
fn without_variants(paths: Vec<String>) -> Option<(Vec<String>, Vec<String>)> {
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
        return Some((
            paths,
            vec![format!("only variants are there; {label} is counted")],
        ));
    }
    // The name that a loader asks for wins over other files beside it, as long as it is not one
    // shard of several.
    let canonical = |path: &&String| {
        [
            "model.safetensors",
            "diffusion_pytorch_model.safetensors",
            "pytorch_model.bin",
            "diffusion_pytorch_model.bin",
        ]
        .contains(&name_of(path))
    };

    let shard = |path: &String| name_of(path).contains("-of-");
    match plain.iter().find(canonical) {
        Some(one) if plain.iter().all(|path| path == one || shard(path)) => {
            Some((vec![one.clone()], Vec::new()))
        }
        _ => Some((plain, Vec::new())),
    }
}

/// The word between stem and ending: `fp16` of `model.fp16.safetensors` and of
/// `model.fp16-00001-of-00002.safetensors`.
fn variant(name: &str) -> Option<&str> {
    let stem = name.rsplit_once('.')?.0;
    let (_, variant) = stem.split_once('.')?;
    let word = variant.split('-').next()?;
    // A version number in a name (`sd_xl_base_1.0.safetensors`) is no variant.
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

/// Whether the safetensors files of `folder`, without their variants, are all parts of one split
/// and nothing else: then its index names these files and no others.
pub(super) fn is_whole_split(listing: &Listing, folder: &str) -> bool {
    let inside = listing
        .keys()
        .filter(|path| is_directly_in(path, folder) && path.ends_with(".safetensors"));
    let mut parts = inside
        .map(|path| name_of(path))
        .filter(|name| variant(name).is_none())
        .map(part)
        .peekable();

    let Some(Some((stem, _, of))) = parts.peek().copied() else {
        return false;
    };

    let mut numbers = BTreeSet::new();
    for part in parts {
        match part {
            Some((other, number, others)) if (other, others) == (stem, of) => {
                numbers.insert(number)
            }
            _ => return false,
        };
    }

    numbers.iter().copied().eq(1..=of)
}

/// Stem, number and count of `model-00001-of-00003.safetensors`.
fn part(name: &str) -> Option<(&str, u32, u32)> {
    let (rest, of) = name.strip_suffix(".safetensors")?.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let five_digits = |text: &str| (text.len() == 5).then(|| text.parse().ok()).flatten();
    Some((stem, five_digits(number)?, five_digits(of)?))
}

/// Whether `path` lies in `folder` and in none of its subfolders.
pub(super) fn is_directly_in(path: &str, folder: &str) -> bool {
    path.rsplit_once('/').map_or("", |(parent, _)| parent) == folder
}

/// Whether `path` is a component's configuration.
pub(super) fn is_config(path: &str) -> bool {
    name_of(path) == "config.json"
}

/// Whether `path` is an index that [`choose`] looks for.
pub(super) fn is_index(path: &str) -> bool {
    INDICES.contains(&name_of(path)) || name_of(path) == BIN_INDEX
}

/// `name` in `folder`.
pub(super) fn within(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.into()
    } else {
        format!("{folder}/{name}")
    }
}

/// The last part of a path.
pub(super) fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
