//! One model among the GGUF files of a repository: splits joined, projectors apart, picked by path or quantisation.

use std::collections::BTreeMap;

use super::{Choice, ChoiceError, Listing, WeightFile};
use crate::model::Format;

/// What llama.cpp's `-hf` takes where no quantisation is given (`common/arg.cpp`); else the first file.
const DEFAULT_QUANTISATION: &str = "Q4_K_M";
/// Names shown of files that could have been meant.
const MAX_CANDIDATES: usize = 12;

/// One model: its parts by number, and how many there must be.
#[derive(Debug, Default)]
struct Group {
    parts: BTreeMap<u32, String>,
    of: u32,
}

/// Chooses one model: `wanted` is a path of one of its files or the name of a quantisation.
pub(super) fn choose(listing: &Listing, wanted: Option<&str>) -> Result<Choice, ChoiceError> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    let mut projectors = Vec::new();
    for path in listing.keys().filter(|path| super::is_gguf(path)) {
        let name = super::folder::name_of(path).to_ascii_lowercase();
        if name.contains("mmproj") {
            projectors.push(path.clone());
        } else if !name.contains("imatrix") {
            let (stem, part, of) = split(path);
            let group = groups.entry(stem.to_owned()).or_default();
            group.of = group.of.max(of);
            group.parts.insert(part, path.clone());
        }
    }
    if let Some(path) = wanted.filter(|wanted| projectors.iter().any(|projector| projector == wanted)) {
        return Ok(found(listing, std::iter::once(path.to_owned()), Vec::new(), Vec::new()));
    }
    let (stem, notes) = match wanted {
        Some(wanted) => (by_name(&groups, wanted)?, Vec::new()),
        None => by_default(&groups)?,
    };
    let Some(group) = groups.get(&stem) else { return Err(ChoiceError::NoWeights(String::new())) };
    if let Some(absent) = (1..=group.of).find(|part| !group.parts.contains_key(part)) {
        let by = group.parts.values().next().cloned().unwrap_or_default();
        return Err(ChoiceError::Incomplete { by, file: format!("{stem}-{absent:05}-of-{:05}.gguf", group.of) });
    }
    Ok(found(listing, group.parts.values().cloned(), projectors, notes))
}

fn found(
    listing: &Listing,
    paths: impl Iterator<Item = String>,
    projectors: Vec<String>,
    notes: Vec<String>,
) -> Choice {
    let file = |path: String| {
        let bytes = listing.get(&path).copied().flatten();
        WeightFile { path, component: String::new(), bytes }
    };
    Choice { projectors, ..Choice::of(Format::Gguf, paths.map(file).collect(), notes) }
}

/// Stem, part and number of parts: `a-00002-of-00003.gguf` is (`a`, 2, 3), a file that is not split (stem, 1, 1).
fn split(path: &str) -> (&str, u32, u32) {
    let stem = path.get(..path.len().saturating_sub(".gguf".len())).unwrap_or(path);
    let parse = || {
        let (rest, of) = stem.rsplit_once("-of-")?;
        let (name, part) = rest.rsplit_once('-')?;
        let number = |text: &str| (text.len() == 5).then(|| text.parse::<u32>().ok()).flatten();
        let (part, of) = (number(part)?, number(of)?);
        (1..=of).contains(&part).then_some((name, part, of))
    };
    parse().unwrap_or((stem, 1, 1))
}

/// By the path of one of its files, or by a quantisation that ends its name.
fn by_name(groups: &BTreeMap<String, Group>, wanted: &str) -> Result<String, ChoiceError> {
    if let Some((stem, _)) = groups.iter().find(|(_, group)| group.parts.values().any(|path| path == wanted)) {
        return Ok(stem.clone());
    }
    let matching: Vec<String> = groups.keys().filter(|stem| ends_in(stem, wanted)).cloned().collect();
    match matching.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(ChoiceError::NoSuchFile { file: wanted.into(), candidates: shown(groups.keys()) }),
        // `Q4_K_XL` and `UD-Q4_K_XL`: the one that is not the end of a longer word.
        several => Err(ChoiceError::Ambiguous { file: wanted.into(), candidates: shown(several.iter()) }),
    }
}

fn by_default(groups: &BTreeMap<String, Group>) -> Result<(String, Vec<String>), ChoiceError> {
    let Some(first) = groups.keys().next() else { return Err(ChoiceError::NoWeights(String::new())) };
    if groups.len() == 1 {
        return Ok((first.clone(), Vec::new()));
    }
    let preferred = groups.keys().find(|stem| ends_in(stem, DEFAULT_QUANTISATION)).unwrap_or(first);
    let note =
        format!("{preferred} is counted, of {} GGUF models in this repository; choose with --file", groups.len());
    Ok((preferred.clone(), vec![note]))
}

/// Whether the stem's last word is `wanted`, in any case.
fn ends_in(stem: &str, wanted: &str) -> bool {
    let (stem, wanted) = (stem.to_ascii_lowercase(), wanted.to_ascii_lowercase());
    stem.strip_suffix(&wanted).is_some_and(|before| before.is_empty() || before.ends_with(['-', '.', '_', '/']))
}

fn shown<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    names.take(MAX_CANDIDATES).cloned().collect()
}
