//! A second reading of headers that the safetensors crate refuses: types newer than it, gaps, overlaps, wrong sizes.
//!
//! Each tensor is sized by its offsets or by its shape, whichever is more, so that a contradiction can only raise the
//! need; each oddity becomes a doubt. What cannot be sized at all is an error.

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};

use super::{Header, HeaderError, MAX_TENSORS, Tensor, bad, shortened, storage};
use crate::bytes::Bytes;
use crate::model::tensors::Storage;

/// Doubts that one header may list; the rest is counted.
const MAX_DOUBTS: usize = 8;

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The entries in the order of the file, with names that occur twice kept twice.
struct Entries(Vec<(String, Entry)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else if entries.len() > MAX_TENSORS {
                        // One more than allowed is kept, by which the caller sees it.
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        entries.push((name, map.next_value()?));
                    }
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// Reads `json`, which the crate refused for the reason `refusal`.
pub(super) fn parse(json: &[u8], refusal: &str) -> Result<Header, HeaderError> {
    let Entries(mut entries) =
        serde_json::from_slice(json).map_err(|error| HeaderError::NotJson(shortened(&error.to_string())))?;
    if entries.len() > MAX_TENSORS {
        return Err(HeaderError::TooManyTensors);
    }
    entries.sort_by(|(left, a), (right, b)| (a.data_offsets, left).cmp(&(b.data_offsets, right)));

    let mut doubts = Doubts::default();
    doubts.add(format!("the safetensors crate refuses the header ({}); sized by its offsets", shortened(refusal)));
    let mut names = HashSet::with_capacity(entries.len());
    let mut end_so_far = 0;
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, entry) in &entries {
        let (begin, end) = entry.data_offsets;
        let Some(by_offsets) = end.checked_sub(begin) else {
            return Err(bad(name, format!("its data ends at {end}, before it begins at {begin}")));
        };
        if !names.insert(name) {
            doubts.add(format!("tensor {} stands twice", shortened(name)));
        }
        if begin != end_so_far {
            let what = if begin > end_so_far { "a gap before" } else { "an overlap with" };
            doubts.add(format!("{what} tensor {}", shortened(name)));
        }
        end_so_far = end_so_far.max(end);
        let storage = storage(&entry.dtype);
        let bytes = by_shape(&storage, &entry.shape, name, &mut doubts)?
            .filter(|&by_shape| by_shape != Bytes::new(by_offsets))
            .map_or(Bytes::new(by_offsets), |by_shape| {
                doubts.add(format!("tensor {}: shape and offsets disagree on its size", shortened(name)));
                by_shape.max(Bytes::new(by_offsets))
            });
        tensors.push(Tensor { name: name.clone(), storage, shape: entry.shape.clone(), bytes });
    }
    Ok(Header { tensors, data_bytes: Bytes::new(end_so_far), doubts: doubts.finish() })
}

/// The size that type and shape give; `None` where the type is not known.
fn by_shape(storage: &Storage, shape: &[u64], name: &str, doubts: &mut Doubts) -> Result<Option<Bytes>, HeaderError> {
    let dtype = match storage {
        Storage::Known(dtype) => *dtype,
        Storage::Unknown(dtype) => {
            doubts.add(format!("tensor {}: type {dtype} is not known", shortened(name)));
            return Ok(None);
        }
    };
    let elements = Bytes::product(shape.iter().copied());
    if elements.overflowed() {
        return Err(bad(name, "its shape has more elements than 64 bits count".into()));
    }
    // Elements that do not fill whole bytes: round up, the offsets decide unless they say less.
    let (block, bytes) = dtype.block();
    Ok(Some(dtype.stored(elements.get()).unwrap_or_else(|| elements.div_ceil(block) * bytes)))
}

#[derive(Default)]
struct Doubts {
    said: Vec<String>,
    more: u64,
}

impl Doubts {
    fn add(&mut self, doubt: String) {
        if self.said.len() < MAX_DOUBTS {
            self.said.push(doubt);
        } else {
            self.more += 1;
        }
    }

    fn finish(mut self) -> Vec<String> {
        if self.more > 0 {
            self.said.push(format!("and {} more doubts of this header", self.more));
        }
        self.said
    }
}

#[cfg(test)]
mod tests {
    use crate::bytes::Bytes;
    use crate::model::Storage;
    use crate::model::safetensors::{HeaderError, parse};

    #[test]
    fn an_unknown_type_is_sized_by_its_offsets_and_doubted() {
        let json = br#"{"a":{"dtype":"F3","shape":[8],"data_offsets":[0,3]}}"#;
        let header = parse(json, Some(3)).expect("sized by offsets");
        assert_eq!(header.tensors[0].storage, Storage::Unknown("F3".into()));
        assert_eq!(header.tensors[0].bytes, Bytes::new(3));
        assert!(header.doubts.iter().any(|doubt| doubt.contains("type F3 is not known")), "{:?}", header.doubts);
    }

    #[test]
    fn gaps_overlaps_and_duplicates_are_doubted_and_counted() {
        let json = br#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[2,6]},"a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}"#;
        let header = parse(json, None).expect("odd but sized");
        assert_eq!(header.data_bytes, Bytes::new(8));
        assert_eq!(header.tensors.len(), 2);
        let doubts = header.doubts.join("; ");
        for said in ["a gap before", "an overlap with", "stands twice"] {
            assert!(doubts.contains(said), "{doubts}");
        }
    }

    #[test]
    fn of_two_sizes_the_larger_counts() {
        let json = br#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,4]}}"#;
        assert_eq!(parse(json, None).expect("sized").tensors[0].bytes, Bytes::new(16));
    }

    #[test]
    fn what_cannot_be_sized_is_an_error() {
        let refused = |json: &str| parse(json.as_bytes(), None).expect_err(json);
        assert!(matches!(refused("[1,2]"), HeaderError::NotJson(_)));
        assert!(matches!(refused(r#"{"a":{"dtype":"F32"}}"#), HeaderError::NotJson(_)));
        assert!(matches!(
            refused(r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#),
            HeaderError::NotJson(_)
        ));
        let backwards = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#;
        assert!(matches!(refused(backwards), HeaderError::BadTensor { .. }));
        let vast = r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}"#;
        assert!(matches!(refused(vast), HeaderError::BadTensor { .. }));
        assert!(matches!(refused(&"[".repeat(100_000)), HeaderError::NotJson(_)));
    }

    #[test]
    fn at_most_eight_doubts_are_listed() {
        let entry = |n: u64| format!(r#""t{n}":{{"dtype":"X","shape":[1],"data_offsets":[{n},{}]}}"#, n + 1);
        let json = format!("{{{}}}", (0..100).map(entry).collect::<Vec<_>>().join(","));
        let doubts = parse(json.as_bytes(), None).expect("sized").doubts;
        assert_eq!(doubts.len(), 9);
        assert_eq!(doubts[8], "and 93 more doubts of this header");
    }
}
