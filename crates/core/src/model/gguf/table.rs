//! The tensor table: names, shapes, types and offsets.
//!
//! The parser checks them against each other and folds them into an inventory.

use std::collections::BTreeMap;
use std::collections::HashSet;

use super::cursor::{Cursor, Stop, shown};
use super::metadata::{Metadata, Value};
use super::{GgufError, UnknownType};
use crate::bytes::Bytes;
use crate::model::dtype::Dtype;
use crate::model::tensors::{Inventory, InventoryBuilder, Storage};

/// Minimum bytes of a tensor info: name length 8, one byte of name, dimension count 4, type 4,
/// offset 8.
pub(super) const MIN_INFO_BYTES: u64 = 25;
/// Maximum length of a name.
///
/// ggml has room for 64 bytes (`GGML_MAX_NAME`), and some builds for image models for 128.
const MAX_NAME_BYTES: u64 = 256;
/// `GGML_MAX_DIMS`.
const MAX_DIMENSIONS: u32 = 4;
/// `GGUF_DEFAULT_ALIGNMENT`.
const DEFAULT_ALIGNMENT: u64 = 32;

/// The parsed tensor table.
#[derive(Debug)]
pub(super) struct TensorTable {
    pub(super) inventory: Inventory,
    pub(super) unknown_types: Vec<UnknownType>,
    pub(super) header_bytes: u64,
    pub(super) data_bytes: Bytes,
    pub(super) uncovered_bytes: u64,
}

/// The entry of one tensor.
#[derive(Debug)]
pub(super) struct Info<'p> {
    pub(super) name: &'p str,
    pub(super) shape: Vec<u64>,
    pub(super) type_id: u32,
    /// Stored bytes; `None` for an unknown type.
    pub(super) bytes: Option<u64>,
    pub(super) offset: u64,
}

fn bad(name: &[u8], why: impl Into<String>) -> Stop {
    GgufError::Tensor {
        name: shown(name),
        why: why.into(),
    }
    .into()
}

/// Reads `count` tensor infos and the padding after them.
pub(super) fn read(
    cursor: &mut Cursor<'_>,
    count: u64,
    metadata: &Metadata,
    file_bytes: Option<u64>,
) -> Result<TensorTable, Stop> {
    let alignment = alignment(metadata)?;
    let mut infos = read_infos(cursor, count, alignment)?;
    infos.sort_by_key(|info| info.offset);

    let header_bytes = cursor.position().next_multiple_of(alignment);
    let file_data = file_bytes.map(|bytes| bytes.saturating_sub(header_bytes));
    let mut builder = InventoryBuilder::default();
    let mut unknown: BTreeMap<u32, UnknownType> = BTreeMap::new();
    let (mut end, mut uncovered_bytes) = (0_u64, 0_u64);

    for (index, info) in infos.iter().enumerate() {
        let next_offset = infos.get(index + 1).map(|next| next.offset);
        let bytes = stored_bytes(info, next_offset.or(file_data))?;

        if info.offset < end {
            return Err(bad(
                info.name.as_bytes(),
                format!("offset {} lies inside the tensor before it", info.offset),
            ));
        }

        // Padding up to the next multiple of the alignment is no gap.
        let padded = padded(end, alignment);
        uncovered_bytes = uncovered_bytes.saturating_add(info.offset.saturating_sub(padded));
        end = info.offset.saturating_add(bytes);

        if info.bytes.is_none() {
            count_unknown(&mut unknown, info);
        }

        builder.add(
            "",
            info.name,
            storage(info.type_id),
            &info.shape,
            Bytes::new(bytes),
        );
    }

    check_file_holds(file_bytes, header_bytes, end)?;

    let data_bytes = padded(end, alignment);
    uncovered_bytes =
        uncovered_bytes.saturating_add(file_data.map_or(0, |data| data.saturating_sub(data_bytes)));

    Ok(TensorTable {
        inventory: builder.finish(),
        unknown_types: unknown.into_values().collect(),
        header_bytes,
        data_bytes: Bytes::new(data_bytes),
        uncovered_bytes,
    })
}

fn read_infos<'p>(
    cursor: &mut Cursor<'p>,
    count: u64,
    alignment: u64,
) -> Result<Vec<Info<'p>>, Stop> {
    let mut infos = Vec::new();
    let mut names = HashSet::new();
    for left in (0..count).rev() {
        let info = read_info(cursor)?;
        if !names.insert(info.name) {
            return Err(bad(info.name.as_bytes(), "is in the table twice"));
        }

        if info.offset % alignment != 0 {
            return Err(bad(
                info.name.as_bytes(),
                format!("offset {} is not a multiple of {alignment}", info.offset),
            ));
        }

        infos.push(info);
        cursor.expect(left, MIN_INFO_BYTES, "tensor count", "")?;
    }

    Ok(infos)
}

/// Returns the bytes of a tensor by its type, or else the bytes up to `next_offset`.
fn stored_bytes(info: &Info<'_>, next_offset: Option<u64>) -> Result<u64, Stop> {
    match (info.bytes, next_offset) {
        (Some(bytes), _) => Ok(bytes),
        (None, Some(next_offset)) => Ok(next_offset.saturating_sub(info.offset)),
        (None, None) => {
            let why = format!(
                "cannot size tensor type {} without the length of the file",
                info.type_id
            );
            Err(bad(info.name.as_bytes(), why))
        }
    }
}

fn storage(type_id: u32) -> Storage {
    Dtype::from_ggml(type_id).map_or_else(
        || Storage::Unknown(format!("ggml type {type_id}").into()),
        Storage::Known,
    )
}

fn count_unknown(unknown: &mut BTreeMap<u32, UnknownType>, info: &Info<'_>) {
    let entry = unknown.entry(info.type_id).or_insert_with(|| UnknownType {
        id: info.type_id,
        tensors: 0,
        first: info.name.to_owned(),
    });
    entry.tensors += 1;
}

fn padded(end: u64, alignment: u64) -> u64 {
    end.checked_next_multiple_of(alignment).unwrap_or(u64::MAX)
}

/// Checks that the file holds the tensor data up to `end`.
///
/// The file can lack the padding of the last tensor, and a file without data needs no padding.
fn check_file_holds(file_bytes: Option<u64>, header_bytes: u64, end: u64) -> Result<(), GgufError> {
    let needs = header_bytes.saturating_add(end);
    match file_bytes {
        Some(has) if end > 0 && needs > has => Err(GgufError::Truncated {
            what: "tensor data",
            has,
            needs,
        }),
        _ => Ok(()),
    }
}

/// Returns the alignment of tensor data.
pub(super) fn alignment(metadata: &Metadata) -> Result<u64, Stop> {
    const KEY: &str = "general.alignment";

    let value = match metadata.get(KEY) {
        None => return Ok(DEFAULT_ALIGNMENT),
        Some(Value::Unsigned(value)) => *value,
        Some(other) => {
            let why = format!("{other:?} is not an unsigned integer");
            return Err(GgufError::Metadata {
                key: KEY.to_owned(),
                why,
            }
            .into());
        }
    };

    if value.is_power_of_two() && value <= 1 << 20 {
        Ok(value)
    } else {
        let why = format!("{value} is not a power of two up to 1 MiB");
        Err(GgufError::Metadata {
            key: KEY.to_owned(),
            why,
        }
        .into())
    }
}

pub(super) fn read_info<'p>(cursor: &mut Cursor<'p>) -> Result<Info<'p>, Stop> {
    let name = cursor.string(MAX_NAME_BYTES, "the length of a tensor name")?;
    let text = std::str::from_utf8(name).map_err(|_| bad(name, "the name is not UTF-8"))?;
    let dimensions = cursor.u32()?;
    if dimensions > MAX_DIMENSIONS {
        return Err(bad(
            name,
            format!("{dimensions} dimensions, where ggml has at most {MAX_DIMENSIONS}"),
        ));
    }

    let mut shape = Vec::new();
    for _ in 0..dimensions {
        shape.push(cursor.u64()?);
    }

    let (type_id, offset) = (cursor.u32()?, cursor.u64()?);
    let elements = shape
        .iter()
        .try_fold(1_u64, |product, &side| product.checked_mul(side));
    let Some(elements) = elements.filter(|&elements| i64::try_from(elements).is_ok()) else {
        return Err(bad(
            name,
            format!("the shape {shape:?} has more than 2^63 elements"),
        ));
    };

    let bytes = match Dtype::from_ggml(type_id) {
        None => None,
        Some(dtype) => {
            let bytes = tensor_bytes(dtype, &shape, elements).ok_or_else(|| {
                let (block, _) = dtype.block();
                let row = shape.first();
                bad(
                    name,
                    format!("rows of {row:?} elements do not fill {dtype} blocks of {block}"),
                )
            })?;
            Some(bytes)
        }
    };

    Ok(Info {
        name: text,
        shape,
        type_id,
        bytes,
        offset,
    })
}

/// Returns the bytes of a tensor, which has whole blocks along the first dimension.
fn tensor_bytes(dtype: Dtype, shape: &[u64], elements: u64) -> Option<u64> {
    let (block, _) = dtype.block();
    let row = shape.first().copied().unwrap_or(1);
    let bytes = row
        .is_multiple_of(block)
        .then(|| dtype.stored(elements))
        .flatten()?;
    (!bytes.overflowed()).then(|| bytes.get())
}
