//! Search for the tensor table of a file without its metadata.
//!
//! The quantizations of a model have nearly the same metadata, and nearly all of a header is
//! vocabulary. The table follows it. So a few kilobytes around the position of another
//! quantization's table contain this file's table.
//!
//! A found table is verified: its offsets begin at 0, have no gaps, and end where the file ends.

use super::Metadata;
use super::cursor::Cursor;
use super::table::{self, Info};
use crate::bytes::Bytes;
use crate::model::dtype::Dtype;
use crate::model::tensors::{Inventory, InventoryBuilder, Storage};

/// Minimum bytes of a tensor info.
const MIN_INFO_BYTES: usize = 25;

/// A tensor table that was found without the file's metadata.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundTable {
    /// The tensors.
    pub inventory: Inventory,
    /// Bytes before the tensor data.
    pub header_bytes: u64,
    /// Bytes of tensor data, with the padding between tensors.
    pub data_bytes: Bytes,
}

/// Finds the tensor table in `window`, a part of a file.
///
/// The file has `file_bytes`, and the window begins at `start`. `reference` is the metadata of a
/// file with the same layout. Returns `None` if no table in the window accounts for the whole file.
pub fn find_table(
    window: &[u8],
    start: u64,
    file_bytes: u64,
    reference: &Metadata,
) -> Option<FoundTable> {
    let alignment = table::alignment(reference).ok()?;

    // A limit for hostile windows, which could begin a long table at every byte.
    let mut infos_left = window.len() / MIN_INFO_BYTES * 4 + 1024;
    (0..window.len()).find_map(|position| {
        let bytes = window.get(position..)?;

        // A cheap check first: a name length of 1 to 255, then a letter or digit.
        let &[low, 0, 0, 0, 0, 0, 0, 0, letter, ..] = bytes else {
            return None;
        };

        if low == 0 || !letter.is_ascii_alphanumeric() {
            return None;
        }

        table_at(
            bytes,
            start.checked_add(position as u64)?,
            file_bytes,
            alignment,
            &mut infos_left,
        )
    })
}

/// Returns the table that begins at `bytes`, if it accounts for the whole file.
fn table_at(
    bytes: &[u8],
    start: u64,
    file_bytes: u64,
    alignment: u64,
    infos_left: &mut usize,
) -> Option<FoundTable> {
    let mut cursor = Cursor::new(bytes);
    let mut builder = InventoryBuilder::default();
    let mut end = 0_u64;

    loop {
        *infos_left = infos_left.checked_sub(1)?;
        let Info {
            name,
            shape,
            type_id,
            bytes,
            offset,
        } = table::read_info(&mut cursor).ok()?;

        let bytes = bytes?;
        if name.is_empty() || bytes == 0 || offset != end.checked_next_multiple_of(alignment)? {
            return None;
        }

        end = offset.checked_add(bytes)?;
        builder.add(
            "",
            name,
            Storage::Known(Dtype::from_ggml(type_id)?),
            &shape,
            Bytes::new(bytes),
        );

        let header_bytes = start
            .checked_add(cursor.position())?
            .checked_next_multiple_of(alignment)?;
        let padded = end.checked_next_multiple_of(alignment)?;
        let (min_file, max_file) = (
            header_bytes.checked_add(end)?,
            header_bytes.checked_add(padded)?,
        );
        if (min_file..=max_file).contains(&file_bytes) {
            return Some(FoundTable {
                inventory: builder.finish(),
                header_bytes,
                data_bytes: Bytes::new(padded),
            });
        }

        if min_file > file_bytes {
            return None;
        }
    }
}

/// Returns whether two files have the same tensors, in any storage types.
pub fn same_tensors(left: &Inventory, right: &Inventory) -> bool {
    without_types(left) == without_types(right)
}

/// Returns the inventory with all tensors in one type of size 0.
fn without_types(inventory: &Inventory) -> Inventory {
    let mut inventory = inventory.clone();
    for class in &mut inventory.classes {
        (class.storage, class.bytes_each) = (Storage::Known(Dtype::F32), Bytes::ZERO);
    }

    InventoryBuilder::join([inventory])
}
