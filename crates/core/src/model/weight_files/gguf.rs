//! The GGUF models of a repository: splits joined, projectors apart, picked by path or
//! quantisation.

use std::collections::{BTreeMap, BTreeSet};

use super::folder::name_of;
use super::{Choice, ChoiceError, Listing, WeightFile};
use crate::model::Format;
use crate::model::gguf::quantisation;

/// What llama.cpp's `-hf` takes where no quantisation is given, in this order (`find_best_model`);
/// else the first file.
const DEFAULT_QUANTISATIONS: [&str; 2] = ["Q4_K_M", "Q8_0"];
/// In the names of draft models, which `-hf` never takes for the model (`gguf_filename_is_model`).
const DRAFTS: [&str; 4] = ["mtp-", "eagle3-", "dflash-", "dspark-"];
/// Names shown of files that could have been meant.
const MAX_CANDIDATES: usize = 12;

/// One model: its parts by number, and how many there must be.
#[derive(Debug, Default)]
struct Group {
    parts: BTreeMap<u32, String>,
    of: u32,
    /// It guesses tokens for another model.
    draft: bool,
}

impl Group {
    fn absent_part(&self) -> Option<u32> {
        (1..=self.of).find(|part| !self.parts.contains_key(part))
    }
}

/// The models by stem, and the projectors beside them.
struct Sorted {
    groups: BTreeMap<String, Group>,
    projectors: Vec<String>,
}

fn sorted(listing: &Listing) -> Sorted {
    let (mut groups, mut projectors) = (BTreeMap::<String, Group>::new(), Vec::new());
    for path in listing.keys().filter(|path| super::is_gguf(path)) {
        let name = name_of(path).to_ascii_lowercase();
        if name.contains("mmproj") {
            projectors.push(path.clone());
        } else if !name.contains("imatrix") {
            let (stem, part, of) = split(path);
            let group = groups.entry(stem.to_owned()).or_default();
            group.of = group.of.max(of);
            group.draft = DRAFTS.iter().any(|draft| name_of(path).contains(draft));
            group.parts.insert(part, path.clone());
        }
    }

    Sorted { groups, projectors }
}

/// Chooses one model: `wanted` is a path of one of its files or the name of a quantisation. Where
/// nothing is wanted the other whole models of the repository are named with it.
pub(super) fn choose(listing: &Listing, wanted: Option<&str>) -> Result<Choice, ChoiceError> {
    let Sorted { groups, projectors } = sorted(listing);
    if let Some(path) =
        wanted.filter(|wanted| projectors.iter().any(|projector| projector == wanted))
    {
        let file = std::iter::once(weight_file(listing, path)).collect();
        return Ok(Choice::of(Format::Gguf, file, Vec::new()));
    }

    let (stem, notes) = match wanted {
        Some(wanted) => (by_name(&groups, wanted)?, Vec::new()),
        None => by_default(&groups)?,
    };

    let Some(group) = groups.get(&stem) else {
        return Err(ChoiceError::NoWeights(String::new()));
    };

    if let Some(absent) = group.absent_part() {
        let by = group.parts.values().next().cloned().unwrap_or_default();
        return Err(ChoiceError::Incomplete {
            by,
            file: format!("{stem}-{absent:05}-of-{:05}.gguf", group.of),
        });
    }

    let files = |group: &Group| {
        group
            .parts
            .values()
            .map(|path| weight_file(listing, path))
            .collect::<Vec<_>>()
    };

    let another = |(other, it): &(&String, &Group)| {
        **other != stem && !it.draft && it.absent_part().is_none()
    };

    let others = match wanted {
        Some(_) => Vec::new(),
        None => groups
            .iter()
            .filter(another)
            .map(|(_, it)| files(it))
            .collect(),
    };

    Ok(Choice {
        projectors,
        others,
        ..Choice::of(Format::Gguf, files(group), notes)
    })
}

fn weight_file(listing: &Listing, path: &str) -> WeightFile {
    WeightFile {
        path: path.to_owned(),
        component: String::new(),
        bytes: listing.get(path).copied().flatten(),
    }
}

/// Stem, part and number of parts: `a-00002-of-00003.gguf` is (`a`, 2, 3), a file that is not split
/// (stem, 1, 1).
fn split(path: &str) -> (&str, u32, u32) {
    let stem = path
        .get(..path.len().saturating_sub(".gguf".len()))
        .unwrap_or(path);
    let parse = || {
        let (rest, of) = stem.rsplit_once("-of-")?;
        let (name, part) = rest.rsplit_once('-')?;

        let number = |text: &str| {
            (text.len() == 5)
                .then(|| text.parse::<u32>().ok())
                .flatten()
        };

        let (part, of) = (number(part)?, number(of)?);
        (1..=of).contains(&part).then_some((name, part, of))
    };

    parse().unwrap_or((stem, 1, 1))
}

/// Whether a model, by its stem and its parts, is meant.
type Sense<'a> = &'a dyn Fn(&str, &Group) -> bool;

/// By the path of one of its files, else by what its name says of it: the firmest sense in which
/// any name is meant, and of that sense the only one.
fn by_name(groups: &BTreeMap<String, Group>, wanted: &str) -> Result<String, ChoiceError> {
    let path =
        |group: &Group, same: &dyn Fn(&str) -> bool| group.parts.values().any(|path| same(path));
    let senses: [Sense<'_>; 4] = [
        &|_, group| path(group, &|path| path == wanted),
        &|_, group| path(group, &|path| path.eq_ignore_ascii_case(wanted)),
        // `Q4_K_M` is not `UD-Q4_K_M`, which ends in it.
        &|stem, _| quantisation(stem).is_some_and(|label| label.eq_ignore_ascii_case(wanted)),
        &|stem, _| ends_in(stem, wanted),
    ];

    for sense in senses {
        let meant: Vec<&String> = groups
            .iter()
            .filter(|(stem, group)| sense(stem, group))
            .map(|(stem, _)| stem)
            .collect();
        match meant.as_slice() {
            [] => {}
            [one] => return Ok((*one).clone()),
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
        candidates: nearest(groups, wanted),
    })
}

fn first_path(groups: &BTreeMap<String, Group>, stem: &str) -> String {
    groups
        .get(stem)
        .and_then(|group| group.parts.values().next())
        .cloned()
        .unwrap_or_else(|| stem.to_owned())
}

/// What could have been meant, nearest first: quantisations where all names have different ones,
/// else names.
fn nearest(groups: &BTreeMap<String, Group>, wanted: &str) -> Vec<String> {
    let labels: Vec<String> = groups
        .keys()
        .filter_map(|stem| quantisation(stem))
        .collect();
    let told_apart = labels.len() == groups.len()
        && labels.iter().collect::<BTreeSet<_>>().len() == labels.len();
    let mut names = if told_apart {
        labels
    } else {
        groups.keys().map(|stem| first_path(groups, stem)).collect()
    };

    let wanted = wanted.to_ascii_lowercase();
    let likeness = |name: &String| strsim::jaro_winkler(&name.to_ascii_lowercase(), &wanted);
    names.sort_by(|left, right| likeness(right).total_cmp(&likeness(left)));
    names.truncate(MAX_CANDIDATES);

    names
}

fn by_default(groups: &BTreeMap<String, Group>) -> Result<(String, Vec<String>), ChoiceError> {
    let models: Vec<&String> = groups
        .iter()
        .filter(|(_, group)| !group.draft)
        .map(|(stem, _)| stem)
        .collect();
    let Some(first) = models.first().copied().or_else(|| groups.keys().next()) else {
        return Err(ChoiceError::NoWeights(String::new()));
    };

    if models.len() < 2 {
        return Ok((first.clone(), Vec::new()));
    }

    let labelled = |wanted: &&str| {
        models
            .iter()
            .copied()
            .find(|stem| quantisation(stem).as_deref() == Some(*wanted))
    };

    let ending = |wanted: &&str| models.iter().copied().find(|stem| ends_in(stem, wanted));
    let usual = DEFAULT_QUANTISATIONS
        .iter()
        .find_map(|wanted| labelled(wanted).or_else(|| ending(wanted)));
    let preferred = usual.unwrap_or(first);
    let note = format!(
        "{preferred} is counted, of {} GGUF models in this repository, as llama.cpp's -hf would take it; choose with --file",
        models.len()
    );

    Ok((preferred.clone(), vec![note]))
}

/// Whether the stem's last word is `wanted`, in any case.
fn ends_in(stem: &str, wanted: &str) -> bool {
    let (stem, wanted) = (stem.to_ascii_lowercase(), wanted.to_ascii_lowercase());
    stem.strip_suffix(&wanted)
        .is_some_and(|before| before.is_empty() || before.ends_with(['-', '.', '_', '/']))
}
