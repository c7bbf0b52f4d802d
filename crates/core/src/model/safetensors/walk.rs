//! A single pass over the JSON of a header, which passes each tensor to a visitor.
//!
//! For each tensor the walk stores its two offsets, and its name if the header's own text cannot be
//! borrowed. A header of a million tensors takes 40 MiB in addition to its text.
//!
//! Every loader accepts what the safetensors crate accepts. The walk also reads what the crate
//! rejects: newer types, gaps, overlaps and wrong sizes. It sizes a tensor by its offsets or its
//! shape, whichever is larger, so that a contradiction can only raise the need. Each problem
//! becomes a warning. A tensor without any size is an error.

use std::borrow::Cow;
use std::fmt;

use safetensors::tensor::Metadata;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use super::header_json::{HeaderEntry, Name, TextMap};
use super::warnings::HeaderWarnings;
use super::{HeaderError, MAX_NAME_BYTES, MAX_TENSORS, Outline, bad, shortened, storage};
use crate::bytes::Bytes;
use crate::model::tensors::Storage;

/// Maximum length of a header that the safetensors crate parses for its error message.
///
/// The crate needs twenty times the header's length for that.
const MAX_CRATE_CHECK_BYTES: usize = 1 << 20;

/// A tensor that a walk passes to its visitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorEntry<'t> {
    /// The tensor's name.
    pub name: &'t str,
    /// How the elements are stored.
    pub storage: Storage,
    /// The shape.
    pub shape: &'t [u64],
    /// The stored bytes.
    pub bytes: Bytes,
    /// The offset of the data, from the end of the header.
    pub begin: u64,
}

/// The visitor of each tensor. An error ends the walk.
pub type TensorVisitor<'e> = &'e mut dyn FnMut(TensorEntry<'_>) -> Result<(), HeaderError>;

/// Walks over `json` and passes each tensor to `visit`.
pub(super) fn walk(json: &[u8], visit: TensorVisitor<'_>) -> Result<Outline, HeaderError> {
    let mut walk = Walk {
        spans: Vec::new(),
        warnings: HeaderWarnings::default(),
        is_rejected: false,
        stopped: None,
        visit,
    };

    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let walked = walk
        .deserialize_from(&mut deserializer)
        .and_then(|()| deserializer.end());

    if let Some(error) = walk.stopped.take() {
        return Err(error);
    }

    walked.map_err(|error| HeaderError::NotJson(shortened(&error.to_string())))?;
    walk.check_names();
    let (data_bytes, uncovered_bytes) = walk.check_spans();

    let Walk {
        spans,
        warnings,
        is_rejected,
        ..
    } = walk;
    let rejection = is_rejected.then(|| crate_rejection(json)).flatten();

    Ok(Outline {
        tensors: spans.len(),
        data_bytes: Bytes::new(data_bytes),
        uncovered_bytes,
        last: spans
            .last()
            .map_or_else(String::new, |span| shortened(&span.name)),
        warnings: warnings.finish(rejection),
    })
}

/// Returns the warning about a header that the safetensors crate rejects.
///
/// Returns `None` if the crate accepts it.
fn crate_rejection(json: &[u8]) -> Option<String> {
    if json.len() > MAX_CRATE_CHECK_BYTES {
        return Some(
            "the safetensors crate refuses such a header; sized by its offsets".to_owned(),
        );
    }

    let why = serde_json::from_slice::<Metadata>(json).err()?.to_string();
    Some(format!(
        "the safetensors crate refuses the header ({}); sized by its offsets",
        shortened(&why)
    ))
}

/// The position of a tensor's data.
struct ByteSpan<'de> {
    begin: u64,
    end: u64,
    name: Cow<'de, str>,
}

/// The state of a walk.
struct Walk<'de, 'e> {
    spans: Vec<ByteSpan<'de>>,
    warnings: HeaderWarnings,
    /// Whether the safetensors crate would reject the entries so far.
    is_rejected: bool,
    /// The reason why the walk ended, if its JSON is valid so far.
    stopped: Option<HeaderError>,
    visit: TensorVisitor<'e>,
}

impl<'de> Walk<'de, '_> {
    fn deserialize_from<D: Deserializer<'de>>(&mut self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }

    /// Checks one tensor and passes it to the visitor.
    fn visit_tensor(
        &mut self,
        name: Cow<'de, str>,
        entry: &HeaderEntry<'de>,
    ) -> Result<(), HeaderError> {
        if self.spans.len() == MAX_TENSORS {
            return Err(HeaderError::TooManyTensors);
        }

        if name.len() > MAX_NAME_BYTES {
            let length = name.len();
            let why = format!("its name has {length} bytes, more than {MAX_NAME_BYTES}");
            return Err(bad(&name, why));
        }

        let (begin, end) = entry.data_offsets;
        let Some(by_offsets) = end.checked_sub(begin) else {
            let why = format!("its data ends at {end}, before it begins at {begin}");
            return Err(bad(&name, why));
        };

        let shape = entry
            .shape
            .sizes()
            .ok_or_else(|| bad(&name, format!("{} dimensions", entry.shape.rank())))?;
        let storage = storage(&entry.dtype);
        let by_offsets = Bytes::new(by_offsets);
        let bytes = match self.bytes_by_shape(&storage, shape, &name)? {
            Some(by_shape) if by_shape != by_offsets => {
                self.is_rejected = true;
                self.warnings.add(|| {
                    let name = shortened(&name);
                    format!("tensor {name}: shape and offsets disagree on its size")
                });
                by_shape.max(by_offsets)
            }
            _ => by_offsets,
        };

        (self.visit)(TensorEntry {
            name: &name,
            storage,
            shape,
            bytes,
            begin,
        })?;

        self.spans.push(ByteSpan { begin, end, name });
        Ok(())
    }

    /// Returns the size by type and shape, or `None` for an unknown type.
    fn bytes_by_shape(
        &mut self,
        storage: &Storage,
        shape: &[u64],
        name: &str,
    ) -> Result<Option<Bytes>, HeaderError> {
        let dtype = match storage {
            Storage::Known(dtype) => *dtype,
            Storage::Unknown(dtype) => {
                self.is_rejected = true;
                self.warnings
                    .add(|| format!("tensor {}: type {dtype} is not known", shortened(name)));
                return Ok(None);
            }
        };

        let elements = Bytes::product(shape.iter().copied());
        if elements.overflowed() {
            return Err(bad(
                name,
                "its shape has more elements than 64 bits count".into(),
            ));
        }

        let (block, bytes) = dtype.block();
        let stored = dtype.stored(elements.get());

        // The crate counts in bits, and elements must fill whole bytes.
        self.is_rejected |= elements
            .get()
            .checked_mul(bytes * 8 / block)
            .is_none_or(|bits| !bits.is_multiple_of(8));

        // A partial block is rounded up; the offsets count if they are larger.
        Ok(Some(
            stored.unwrap_or_else(|| elements.div_ceil(block) * bytes),
        ))
    }

    /// Adds a warning for each repeated name.
    fn check_names(&mut self) {
        self.spans
            .sort_unstable_by(|left, right| left.name.cmp(&right.name));

        for (left, right) in self.spans.iter().zip(self.spans.iter().skip(1)) {
            if left.name == right.name {
                self.is_rejected = true;
                self.warnings
                    .add(|| format!("tensor {} is listed twice", shortened(&left.name)));
            }
        }
    }

    /// Sorts the spans by position, and adds a warning for each gap and overlap.
    ///
    /// Returns the end of the data and the bytes in gaps.
    fn check_spans(&mut self) -> (u64, u64) {
        self.spans.sort_unstable_by(|left, right| {
            (left.begin, left.end, &left.name).cmp(&(right.begin, right.end, &right.name))
        });

        let (mut end_so_far, mut uncovered) = (0_u64, 0_u64);
        for span in &self.spans {
            uncovered = uncovered.saturating_add(span.begin.saturating_sub(end_so_far));
            if span.begin != end_so_far {
                self.is_rejected = true;
                let what = if span.begin > end_so_far {
                    "a gap before"
                } else {
                    "an overlap with"
                };
                self.warnings
                    .add(|| format!("{what} tensor {}", shortened(&span.name)));
            }

            end_so_far = end_so_far.max(span.end);
        }

        (end_so_far, uncovered)
    }
}

impl<'de> Visitor<'de> for &mut Walk<'de, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut has_metadata = false;
        while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
            if name == "__metadata__" {
                let TextMap { is_valid } = map.next_value()?;
                self.is_rejected |= has_metadata || !is_valid;
                has_metadata = true;
                continue;
            }

            let entry = map.next_value::<HeaderEntry<'de>>()?;
            if let Err(error) = self.visit_tensor(name, &entry) {
                self.stopped = Some(error);
                return Err(A::Error::custom("stopped"));
            }
        }

        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::bytes::Bytes;
    use crate::model::Storage;
    use crate::model::safetensors::{HeaderError, TensorEntry, parse, walk};

    fn parse_error(json: &str) -> HeaderError {
        parse(json.as_bytes(), None).expect_err(json)
    }

    #[test]
    fn unknown_type_is_sized_by_offsets() {
        let json = br#"{"a":{"dtype":"F3","shape":[8],"data_offsets":[0,3]}}"#;
        let header = parse(json, Some(3)).expect("sized by offsets");
        assert_eq!(header.tensors[0].storage, Storage::Unknown("F3".into()));
        assert_eq!(header.tensors[0].bytes, Bytes::new(3));

        assert!(
            header
                .warnings
                .iter()
                .any(|warning| warning.contains("type F3 is not known")),
            "{:?}",
            header.warnings
        );
    }

    #[test]
    fn gaps_overlaps_and_duplicates_warn() {
        let json = br#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[2,6]},
            "a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}"#;
        let header = parse(json, None).expect("sized");
        assert_eq!(header.data_bytes, Bytes::new(8));
        assert_eq!(header.tensors.len(), 2);
        let warnings = header.warnings.join("; ");

        for words in ["a gap before", "an overlap with", "is listed twice"] {
            assert!(warnings.contains(words), "{warnings}");
        }
    }

    #[test]
    fn larger_of_two_sizes_counts() {
        let json = br#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,4]}}"#;
        assert_eq!(
            parse(json, None).expect("sized").tensors[0].bytes,
            Bytes::new(16)
        );
    }

    #[test]
    fn tensors_without_a_size_are_errors() {
        for json in [
            "[1,2]",
            r#"{"a":{"dtype":"F32"}}"#,
            r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#,
            &"[".repeat(100_000),
        ] {
            assert!(matches!(parse_error(json), HeaderError::NotJson(_)));
        }

        let backwards = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#;
        let vast = r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}"#;
        for json in [backwards, vast] {
            assert!(matches!(parse_error(json), HeaderError::BadTensor { .. }));
        }
    }

    /// The crate accepts the headers without warnings, and rejects those with warnings.
    #[test]
    fn safetensors_crate_agrees() {
        let good = [
            "{}",
            r#"{"__metadata__":null,"a":{"dtype":"F4","shape":[4],"data_offsets":[0,2]}}"#,
            r#"{"\u0061":{"dtype":"C64","shape":[],"data_offsets":[0,8],"extra":[{}]},
                "b":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[8,11]}}"#,
            r#"{"b":{"dtype":"BOOL","shape":[0,7],"data_offsets":[4,4]},
                "a":{"shape":[2,2],"dtype":"U8","data_offsets":[0,4]}}"#,
        ];

        let odd = [
            r#"{"__metadata__":{"a":1}}"#,
            r#"{"__metadata__":[]}"#,
            r#"{"__metadata__":{},"__metadata__":{}}"#,
            r#"{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}"#,
            r#"{"a":{"dtype":"F16","shape":[3],"data_offsets":[1,7]}}"#,
            r#"{"a":{"dtype":"F16","shape":[3],"data_offsets":[0,5]}}"#,
            r#"{"a":{"dtype":"Q4_0","shape":[32],"data_offsets":[0,18]}}"#,
            r#"{"a":{"dtype":"U8","shape":[4611686018427387904],
                "data_offsets":[0,4611686018427387904]}}"#,
        ];

        let crate_accepts =
            |json: &str| serde_json::from_str::<safetensors::tensor::Metadata>(json).is_ok();
        for json in good {
            assert!(
                crate_accepts(json)
                    && parse(json.as_bytes(), None)
                        .expect(json)
                        .warnings
                        .is_empty(),
                "{json}"
            );
        }

        for json in odd {
            let warnings = parse(json.as_bytes(), None).expect(json).warnings;
            assert!(
                !crate_accepts(json) && warnings[0].contains("crate refuses the header ("),
                "{json}: {warnings:?}"
            );
        }
    }

    #[test]
    fn names_and_ranks_are_bounded() {
        let header_of = |name: &str, shape: &str| {
            format!(r#"{{"{name}":{{"dtype":"U8","shape":[{shape}],"data_offsets":[0,1]}}}}"#)
        };

        let many_dimensions = parse_error(&header_of("a", &vec!["1"; 33].join(",")));
        assert!(many_dimensions.to_string().contains("33 dimensions"));
        let long_name = parse_error(&header_of(&"n".repeat(1025), "1"));
        assert!(long_name.to_string().contains("1025 bytes"));
    }

    #[test]
    fn visitor_error_ends_the_walk() {
        let json = br#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
            "b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#;
        let walk_at_most = |limit: u64| {
            let mut visited = 0;
            let mut count_visit = |_: TensorEntry<'_>| {
                visited += 1;
                if visited > limit {
                    Err(HeaderError::TooManyKinds(7))
                } else {
                    Ok(())
                }
            };

            walk(json, Some(2), &mut count_visit).map(|outline| outline.tensors)
        };

        assert_eq!(
            (walk_at_most(2), walk_at_most(1)),
            (Ok(2), Err(HeaderError::TooManyKinds(7)))
        );
    }

    #[test]
    fn listed_warnings_are_bounded() {
        let entry_json = |n: u64| {
            format!(
                r#""t{n}":{{"dtype":"X","shape":[1],"data_offsets":[{n},{}]}}"#,
                n + 1
            )
        };

        let json = format!(
            "{{{}}}",
            (0..100).map(entry_json).collect::<Vec<_>>().join(",")
        );
        let warnings = parse(json.as_bytes(), None).expect("sized").warnings;
        assert_eq!(warnings.len(), 9);
        assert_eq!(warnings[8], "and 93 more warnings about this header");
    }
}
