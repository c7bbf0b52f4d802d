//! Split files: `name-00002-of-00009.gguf`, each with its own header; the first holds the metadata.

use super::cursor::Stop;
use super::metadata::{Metadata, Value};
use super::{FilePart, Gguf, GgufError};
use crate::model::tensors::{Inventory, InventoryBuilder};

/// Nobody splits into more; the largest published split has about 1,800 parts.
const MAX_PARTS: u64 = 65_535;

/// A file name that belongs to a split file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartName<'n> {
    /// What all parts share, before `-00001-of-00009`.
    pub stem: &'n str,
    /// Counted from 0.
    pub index: u32,
    /// All parts.
    pub count: u32,
}

impl<'n> PartName<'n> {
    /// Reads `stem-NNNNN-of-MMMMM.gguf` (with or without folders before it); `None` for other
    /// names.
    pub fn read(name: &'n str) -> Option<Self> {
        let rest = name.strip_suffix(".gguf")?;
        let (rest, count) = rest.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let (number, count) = (five_digits(number)?, five_digits(count)?);

        (1..=count).contains(&number).then(|| Self {
            stem,
            index: number - 1,
            count,
        })
    }

    /// The names of all parts, in order.
    pub fn all(&self) -> impl Iterator<Item = String> + use<'n> {
        let Self { stem, count, .. } = *self;
        (1..=count).map(move |number| format!("{stem}-{number:05}-of-{count:05}.gguf"))
    }
}

fn five_digits(text: &str) -> Option<u32> {
    (text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

/// What `split.*` says; `None` for a file that is not split.
pub(super) fn part(metadata: &Metadata) -> Result<Option<FilePart>, Stop> {
    let number = |key: &str| match metadata.get(key) {
        None => Ok(None),
        Some(Value::Unsigned(value)) => Ok(Some(*value)),
        Some(Value::Signed(value)) if *value >= 0 => Ok(Some(value.unsigned_abs())),
        Some(other) => Err(GgufError::Metadata {
            key: key.to_owned(),
            why: format!("{other:?} is no count"),
        }),
    };

    let (count, index) = (number("split.count")?, number("split.no")?);
    let tensors = number("split.tensors.count")?;

    match (count, index) {
        (None | Some(0 | 1), _) => Ok(None),
        (Some(count), index) => {
            let index = index.unwrap_or(0);
            if count > MAX_PARTS || index >= count {
                let why = format!("part {index} (counted from 0) of {count}");
                return Err(GgufError::Metadata {
                    key: "split.no".to_owned(),
                    why,
                }
                .into());
            }
            // Both fit: count is at most 65,535.
            let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
            Ok(Some(FilePart {
                index: small(index),
                count: small(count),
                tensors,
            }))
        }
    }
}

/// Joins all parts of a split file, given in any order.
pub fn combine(mut parts: Vec<Gguf>) -> Result<Gguf, GgufError> {
    let wrong = |why: String| Err(GgufError::Parts(why));
    parts.sort_by_key(|gguf| gguf.part.map_or(0, |part| part.index));
    let given = parts.len();
    let (count, tensors) = match parts.first().map(|gguf| gguf.part) {
        None => return wrong("there are none".to_owned()),
        Some(None) if given == 1 => {
            return parts
                .pop()
                .ok_or_else(|| GgufError::Parts("there are none".to_owned()));
        }
        Some(None) => return wrong(format!("{given} files, of which one is whole by itself")),
        Some(Some(part)) => (part.count, part.tensors),
    };

    for (index, gguf) in parts.iter().enumerate() {
        match gguf.part {
            Some(part) if part.count == count && part.index as usize == index => {}
            Some(part) => {
                let (number, of) = (part.index + 1, part.count);
                return wrong(format!(
                    "part {} of {count} is missing; found {number} of {of} instead",
                    index + 1
                ));
            }
            None => return wrong("one of them is whole by itself".to_owned()),
        }
    }

    if given != count as usize {
        return wrong(format!("{given} of {count} parts were given"));
    }

    let mut rest = parts.into_iter();
    let Some(mut whole) = rest.next() else {
        return wrong("there are none".to_owned());
    };

    let mut inventories = vec![std::mem::take(&mut whole.inventory)];
    for gguf in rest {
        whole.header_bytes = whole.header_bytes.saturating_add(gguf.header_bytes);
        whole.data_bytes += gguf.data_bytes;
        whole.table.bytes = whole.table.bytes.saturating_add(gguf.table.bytes);

        for unknown in gguf.unknown_types {
            match whole
                .unknown_types
                .iter_mut()
                .find(|known| known.id == unknown.id)
            {
                Some(known) => known.tensors = known.tensors.saturating_add(unknown.tensors),
                None => whole.unknown_types.push(unknown),
            }
        }

        inventories.push(gguf.inventory);
    }

    whole.inventory = InventoryBuilder::join(inventories);
    whole.part = None;
    check_count(&whole.inventory, tensors)?;

    Ok(whole)
}

fn check_count(inventory: &Inventory, declared: Option<u64>) -> Result<(), GgufError> {
    match declared {
        Some(declared) if declared != inventory.tensors() => {
            let found = inventory.tensors();
            Err(GgufError::Parts(format!(
                "split.tensors.count is {declared}, their tables list {found}"
            )))
        }
        _ => Ok(()),
    }
}
