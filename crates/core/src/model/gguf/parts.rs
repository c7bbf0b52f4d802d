//! Split files (`name-00002-of-00009.gguf`).
//!
//! Each part has its own header. The first part has the metadata.

use super::cursor::Stop;
use super::metadata::{Metadata, Value};
use super::{FilePart, Gguf, GgufError};
use crate::model::tensors::{Inventory, InventoryBuilder};

/// Maximum number of parts. The largest published split has about 1,800.
const MAX_PARTS: u32 = 65_535;

/// The name of a part of a split file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartName<'n> {
    /// The text that all parts share, before `-00001-of-00009`.
    pub stem: &'n str,
    /// The part's index, from 0.
    pub index: u32,
    /// Number of parts.
    pub count: u32,
}

impl<'n> PartName<'n> {
    /// Parses `stem-NNNNN-of-MMMMM.gguf`, with or without folders before it.
    ///
    /// Returns `None` for other names.
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

    /// Returns the names of all parts in order.
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

/// Returns a count that is stored as any non-negative integer.
fn read_count(metadata: &Metadata, key: &str) -> Result<Option<u64>, GgufError> {
    match metadata.get(key) {
        None => Ok(None),
        Some(Value::Unsigned(value)) => Ok(Some(*value)),
        Some(Value::Signed(value)) if *value >= 0 => Ok(Some(value.unsigned_abs())),
        Some(other) => Err(GgufError::Metadata {
            key: key.to_owned(),
            why: format!("{other:?} is not a count"),
        }),
    }
}

/// Reads the keys `split.*`. Returns `None` for a file that is not split.
pub(super) fn read_part(metadata: &Metadata) -> Result<Option<FilePart>, Stop> {
    let count = read_count(metadata, "split.count")?;
    let index = read_count(metadata, "split.no")?.unwrap_or(0);
    let tensors = read_count(metadata, "split.tensors.count")?;

    let Some(count) = count.filter(|count| *count > 1) else {
        return Ok(None);
    };

    match (u32::try_from(index), u32::try_from(count)) {
        (Ok(index), Ok(count)) if count <= MAX_PARTS && index < count => Ok(Some(FilePart {
            index,
            count,
            tensors,
        })),
        _ => Err(GgufError::Metadata {
            key: "split.no".to_owned(),
            why: format!("part {index} (counted from 0) of {count}"),
        }
        .into()),
    }
}

/// Joins all parts of a split file. They can be in any order.
pub fn combine(mut parts: Vec<Gguf>) -> Result<Gguf, GgufError> {
    parts.sort_by_key(|gguf| gguf.part.map_or(0, |part| part.index));
    let given = parts.len();
    let (count, tensors) = match parts.first().map(|gguf| gguf.part) {
        None => return Err(no_parts()),
        Some(None) if given == 1 => return parts.pop().ok_or_else(no_parts),
        Some(None) => {
            return Err(GgufError::Parts(format!(
                "one of the {given} files is not split"
            )));
        }
        Some(Some(part)) => (part.count, part.tensors),
    };

    for (index, gguf) in parts.iter().enumerate() {
        match gguf.part {
            Some(part) if part.count == count && part.index as usize == index => {}
            Some(part) => {
                let (found, found_count) = (part.index + 1, part.count);
                return Err(GgufError::Parts(format!(
                    "part {} of {count} is missing; found {found} of {found_count} instead",
                    index + 1
                )));
            }
            None => return Err(GgufError::Parts("one of them is not split".to_owned())),
        }
    }

    if given != count as usize {
        return Err(GgufError::Parts(format!(
            "{given} of {count} parts were given"
        )));
    }

    let mut rest = parts.into_iter();
    let Some(mut whole) = rest.next() else {
        return Err(no_parts());
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

fn no_parts() -> GgufError {
    GgufError::Parts("there are none".to_owned())
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
