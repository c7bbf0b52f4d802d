//! The choice among the GGUF models of a repository, by path or quantization.
//!
//! The parts of a split are one model, and projectors are listed separately.

use std::collections::{BTreeMap, BTreeSet};

use super::folder::name_of;
use super::{Choice, ChoiceError, Listing, WeightFile};
use crate::model::Format;
use crate::model::gguf::quantization_label;

/// The quantizations that llama.cpp's `-hf` prefers, in this order (`find_best_model`).
///
/// Without them it loads the first file.
const DEFAULT_QUANTIZATIONS: [&str; 2] = ["Q4_K_M", "Q8_0"];
/// Words in the names of draft models, which `-hf` never loads as the model
/// (`gguf_filename_is_model`).
const DRAFTS: [&str; 4] = ["mtp-", "eagle3-", "dflash-", "dspark-"];
/// Maximum number of similar names in an error.
const MAX_CANDIDATES: usize = 12;

/// The files of one model.
#[derive(Debug, Default)]
struct Group {
    /// Paths by the number of the part.
    parts: BTreeMap<u32, String>,
    /// Number of parts that the names state.
    count: u32,
    /// Whether the model drafts tokens for another model.
    is_draft: bool,
}

impl Group {
    /// Returns the number of the first absent part.
    fn absent_part(&self) -> Option<u32> {
        (1..=self.count).find(|part| !self.parts.contains_key(part))
    }

    fn first_path(&self) -> Option<&String> {
        self.parts.values().next()
    }

    fn files(&self, listing: &Listing) -> Vec<WeightFile> {
        self.parts
            .values()
            .map(|path| weight_file(listing, path))
            .collect()
    }
}

/// The GGUF files of a repository.
struct GgufFiles {
    /// The models by stem.
    groups: BTreeMap<String, Group>,
    projectors: Vec<String>,
}

fn group_files(listing: &Listing) -> GgufFiles {
    let (mut groups, mut projectors) = (BTreeMap::<String, Group>::new(), Vec::new());
    for path in listing.keys().filter(|path| super::is_gguf(path)) {
        let name = name_of(path).to_ascii_lowercase();
        if name.contains("mmproj") {
            projectors.push(path.clone());
        } else if !name.contains("imatrix") {
            let (stem, part, count) = split_name(path);
            let group = groups.entry(stem.to_owned()).or_default();
            group.count = group.count.max(count);
            group.is_draft = DRAFTS.iter().any(|draft| name_of(path).contains(draft));
            group.parts.insert(part, path.clone());
        }
    }

    GgufFiles { groups, projectors }
}

/// Chooses one model. `wanted` is the path of one of its files or the name of a quantization.
///
/// If `wanted` is `None`, the choice also lists the other complete models of the repository.
pub(super) fn choose(listing: &Listing, wanted: Option<&str>) -> Result<Choice, ChoiceError> {
    let GgufFiles { groups, projectors } = group_files(listing);
    if let Some(path) =
        wanted.filter(|wanted| projectors.iter().any(|projector| projector == wanted))
    {
        let files = vec![weight_file(listing, path)];
        return Ok(Choice::new(Format::Gguf, files, Vec::new()));
    }

    let (stem, notes) = match wanted {
        Some(wanted) => (by_name(&groups, wanted)?, Vec::new()),
        None => by_default(&groups)?,
    };

    let Some(group) = groups.get(&stem) else {
        return Err(ChoiceError::NoWeights(String::new()));
    };

    if let Some(absent) = group.absent_part() {
        let by = group.first_path().cloned().unwrap_or_default();
        return Err(ChoiceError::Incomplete {
            by,
            file: format!("{stem}-{absent:05}-of-{:05}.gguf", group.count),
        });
    }

    let others = match wanted {
        Some(_) => Vec::new(),
        None => groups
            .iter()
            .filter(|(other_stem, other)| {
                **other_stem != stem && !other.is_draft && other.absent_part().is_none()
            })
            .map(|(_, other)| other.files(listing))
            .collect(),
    };

    Ok(Choice {
        projectors,
        others,
        ..Choice::new(Format::Gguf, group.files(listing), notes)
    })
}

fn weight_file(listing: &Listing, path: &str) -> WeightFile {
    WeightFile {
        path: path.to_owned(),
        component: String::new(),
        bytes: listing.get(path).copied().flatten(),
    }
}

/// Returns stem, part and number of parts.
///
/// They are (`a`, 2, 3) for `a-00002-of-00003.gguf`, and (stem, 1, 1) for a file that is not split.
fn split_name(path: &str) -> (&str, u32, u32) {
    let stem = path
        .get(..path.len().saturating_sub(".gguf".len()))
        .unwrap_or(path);
    parse_part(stem).unwrap_or((stem, 1, 1))
}

fn parse_part(stem: &str) -> Option<(&str, u32, u32)> {
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (name, part) = rest.rsplit_once('-')?;

    let five_digits = |text: &str| (text.len() == 5).then(|| text.parse().ok()).flatten();
    let (part, count): (u32, u32) = (five_digits(part)?, five_digits(count)?);
    (1..=count).contains(&part).then_some((name, part, count))
}

/// Returns whether the request matches a model, given its stem and its files.
type Matcher<'a> = &'a dyn Fn(&str, &Group) -> bool;

/// Returns the stem of the model that `wanted` names.
///
/// The matchers go from the strictest to the loosest. The first one that matches any model must
/// match exactly one.
fn by_name(groups: &BTreeMap<String, Group>, wanted: &str) -> Result<String, ChoiceError> {
    let matchers: [Matcher<'_>; 4] = [
        &|_, group| group.parts.values().any(|path| path == wanted),
        &|_, group| {
            let mut paths = group.parts.values();
            paths.any(|path| path.eq_ignore_ascii_case(wanted))
        },
        // `Q4_K_M` must not match `UD-Q4_K_M`, which ends in it.
        &|stem, _| quantization_label(stem).is_some_and(|label| label.eq_ignore_ascii_case(wanted)),
        &|stem, _| ends_in(stem, wanted),
    ];

    for is_match in matchers {
        let matching: Vec<&String> = groups
            .iter()
            .filter(|(stem, group)| is_match(stem, group))
            .map(|(stem, _)| stem)
            .collect();
        match matching.as_slice() {
            [] => {}
            [stem] => return Ok((*stem).clone()),
            several => {
                let candidates = several
                    .iter()
                    .take(MAX_CANDIDATES)
                    .map(|stem| first_path(groups, stem))
                    .collect();
                return Err(ChoiceError::Ambiguous {
                    file: wanted.into(),
                    candidates,
                });
            }
        }
    }

    Err(ChoiceError::NoSuchFile {
        file: wanted.into(),
        candidates: similar_names(groups, wanted),
    })
}

fn first_path(groups: &BTreeMap<String, Group>, stem: &str) -> String {
    groups
        .get(stem)
        .and_then(Group::first_path)
        .cloned()
        .unwrap_or_else(|| stem.to_owned())
}

/// Returns the most similar quantizations or names, the most similar first.
///
/// They are quantizations if every model has a different one, else names.
fn similar_names(groups: &BTreeMap<String, Group>, wanted: &str) -> Vec<String> {
    let labels: Vec<String> = groups
        .keys()
        .filter_map(|stem| quantization_label(stem))
        .collect();
    let are_distinct = labels.len() == groups.len()
        && labels.iter().collect::<BTreeSet<_>>().len() == labels.len();
    let mut names = if are_distinct {
        labels
    } else {
        groups.keys().map(|stem| first_path(groups, stem)).collect()
    };

    let wanted = wanted.to_ascii_lowercase();
    let similarity_of = |name: &String| strsim::jaro_winkler(&name.to_ascii_lowercase(), &wanted);
    names.sort_by(|left, right| similarity_of(right).total_cmp(&similarity_of(left)));
    names.truncate(MAX_CANDIDATES);

    names
}

/// Returns the stem of the model that llama.cpp's `-hf` loads, and remarks.
fn by_default(groups: &BTreeMap<String, Group>) -> Result<(String, Vec<String>), ChoiceError> {
    let models: Vec<&String> = groups
        .iter()
        .filter(|(_, group)| !group.is_draft)
        .map(|(stem, _)| stem)
        .collect();
    let Some(first) = models.first().copied().or_else(|| groups.keys().next()) else {
        return Err(ChoiceError::NoWeights(String::new()));
    };

    if models.len() < 2 {
        return Ok((first.clone(), Vec::new()));
    }

    let preferred = DEFAULT_QUANTIZATIONS.iter().find_map(|wanted| {
        let labeled = models
            .iter()
            .find(|stem| quantization_label(stem).as_deref() == Some(*wanted));
        labeled.or_else(|| models.iter().find(|stem| ends_in(stem, wanted)))
    });
    let preferred = preferred.copied().unwrap_or(first);
    let note = format!(
        "{preferred} is counted, of {} GGUF models in this repository, as llama.cpp's -hf would \
         take it; choose with --file",
        models.len()
    );

    Ok((preferred.clone(), vec![note]))
}

/// Returns whether the stem ends in the word `wanted`, in any case.
fn ends_in(stem: &str, wanted: &str) -> bool {
    let (stem, wanted) = (stem.to_ascii_lowercase(), wanted.to_ascii_lowercase());
    stem.strip_suffix(&wanted)
        .is_some_and(|before| before.is_empty() || before.ends_with(['-', '.', '_', '/']))
}
