//! The header of a safetensors file: eight bytes of length, then JSON with a type, a shape and two
//! offsets for each tensor.
//!
//! Both what the safetensors crate accepts and what it refuses for one unknown type or one gap
//! between tensors is read in one pass ([`walk()`]), which holds as little of each tensor as it
//! can: headers are written by anyone. Nothing here reads a file; lengths and counts are bounded
//! before anything is allocated for them.

mod walk;

use super::dtype::Dtype;
use super::tensors::{InventoryBuilder, Storage};
use crate::bytes::Bytes;

pub use walk::{Each, Passing};

/// The length field before the header.
pub const LENGTH_BYTES: u64 = 8;
/// The longest header that loaders accept (safetensors `tensor.rs`, `MAX_HEADER_SIZE`).
pub const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Tensors that one file may name; the largest known files have some 100 000.
pub const MAX_TENSORS: usize = 1 << 20;
/// Dimensions of one tensor; real ones have at most eight.
pub const MAX_RANK: usize = 32;

/// The longest name of a tensor; real ones stay below 200 bytes.
pub const MAX_NAME_BYTES: usize = 1024;

/// What a header is beside its tensors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// How many tensors it names.
    pub tensors: usize,
    /// Length of the data behind the header.
    pub data_bytes: Bytes,
    /// Bytes of the file behind the header that no tensor covers, between tensors and behind the
    /// last. None where the file ends with its header.
    pub uncovered_bytes: u64,
    /// What was odd about it, for a person.
    pub doubts: Vec<String>,
    /// The name of the tensor that begins last, shortened.
    last: String,
}

/// One tensor, as its header describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// How its elements are stored.
    pub storage: Storage,
    /// Its shape.
    pub shape: Vec<u64>,
    /// What is stored for it.
    pub bytes: Bytes,
}

/// A header that was understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Its tensors, in the order of their data.
    pub tensors: Vec<Tensor>,
    /// Length of the data behind the header.
    pub data_bytes: Bytes,
    /// What was odd about it, for a person.
    pub doubts: Vec<String>,
}

impl Header {
    /// Adds its tensors to `component` of an inventory.
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

/// Why a header could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The file is shorter than the length field.
    #[error("the file has {0} bytes, too few for a safetensors length field of 8")]
    TooShort(u64),
    /// The length field is beyond what any loader accepts.
    #[error(
        "the header claims {0} bytes, more than the {MAX_HEADER_BYTES} that safetensors allows; is this a safetensors file?"
    )]
    TooLong(u64),
    /// The length field points past the end of the file.
    #[error(
        "the header claims {header} bytes but the file has {file}; it is truncated or not a safetensors file"
    )]
    PastEnd {
        /// The header's length by its length field.
        header: u64,
        /// The file's length.
        file: u64,
    },
    /// The header is not a JSON object of tensors.
    #[error("the header is not the JSON of a safetensors file: {0}")]
    NotJson(String),
    /// More tensors than any model has.
    #[error("the header names more than {MAX_TENSORS} tensors")]
    TooManyTensors,
    /// More kinds of tensors than any model has.
    #[error("it describes more than {0} kinds of tensors")]
    TooManyKinds(usize),
    /// A tensor that contradicts itself or the file.
    #[error("tensor {name}: {why}")]
    BadTensor {
        /// Its name, shortened.
        name: String,
        /// What is wrong.
        why: String,
    },
}

/// The header's length from the file's first eight bytes, checked against the file's own length
/// where that is known.
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

/// Reads the JSON of a header and keeps every tensor. `data_bytes` is what the file holds behind
/// it, where the file's length is known.
pub fn parse(json: &[u8], data_bytes: Option<u64>) -> Result<Header, HeaderError> {
    let mut tensors = Vec::new();
    let outline = walk(json, data_bytes, &mut |passing| {
        let Passing {
            name,
            storage,
            shape,
            bytes,
            begin,
        } = passing;

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
        doubts: outline.doubts,
    })
}

/// Reads the JSON of a header and gives each tensor to `each`, in the header's order, before the
/// whole is judged: what was given counts only where an outline comes back.
pub fn walk(json: &[u8], data_bytes: Option<u64>, each: Each<'_>) -> Result<Outline, HeaderError> {
    against_file(walk::walk(json, each)?, data_bytes)
}

/// A file that is shorter than its tensors cannot be loaded; one that is longer can, by some. One
/// that ends with its header was cut off there on purpose, to be asked about and not to be loaded:
/// that is said.
fn against_file(mut header: Outline, data_bytes: Option<u64>) -> Result<Outline, HeaderError> {
    let Some(data_bytes) = data_bytes else {
        return Ok(header);
    };

    if data_bytes == 0 && header.data_bytes > Bytes::ZERO {
        header.uncovered_bytes = 0;
        header
            .doubts
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
        header.doubts.push(format!(
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

/// At most 120 characters of a text that anyone may have written, without control characters.
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
    fn an_ordinary_header() {
        let json = br#"{"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,3],"data_offsets":[4,28]},
            "a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}   "#;
        let header = parse(json, Some(28)).expect("a good header");
        assert_eq!(header.data_bytes, Bytes::new(28));
        assert!(header.doubts.is_empty());
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
    fn a_file_cut_off_after_its_header_is_read_and_said_but_one_cut_off_elsewhere_is_refused() {
        let json = br#"{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}"#;
        assert_eq!(
            parse(json, Some(0)).expect("header only").doubts,
            ["the file holds a header and no weights"]
        );
        parse(json, Some(3)).expect_err("truncated");
    }

    #[test]
    fn every_dtype_of_the_crate_is_known_here() {
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
            assert!(header.doubts.is_empty(), "{name}: {:?}", header.doubts);
            assert!(
                matches!(header.tensors[0].storage, Storage::Known(dtype) if dtype.name() == name)
            );
        }
    }

    #[test]
    fn hostile_lengths_are_refused_before_anything_is_read() {
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
    fn a_file_shorter_than_its_tensors_is_refused_and_a_longer_one_doubted() {
        let json = br#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#;
        assert!(matches!(
            parse(json, Some(15)),
            Err(HeaderError::BadTensor { .. })
        ));

        assert_eq!(
            parse(json, Some(20)).expect("longer").doubts,
            ["the file has 4 bytes that belong to no tensor"]
        );
    }

    #[test]
    fn uncovered_bytes_count_gaps_and_tail() {
        let json = br#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[2,6]},"b":{"dtype":"U8","shape":[4],"data_offsets":[9,13]},
            "c":{"dtype":"U8","shape":[3],"data_offsets":[4,7]}}"#;
        let uncovered = |data_bytes| {
            walk(json, data_bytes, &mut |_| Ok(()))
                .expect("sized")
                .uncovered_bytes
        };

        assert_eq!(
            (uncovered(None), uncovered(Some(13)), uncovered(Some(20))),
            (4, 4, 11)
        );
        assert_eq!(uncovered(Some(0)), 0, "the file ends with its header");
    }

    #[test]
    fn endless_ranks_are_refused() {
        let shape = vec!["1"; MAX_RANK + 1].join(",");
        let json = format!(r#"{{"a":{{"dtype":"U8","shape":[{shape}],"data_offsets":[0,1]}}}}"#);
        assert!(matches!(
            parse(json.as_bytes(), None),
            Err(HeaderError::BadTensor { .. })
        ));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(json in proptest::collection::vec(any::<u8>(), 0..300), file in any::<Option<u64>>()) {
            let _ = header_length(&json, file);
            let _ = parse(&json, file);
        }

        #[test]
        fn arbitrary_offsets_never_panic_or_shrink(begin in any::<u64>(), end in any::<u64>(), size in any::<u64>()) {
            let json = format!(r#"{{"a":{{"dtype":"F64","shape":[{size},2],"data_offsets":[{begin},{end}]}}}}"#);
            if let Ok(header) = parse(json.as_bytes(), None) {
                prop_assert!(header.tensors[0].bytes >= Bytes::new(end - begin));
                prop_assert!(header.tensors[0].bytes >= Bytes::new(size) * 16);
            }
        }
    }
}
