//! The tensor table of a file whose other metadata is not read: found by its own consistency.
//!
//! All quantisations of a model have the same metadata but for some bytes, and nearly all of a
//! header is vocabulary. The table stands behind it, so a few kilobytes around the place where
//! another quantisation has its table hold it. What is found is proved: offsets begin at 0, follow
//! each other without a gap, and end where the file ends.

use super::Metadata;
use super::cursor::Cursor;
use super::table::{self, Info};
use crate::bytes::Bytes;
use crate::model::dtype::Dtype;
use crate::model::tensors::{Inventory, InventoryBuilder, Storage};

/// The least that a tensor's line takes.
const BYTES_AN_INFO: usize = 25;

/// A table that was found by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct LoneTable {
    /// The tensors.
    pub inventory: Inventory,
    /// Bytes before the tensor data.
    pub header_bytes: u64,
    /// Bytes of tensor data, padding between tensors included.
    pub data_bytes: Bytes,
}

/// Finds the tensor table within `window`, the bytes of a file of `file_bytes` from `start` on.
/// `like` is the metadata of a file that is laid out alike. `None` where no table there accounts
/// for the whole file.
pub fn find_table(
    window: &[u8],
    start: u64,
    file_bytes: u64,
    like: &Metadata,
) -> Option<LoneTable> {
    let alignment = table::alignment(like).ok()?;

    // A window made for it could begin a long chain at every byte.
    let mut left = window.len() / BYTES_AN_INFO * 4 + 1024;
    (0..window.len()).find_map(|at| {
        let bytes = window.get(at..)?;

        // Cheap before exact: a length of one to 255, then a letter.
        let &[low, 0, 0, 0, 0, 0, 0, 0, letter, ..] = bytes else {
            return None;
        };

        if low == 0 || !letter.is_ascii_alphanumeric() {
            return None;
        }

        table_at(
            bytes,
            start.checked_add(at as u64)?,
            file_bytes,
            alignment,
            &mut left,
        )
    })
}

/// The table that begins at `bytes`, if one does that accounts for the whole file.
fn table_at(
    bytes: &[u8],
    start: u64,
    file_bytes: u64,
    alignment: u64,
    left: &mut usize,
) -> Option<LoneTable> {
    let mut cursor = Cursor::new(bytes);
    let mut builder = InventoryBuilder::default();
    let mut end = 0_u64;

    loop {
        *left = left.checked_sub(1)?;
        let Info {
            name,
            shape,
            type_id,
            bytes,
            offset,
        } = table::info(&mut cursor).ok()?;

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
        let (least, most) = (
            header_bytes.checked_add(end)?,
            header_bytes.checked_add(padded)?,
        );
        if (least..=most).contains(&file_bytes) {
            return Some(LoneTable {
                inventory: builder.finish(),
                header_bytes,
                data_bytes: Bytes::new(padded),
            });
        }

        if least > file_bytes {
            return None;
        }
    }
}

/// Whether two files have the same tensors, whatever types they are stored in.
pub fn same_tensors(one: &Inventory, other: &Inventory) -> bool {
    let untyped = |inventory: &Inventory| {
        let mut inventory = inventory.clone();
        for class in &mut inventory.classes {
            (class.storage, class.bytes_each) = (Storage::Known(Dtype::F32), Bytes::ZERO);
        }
        InventoryBuilder::join([inventory])
    };

    untyped(one) == untyped(other)
}
