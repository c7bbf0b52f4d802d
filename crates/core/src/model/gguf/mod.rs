//! GGUF headers, parsed from a growing prefix of the file: metadata and tensor table without the
//! tensor data.
//!
//! A header has a few megabytes, nearly all of it vocabulary, in a file of many gigabytes.
//! [`parse`] takes the bytes read so far. It returns either the content of the header or the number
//! of bytes that it needs to continue. It keeps no state between calls, so any transport (local
//! file, HTTP ranges) can supply the bytes.
//!
//! Arrays are skipped, except for the short numeric ones that describe layers. The parser checks
//! every declared count and length against the bytes that could hold it.
//!
//! Source of layout and types: ggml `docs/gguf.md`, `ggml/src/gguf.cpp`.

pub mod architecture;
mod cursor;
mod find_table;
mod label;
mod metadata;
mod parts;
mod table;

use serde::{Deserialize, Serialize};

pub use architecture::architecture;
pub use find_table::{FoundTable, find_table, same_tensors};
pub use label::quantization_label;
pub use metadata::{Metadata, Value};
pub use parts::{PartName, combine};

use super::tensors::Inventory;
use crate::bytes::Bytes;
use cursor::{Cursor, Stop};

#[cfg(test)]
mod tests;

/// Maximum length of a header.
///
/// The largest published headers (a quarter of a million tokens with merges, a thousand tensors)
/// have less than a fifth of it.
pub const MAX_HEADER_BYTES: u64 = 128 << 20;

/// The header of a GGUF file, or of all parts of a split file.
///
/// It takes a few kilobytes of memory for files of any size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gguf {
    /// Format version: 2 or 3.
    pub version: u32,
    /// The key/value pairs. Large values are represented by their length.
    pub metadata: Metadata,
    /// The folded tensors, without a component.
    pub inventory: Inventory,
    /// Tensors of unknown ggml types. Only the offsets give their size.
    pub unknown_types: Vec<UnknownType>,
    /// Bytes from the start of the file to the tensor data, padding included, summed over parts.
    pub header_bytes: u64,
    /// Bytes of tensor data by the table, with the padding between tensors, summed over parts.
    pub data_bytes: Bytes,
    /// The part of a split file; `None` for a whole file and for combined parts.
    pub part: Option<FilePart>,
    /// The position of the tensor table, which helps to find the tables of similar files. It is
    /// not serialized.
    #[serde(skip)]
    pub table: TablePlace,
    /// Bytes after the header that belong neither to a tensor nor to padding. They are not
    /// serialized.
    #[serde(skip)]
    pub uncovered_bytes: u64,
}

/// The position of a file's tensor table.
///
/// A split file has the position in its first part and the bytes of all parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TablePlace {
    /// Bytes before the table.
    pub start: u64,
    /// Length of the table.
    pub bytes: u64,
}

/// The tensors of one unknown type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownType {
    /// ggml's numeric id.
    pub id: u32,
    /// Number of tensors of the type.
    pub tensors: u64,
    /// The name of the first of these tensors.
    pub first: String,
}

/// The position of a part in a split file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePart {
    /// The part's index, from 0 (`split.no`).
    pub index: u32,
    /// Number of parts (`split.count`).
    pub count: u32,
    /// Number of tensors in all parts (`split.tensors.count`), if the file states it.
    pub tensors: Option<u64>,
}

/// The result of parsing a prefix.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// The prefix holds the whole header.
    Complete(Box<Gguf>),
    /// The header is longer than the prefix.
    NeedMore {
        /// The minimum number of bytes that the parser needs.
        at_least: u64,
    },
}

/// The purpose of a GGUF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A model.
    Model,
    /// A vision or audio projector (`mmproj`) for another model.
    Projector,
    /// A LoRA adapter.
    Adapter,
    /// A vocabulary without tensors.
    Vocabulary,
    /// Other content, such as an importance matrix.
    Other,
}

/// Why a file cannot be parsed as GGUF.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GgufError {
    /// The file has other magic bytes.
    #[error("not a GGUF file: it starts with {0}, not with 'GGUF'")]
    Magic(String),
    /// The file has a version with another layout.
    #[error("GGUF version {version} is not read{hint}; convert the file with a current llama.cpp")]
    Version {
        /// The file's version.
        version: u32,
        /// A remark about files of this version.
        hint: &'static str,
    },
    /// A count or length that no file of this size could hold.
    #[error(
        "{what} {name}claims {claimed}, more than {limit} can hold: the header is damaged or \
         hostile"
    )]
    Absurd {
        /// The field with the claim.
        what: &'static str,
        /// The quoted name of the field and a space, or nothing.
        name: String,
        /// The claimed count or length.
        claimed: u64,
        /// The bound on it.
        limit: &'static str,
    },
    /// The file ends inside its header or its tensor data.
    #[error("the file has {has} bytes but its {what} needs {needs}: the download is incomplete")]
    Truncated {
        /// The truncated part: header or tensor data.
        what: &'static str,
        /// Bytes in the file.
        has: u64,
        /// Bytes that the part needs.
        needs: u64,
    },
    /// A metadata pair is invalid.
    #[error("metadata key '{key}': {why}")]
    Metadata {
        /// The shortened key.
        key: String,
        /// The problem.
        why: String,
    },
    /// A tensor is invalid.
    #[error("tensor '{name}': {why}")]
    Tensor {
        /// The shortened name of the tensor.
        name: String,
        /// The problem.
        why: String,
    },
    /// The parts of a split file do not match.
    #[error("the parts of this split file do not belong together: {0}")]
    Parts(String),
}

impl Gguf {
    /// Returns `general.architecture`, such as `qwen3moe`.
    pub fn family(&self) -> Option<&str> {
        self.metadata.text("general.architecture")
    }

    /// Returns the file's purpose by `general.type`, `general.architecture` and the tensors.
    pub fn content(&self) -> Content {
        match (self.metadata.text("general.type"), self.family()) {
            (Some("mmproj"), _) | (_, Some("clip")) => Content::Projector,
            (Some("adapter"), _) => Content::Adapter,
            (Some("imatrix"), _) => Content::Other,
            _ if self.inventory.classes.is_empty() => Content::Vocabulary,
            _ => Content::Model,
        }
    }

    /// Returns the vocabulary size: `{family}.vocab_size`, else the length of the token list.
    pub fn vocabulary(&self) -> Option<u64> {
        let family = self.family()?;
        self.metadata
            .unsigned(&format!("{family}.vocab_size"))
            .or_else(|| self.metadata.length("tokenizer.ggml.tokens"))
    }
}

/// Parses a GGUF header from the first bytes of a file.
///
/// `file_bytes` is the length of the whole file, if it is known. The parser then checks the
/// header's claims against it.
pub fn parse(prefix: &[u8], file_bytes: Option<u64>) -> Result<Progress, GgufError> {
    match read_header(prefix, file_bytes) {
        Ok(gguf) => Ok(Progress::Complete(Box::new(gguf))),
        Err(Stop::Short { at_least }) => match file_bytes {
            Some(has) if at_least > has => Err(GgufError::Truncated {
                what: "header",
                has,
                needs: at_least,
            }),
            _ => Ok(Progress::NeedMore { at_least }),
        },
        Err(Stop::Bad(error)) => Err(error),
    }
}

fn read_header(prefix: &[u8], file_bytes: Option<u64>) -> Result<Gguf, Stop> {
    let mut cursor = Cursor::new(prefix);
    let magic = cursor.array::<4>()?;
    if &magic != b"GGUF" {
        return Err(GgufError::Magic(format!("'{}'", magic.escape_ascii())).into());
    }

    let version = cursor.u32()?;
    check_version(version)?;

    let (tensors, pairs) = (cursor.u64()?, cursor.u64()?);
    cursor.expect(pairs, metadata::MIN_PAIR_BYTES, "metadata count", "")?;
    cursor.expect(tensors, table::MIN_INFO_BYTES, "tensor count", "")?;
    let metadata = metadata::read(&mut cursor, pairs)?;

    let table_start = cursor.position();
    let table = table::read(&mut cursor, tensors, &metadata, file_bytes)?;
    let part = parts::read_part(&metadata)?;

    Ok(Gguf {
        version,
        metadata,
        inventory: table.inventory,
        unknown_types: table.unknown_types,
        header_bytes: table.header_bytes,
        data_bytes: table.data_bytes,
        part,
        uncovered_bytes: table.uncovered_bytes,
        table: TablePlace {
            start: table_start,
            bytes: table.header_bytes.saturating_sub(table_start),
        },
    })
}

fn check_version(version: u32) -> Result<(), GgufError> {
    let (version, hint) = match version {
        2 | 3 => return Ok(()),
        0 | 1 => (version, " (32-bit lengths, in use for days in 2023)"),
        // A version below 65536 in the wrong byte order has only zeros in its low half.
        _ if version.trailing_zeros() >= 16 => (version.swap_bytes(), " (big-endian file)"),
        _ => (version, " (newer than this program)"),
    };

    Err(GgufError::Version { version, hint })
}
