//! A read position in a window of a file.
//!
//! Its errors distinguish a window that ends too early from invalid content.

use super::ModelBinError;
use crate::model::Dtype;

/// Maximum length of a name. The longest that a converter writes have 60 characters.
const MAX_NAME_BYTES: usize = 256;
/// Maximum number of dimensions. Convolutions have three.
const MAX_RANK: u8 = 8;

/// Why parsing stopped.
#[derive(Debug)]
pub(super) enum VariableStop {
    /// The item goes on behind the window.
    Short,
    /// The item is invalid.
    Bad(ModelBinError),
}

impl From<ModelBinError> for VariableStop {
    fn from(error: ModelBinError) -> Self {
        Self::Bad(error)
    }
}

/// A variable without its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<u64>,
    /// Bytes of the header.
    pub(super) header_bytes: u64,
    /// Bytes of the data.
    pub(super) data_bytes: u64,
}

/// A position in a window.
#[derive(Debug)]
pub(super) struct VariableCursor<'w> {
    window: &'w [u8],
    /// Offset of the window in its file.
    start: u64,
    position: usize,
}

impl<'w> VariableCursor<'w> {
    /// The beginning of `window`, which is at `start` in its file.
    pub(super) const fn new(window: &'w [u8], start: u64) -> Self {
        Self {
            window,
            start,
            position: 0,
        }
    }

    /// The position in the file.
    pub(super) const fn offset(&self) -> u64 {
        self.start.saturating_add(self.position as u64)
    }

    /// Reads the next `count` bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<&'w [u8], VariableStop> {
        let end = self
            .position
            .checked_add(count)
            .ok_or(VariableStop::Short)?;
        let bytes = self
            .window
            .get(self.position..end)
            .ok_or(VariableStop::Short)?;
        self.position = end;

        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], VariableStop> {
        let bytes = self.take(N)?;
        let mut array = [0; N];
        array.copy_from_slice(bytes);

        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, VariableStop> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u32(&mut self) -> Result<u32, VariableStop> {
        self.array().map(u32::from_le_bytes)
    }

    /// Reads a name: its length with the final zero byte, its letters, and that byte.
    pub(super) fn name(&mut self) -> Result<&'w str, VariableStop> {
        let bad_name = ModelBinError::Name(self.offset());
        let length = usize::from(self.array().map(u16::from_le_bytes)?);
        if !(2..=MAX_NAME_BYTES).contains(&length) {
            return Err(bad_name.into());
        }

        let letters = self.take(length)?.strip_suffix(&[0]);
        let name = letters.and_then(|letters| std::str::from_utf8(letters).ok());

        name.filter(|name| name.bytes().all(|byte| byte.is_ascii_graphic()))
            .ok_or_else(|| bad_name.into())
    }

    /// Reads a variable's header in the layout of `binary_version`.
    pub(super) fn variable(&mut self, binary_version: u32) -> Result<Variable, VariableStop> {
        let begin = self.offset();
        let name = self.name()?.to_owned();
        let contradiction = |why| {
            VariableStop::Bad(ModelBinError::Variable {
                name: name.clone(),
                why,
            })
        };

        let rank = self.u8()?;
        if rank > MAX_RANK {
            return Err(contradiction("it has more dimensions than any tensor"));
        }

        let mut shape = Vec::with_capacity(usize::from(rank));
        for _ in 0..rank {
            shape.push(u64::from(self.u32()?));
        }

        let kind = self.u8()?;
        let count = u64::from(self.u32()?);
        let dtype = dtype(kind, binary_version)
            .ok_or_else(|| contradiction("its type is not one of CTranslate2's"))?;
        let data_bytes = if binary_version >= 4 {
            count
        } else {
            count.saturating_mul(dtype.block().1)
        };

        let elements = shape
            .iter()
            .try_fold(1_u64, |all, size| all.checked_mul(*size));
        let expected = elements.and_then(|elements| elements.checked_mul(dtype.block().1));
        if expected != Some(data_bytes) {
            return Err(contradiction(
                "its bytes are not those of its shape and type",
            ));
        }

        Ok(Variable {
            name,
            dtype,
            shape,
            header_bytes: self.offset().saturating_sub(begin),
            data_bytes,
        })
    }
}

/// The type of a variable: by its number (`types.h`, `DataType`), or by its width before binary
/// version 4 (`model.cc`, `get_dtype_from_item_size`).
fn dtype(kind: u8, binary_version: u32) -> Option<Dtype> {
    let by_number = [
        Dtype::F32,
        Dtype::I8,
        Dtype::I16,
        Dtype::I32,
        Dtype::F16,
        Dtype::BF16,
    ];

    if binary_version >= 4 {
        return by_number.get(usize::from(kind)).copied();
    }

    match kind {
        1 => Some(Dtype::I8),
        2 => Some(Dtype::I16),
        4 => Some(Dtype::F32),
        _ => None,
    }
}
