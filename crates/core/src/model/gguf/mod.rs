//! GGUF, read from a growing prefix: metadata and tensor table, never the tensor data.
//!
//! A header is some megabytes, nearly all of it vocabulary, in a file of many gigabytes. [`parse`]
//! is given the bytes read so far and says either what the file holds or how many bytes are needed
//! at least to get further; it keeps nothing between calls, so any transport (local file, ranges
//! over HTTP) can feed it. Arrays are walked, not kept, except for the short numeric ones that
//! describe layers. What a header declares is never believed before it has been compared with the
//! bytes that could hold it.
//!
//! Layout and types: ggml `docs/gguf.md`, `ggml/src/gguf.cpp`.

pub mod architecture;
mod cursor;
mod label;
mod metadata;
mod parts;
mod table;
mod table_alone;

use serde::{Deserialize, Serialize};

pub use architecture::architecture;
pub use label::quantisation;
pub use metadata::{Metadata, Value};
pub use parts::{PartName, combine};
pub use table_alone::{LoneTable, find_table, same_tensors};

use super::tensors::Inventory;
use crate::bytes::Bytes;
use cursor::{Cursor, Stop};

#[cfg(test)]
mod tests;

/// No header may be longer: the largest published ones (a quarter of a million tokens with merges,
/// a thousand tensors) stay below a fifth of it.
pub const MAX_HEADER_BYTES: u64 = 128 << 20;

/// What a GGUF file (or all parts of a split one) holds. Some kilobytes, whatever the size of the
/// file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gguf {
    /// Format version: 2 or 3.
    pub version: u32,
    /// The key/value pairs: small values as they are, others by their length.
    pub metadata: Metadata,
    /// The tensors, folded; names carry no component.
    pub inventory: Inventory,
    /// Tensors of ggml types that this program does not know, whose bytes follow from the offsets
    /// alone.
    pub unknown_types: Vec<UnknownType>,
    /// Bytes from the start of the file to the tensor data, padding included; summed over parts.
    pub header_bytes: u64,
    /// Bytes of tensor data with the padding between tensors, as the table lays them out; summed
    /// over parts.
    pub data_bytes: Bytes,
    /// Which part of a split file this is; `None` for a whole file and for combined parts.
    pub part: Option<FilePart>,
    /// Where the tensor table lies; known only while the header is read, to find the tables of
    /// files like it.
    #[serde(skip)]
    pub table: TablePlace,
    /// Bytes behind the header that no tensor covers, padding left out; known only while the header
    /// is read.
    #[serde(skip)]
    pub uncovered_bytes: u64,
}

/// Where the tensor table of a file lies; of a split one, where it lies in the first part, with the
/// bytes of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TablePlace {
    /// Bytes before it.
    pub start: u64,
    /// Its length.
    pub bytes: u64,
}

/// Tensors of a type that this program cannot size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownType {
    /// ggml's numeric id.
    pub id: u32,
    /// How many tensors have it.
    pub tensors: u64,
    /// The first of them.
    pub first: String,
}

/// A part of a split file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePart {
    /// Counted from 0 (`split.no`).
    pub index: u32,
    /// All parts (`split.count`).
    pub count: u32,
    /// Tensors in all parts (`split.tensors.count`), where said.
    pub tensors: Option<u64>,
}

/// How far a prefix reaches.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// The whole header was there.
    Complete(Box<Gguf>),
    /// The header goes on.
    NeedMore {
        /// A prefix shorter than this many bytes cannot hold it.
        at_least: u64,
    },
}

/// What a GGUF file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A model.
    Model,
    /// A vision or audio projector (`mmproj`), which belongs to a model.
    Projector,
    /// A LoRA adapter.
    Adapter,
    /// A vocabulary without tensors.
    Vocabulary,
    /// Something else, such as an importance matrix.
    Other,
}

/// Why a file cannot be read as GGUF.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GgufError {
    /// Other magic bytes.
    #[error("not a GGUF file: it starts with {0}, not with 'GGUF'")]
    Magic(String),
    /// A version with another layout.
    #[error("GGUF version {version} is not read{hint}; convert the file with a current llama.cpp")]
    Version {
        /// The version, as read.
        version: u32,
        /// Why.
        hint: &'static str,
    },
    /// A count or length that no file of this size could hold.
    #[error(
        "{what} {name}claims {claimed}, more than {limit} can hold: the header is damaged or hostile"
    )]
    Absurd {
        /// What claims it.
        what: &'static str,
        /// Its name with a space behind it, or nothing.
        name: String,
        /// What it claims.
        claimed: u64,
        /// What bounds it.
        limit: &'static str,
    },
    /// The file ends inside its header or its tensor data.
    #[error("the file has {has} bytes but its {what} needs {needs}: the download is incomplete")]
    Truncated {
        /// Header or tensor data.
        what: &'static str,
        /// Bytes that there are.
        has: u64,
        /// Bytes that there must be.
        needs: u64,
    },
    /// A metadata value that cannot be.
    #[error("metadata key '{key}': {why}")]
    Metadata {
        /// The key, shortened.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// A tensor that cannot be.
    #[error("tensor '{name}': {why}")]
    Tensor {
        /// The tensor, shortened.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// Parts that do not belong together.
    #[error("the parts of this split file do not belong together: {0}")]
    Parts(String),
}

impl Gguf {
    /// `general.architecture`, such as `qwen3moe`.
    pub fn family(&self) -> Option<&str> {
        self.metadata.text("general.architecture")
    }

    /// What the file is for, from `general.type`, `general.architecture` and its tensors.
    pub fn content(&self) -> Content {
        match (self.metadata.text("general.type"), self.family()) {
            (Some("mmproj"), _) | (_, Some("clip")) => Content::Projector,
            (Some("adapter"), _) => Content::Adapter,
            (Some("imatrix"), _) => Content::Other,
            _ if self.inventory.classes.is_empty() => Content::Vocabulary,
            _ => Content::Model,
        }
    }

    /// Tokens of the vocabulary: `{family}.vocab_size`, else the length of the token list.
    pub fn vocabulary(&self) -> Option<u64> {
        let family = self.family()?;
        let tokens = || self.metadata.length("tokenizer.ggml.tokens");
        self.metadata
            .unsigned(&format!("{family}.vocab_size"))
            .or_else(tokens)
    }
}

/// Reads a GGUF header from the first bytes of a file.
///
/// `file_bytes` is the length of the whole file, where it is known: the header's claims are then
/// held against it.
pub fn parse(prefix: &[u8], file_bytes: Option<u64>) -> Result<Progress, GgufError> {
    match read(prefix, file_bytes) {
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

fn read(prefix: &[u8], file_bytes: Option<u64>) -> Result<Gguf, Stop> {
    let mut cursor = Cursor::new(prefix);
    let magic = cursor.array::<4>()?;
    if &magic != b"GGUF" {
        return Err(GgufError::Magic(format!("'{}'", magic.escape_ascii())).into());
    }

    let version = cursor.u32()?;
    match version {
        2 | 3 => {}
        0 | 1 => {
            return Err(GgufError::Version {
                version,
                hint: " (32-bit lengths, in use for days in 2023)",
            }
            .into());
        }
        // A version below 65536 read in the wrong byte order has only zeros in its low half.
        _ if version.trailing_zeros() >= 16 => {
            return Err(GgufError::Version {
                version: version.swap_bytes(),
                hint: " (big-endian file)",
            }
            .into());
        }
        _ => {
            return Err(GgufError::Version {
                version,
                hint: " (newer than this program)",
            }
            .into());
        }
    }

    let (tensors, pairs) = (cursor.u64()?, cursor.u64()?);
    cursor.expect(pairs, metadata::LEAST_PAIR_BYTES, "metadata count", "")?;
    cursor.expect(tensors, table::LEAST_INFO_BYTES, "tensor count", "")?;
    let metadata = metadata::read(&mut cursor, pairs)?;
    let table_start = cursor.position();
    let table = table::read(&mut cursor, tensors, &metadata, file_bytes)?;
    let part = parts::part(&metadata)?;

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
