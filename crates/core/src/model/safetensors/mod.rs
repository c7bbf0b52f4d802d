//! The header of a safetensors file.
//!
//! A header is eight bytes of length, then JSON with a type, a shape and two offsets for each
//! tensor. [`walk()`] also accepts headers that the safetensors crate rejects, for example for one
//! unknown type or one gap between tensors.
//!
//! Headers can be hostile. So the walk is one pass that stores little for each tensor. It checks
//! lengths and counts before it allocates memory for them. This module does not read files.

mod header_json;
mod walk;
mod warnings;

use super::dtype::Dtype;
use super::tensors::{InventoryBuilder, Storage};
use crate::bytes::Bytes;

pub use walk::{TensorEntry, TensorVisitor};

/// The length field before the header.
pub const LENGTH_BYTES: u64 = 8;
/// Maximum length of a header that loaders accept (safetensors `tensor.rs`, `MAX_HEADER_SIZE`).
pub const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Maximum number of tensors in one file. The largest known files have about 100 000.
pub const MAX_TENSORS: usize = 1 << 20;
/// Maximum number of dimensions of a tensor. Published ones have at most eight.
pub const MAX_RANK: usize = 32;
/// Maximum length of a tensor's name. Published ones have less than 200 bytes.
pub const MAX_NAME_BYTES: usize = 1024;

/// The facts about a header other than its tensors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// Number of tensors.
    pub tensors: usize,
    /// Length of the data after the header.
    pub data_bytes: Bytes,
    /// Bytes after the header that no tensor covers, between tensors and after the last one. 0 if
    /// the file ends with its header.
    pub uncovered_bytes: u64,
    /// Problems of the header, for the answer's `warnings`.
    pub warnings: Vec<String>,
    /// The shortened name of the tensor that begins last.
    last: String,
}

/// One tensor, as its header describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// The tensor's name.
    pub name: String,
    /// How the elements are stored.
    pub storage: Storage,
    /// The shape.
    pub shape: Vec<u64>,
    /// The stored bytes.
    pub bytes: Bytes,
}

/// A parsed header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The tensors in the order of their data.
    pub tensors: Vec<Tensor>,
    /// Length of the data after the header.
    pub data_bytes: Bytes,
    /// Problems of the header, for the answer's `warnings`.
    pub warnings: Vec<String>,
}

impl Header {
    /// Adds the tensors to `component` of an inventory.
    pub fn add_to(&self, component: &str, inventory: &mut InventoryBuilder) {
        for tensor in &self.tensors {
            inventory.add(
                component,
                &tensor.name,
                tensor.storage.clone(),
                &tensor.shape,
                tensor.bytes,
            );
        }
    }
}

/// Why a header cannot be parsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The file is shorter than the length field.
    #[error("the file has {0} bytes, too few for a safetensors length field of 8")]
    TooShort(u64),
    /// The length field exceeds the limit of all loaders.
    #[error(
        "the header claims {0} bytes, more than the {MAX_HEADER_BYTES} that safetensors allows; \
         is this a safetensors file?"
    )]
    TooLong(u64),
    /// The length field points past the end of the file.
    #[error(
        "the header claims {header} bytes but the file has {file}; it is truncated or not a \
         safetensors file"
    )]
    PastEnd {
        /// The header's length by the length field.
        header: u64,
        /// The file's length.
        file: u64,
    },
    /// The header is not a JSON object of tensors.
    #[error("the header is not the JSON of a safetensors file: {0}")]
    NotJson(String),
    /// The header has more than [`MAX_TENSORS`] tensors.
    #[error("the header names more than {MAX_TENSORS} tensors")]
    TooManyTensors,
    /// The header has more classes of tensors than any model.
    #[error("it describes more than {0} kinds of tensors")]
    TooManyKinds(usize),
    /// A tensor that contradicts itself or the file.
    #[error("tensor {name}: {why}")]
    BadTensor {
        /// The shortened name of the tensor.
        name: String,
        /// The problem.
        why: String,
    },
}

/// Returns the header's length from the first eight bytes of the file.
///
/// Checks it against the length of the file if that is known.
pub fn header_length(first: &[u8], file_bytes: Option<u64>) -> Result<u64, HeaderError> {
    let Some(field) = first.first_chunk::<8>() else {
        return Err(HeaderError::TooShort(
            file_bytes.unwrap_or(first.len() as u64),
        ));
    };

    let header = u64::from_le_bytes(*field);
    if header > MAX_HEADER_BYTES {
        return Err(HeaderError::TooLong(header));
    }

    match file_bytes {
        Some(file) if header.saturating_add(LENGTH_BYTES) > file => {
            Err(HeaderError::PastEnd { header, file })
        }
        _ => Ok(header),
    }
}

/// Parses the JSON of a header with all its tensors.
///
/// `data_bytes` is the length of the file after the header, if it is known.
pub fn parse(json: &[u8], data_bytes: Option<u64>) -> Result<Header, HeaderError> {
    let mut tensors = Vec::new();
    let outline = walk(json, data_bytes, &mut |entry| {
        let TensorEntry {
            name,
            storage,
            shape,
            bytes,
            begin,
        } = entry;

        tensors.push((
            begin,
            Tensor {
                name: name.to_owned(),
                storage,
                shape: shape.to_vec(),
                bytes,
            },
        ));

        Ok(())
    })?;

    tensors
        .sort_by(|(left, a), (right, b)| (left, a.bytes, &a.name).cmp(&(right, b.bytes, &b.name)));
    let tensors = tensors.into_iter().map(|(_, tensor)| tensor).collect();

    Ok(Header {
        tensors,
        data_bytes: outline.data_bytes,
        warnings: outline.warnings,
    })
}

/// Parses the JSON of a header and passes each tensor to `visit`, in the header's order.
///
/// The visited tensors are valid only if `walk` returns an outline.
pub fn walk(
    json: &[u8],
    data_bytes: Option<u64>,
    visit: TensorVisitor<'_>,
) -> Result<Outline, HeaderError> {
    check_against_file(walk::walk(json, visit)?, data_bytes)
}

/// Checks the length of the tensors against the length of the file.
///
/// A file that is shorter than its tensors is an error, because no loader accepts it. A longer file
/// causes a warning, because some loaders accept it. A file that ends with its header also causes a
/// warning: it was truncated on purpose, to compute its need without its weights.
fn check_against_file(
    mut header: Outline,
    data_bytes: Option<u64>,
) -> Result<Outline, HeaderError> {
    let Some(data_bytes) = data_bytes else {
        return Ok(header);
    };

    if data_bytes == 0 && header.data_bytes > Bytes::ZERO {
        header.uncovered_bytes = 0;
        header
            .warnings
            .push("the file holds a header and no weights".to_owned());
        return Ok(header);
    }

    if header.data_bytes > Bytes::new(data_bytes) {
        let why = format!(
            "its data ends at byte {} but the file has only {data_bytes}",
            header.data_bytes.get()
        );
        return Err(bad(&header.last, why));
    }

    if header.data_bytes < Bytes::new(data_bytes) {
        let extra = data_bytes - header.data_bytes.get();
        header.uncovered_bytes = header.uncovered_bytes.saturating_add(extra);
        header.warnings.push(format!(
            "the file has {extra} bytes that belong to no tensor"
        ));
    }

    Ok(header)
}

fn storage(name: &str) -> Storage {
    Dtype::from_safetensors(name)
        .map_or_else(|| Storage::Unknown(shortened(name).into()), Storage::Known)
}

fn bad(name: &str, why: String) -> HeaderError {
    HeaderError::BadTensor {
        name: shortened(name),
        why,
    }
}

/// Returns at most 120 characters of an untrusted text, without control characters.
fn shortened(text: &str) -> String {
    text.chars()
        .take(120)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_header_is_parsed() {
        let json = br#"{"__metadata__":{"format":"pt"},
            "b":{"dtype":"F32","shape":[2,3],"data_offsets":[4,28]},
            "a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}   "#;
        let header = parse(json, Some(28)).expect("a good header");
        assert_eq!(header.data_bytes, Bytes::new(28));
        assert!(header.warnings.is_empty());
        let first = &header.tensors[0];
        assert_eq!(
            (first.name.as_str(), &first.storage, first.bytes),
            ("a", &Storage::Known(Dtype::BF16), Bytes::new(4))
        );
        let mut builder = InventoryBuilder::default();
        header.add_to("vae", &mut builder);
        assert_eq!(builder.finish().bytes_by_component()["vae"], Bytes::new(28));
    }

    #[test]
    fn only_header_without_data_is_accepted() {
        let json = br#"{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}"#;
        assert_eq!(
            parse(json, Some(0)).expect("header only").warnings,
            ["the file holds a header and no weights"]
        );
        parse(json, Some(3)).expect_err("truncated");
    }

    #[test]
    fn crate_dtypes_are_known() {
        for name in [
            "F4",
            "F6_E2M3",
            "F6_E3M2",
            "BOOL",
            "U8",
            "I8",
            "F8_E4M3",
            "F8_E5M2",
            "F8_E8M0",
            "F8_E4M3FNUZ",
            "F8_E5M2FNUZ",
            "I16",
            "U16",
            "F16",
            "BF16",
            "I32",
            "U32",
            "F32",
            "I64",
            "U64",
            "F64",
            "C64",
        ] {
            let bytes = Dtype::from_safetensors(name)
                .and_then(|dtype| dtype.stored(8))
                .expect(name)
                .get();
            let json =
                format!(r#"{{"t":{{"dtype":"{name}","shape":[8],"data_offsets":[0,{bytes}]}}}}"#);
            let header = parse(json.as_bytes(), Some(bytes)).expect(name);
            assert!(header.warnings.is_empty(), "{name}: {:?}", header.warnings);
            assert!(
                matches!(header.tensors[0].storage, Storage::Known(dtype) if dtype.name() == name)
            );
        }
    }

    #[test]
    fn hostile_lengths_are_rejected() {
        assert_eq!(
            header_length(&[1, 2], Some(2)),
            Err(HeaderError::TooShort(2))
        );
        assert_eq!(
            header_length(&(1_u64 << 63).to_le_bytes(), None),
            Err(HeaderError::TooLong(1 << 63))
        );

        assert_eq!(
            header_length(&u64::MAX.to_le_bytes(), Some(100)),
            Err(HeaderError::TooLong(u64::MAX))
        );
        assert_eq!(
            header_length(&93_u64.to_le_bytes(), Some(100)),
            Err(HeaderError::PastEnd {
                header: 93,
                file: 100
            })
        );

        assert_eq!(header_length(&92_u64.to_le_bytes(), Some(100)), Ok(92));
    }

    #[test]
    fn short_file_fails_and_long_warns() {
        let json = br#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#;
        assert!(matches!(
            parse(json, Some(15)),
            Err(HeaderError::BadTensor { .. })
        ));

        assert_eq!(
            parse(json, Some(20)).expect("longer").warnings,
            ["the file has 4 bytes that belong to no tensor"]
        );
    }

    #[test]
    fn uncovered_bytes_count_gaps_and_tail() {
        let json = br#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[2,6]},
            "b":{"dtype":"U8","shape":[4],"data_offsets":[9,13]},
            "c":{"dtype":"U8","shape":[3],"data_offsets":[4,7]}}"#;
        let uncovered_bytes = |data_bytes| {
            walk(json, data_bytes, &mut |_| Ok(()))
                .expect("sized")
                .uncovered_bytes
        };

        assert_eq!(
            (
                uncovered_bytes(None),
                uncovered_bytes(Some(13)),
                uncovered_bytes(Some(20))
            ),
            (4, 4, 11)
        );
        assert_eq!(uncovered_bytes(Some(0)), 0, "the file ends with its header");
    }

    #[test]
    fn endless_ranks_are_rejected() {
        let shape = vec!["1"; MAX_RANK + 1].join(",");
        let json = format!(r#"{{"a":{{"dtype":"U8","shape":[{shape}],"data_offsets":[0,1]}}}}"#);
        assert!(matches!(
            parse(json.as_bytes(), None),
            Err(HeaderError::BadTensor { .. })
        ));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            json in proptest::collection::vec(any::<u8>(), 0..300),
            file in any::<Option<u64>>(),
        ) {
            let _ = header_length(&json, file);
            let _ = parse(&json, file);
        }

        #[test]
        fn arbitrary_offsets_never_shrink(
            begin in any::<u64>(),
            end in any::<u64>(),
            size in any::<u64>(),
        ) {
            let json = format!(
                r#"{{"a":{{"dtype":"F64","shape":[{size},2],"data_offsets":[{begin},{end}]}}}}"#
            );
            if let Ok(header) = parse(json.as_bytes(), None) {
                prop_assert!(header.tensors[0].bytes >= Bytes::new(end - begin));
                prop_assert!(header.tensors[0].bytes >= Bytes::new(size) * 16);
            }
        }
    }
}
