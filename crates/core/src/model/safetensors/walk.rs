//! One pass over the JSON of a header: each tensor is handed on as it comes, and of it are kept its
//! two offsets and, where the header is not at hand for it, its name. A header of a million tensors
//! takes 40 MiB beside its own text.
//!
//! What the safetensors crate accepts every loader accepts. What it refuses (a type newer than it,
//! gaps, overlaps, wrong sizes) is read all the same: each tensor is sized by its offsets or by its
//! shape, whichever is more, so that a contradiction can only raise the need; each oddity becomes a
//! doubt. What cannot be sized at all is an error.

use std::borrow::Cow;
use std::fmt;

use safetensors::tensor::Metadata;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{HeaderError, MAX_NAME_BYTES, MAX_RANK, MAX_TENSORS, Outline, bad, shortened, storage};
use crate::bytes::Bytes;
use crate::model::tensors::Storage;

/// Doubts that one header may list; the rest is counted.
const MAX_DOUBTS: usize = 8;
/// The longest header of which the crate itself is asked why it refuses it: it takes twenty times
/// the length for that.
const ASKED_BYTES: usize = 1 << 20;

/// One tensor as it passes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passing<'t> {
    /// Its name.
    pub name: &'t str,
    /// How its elements are stored.
    pub storage: Storage,
    /// Its shape.
    pub shape: &'t [u64],
    /// What is stored for it.
    pub bytes: Bytes,
    /// Where its data begins, behind the header.
    pub begin: u64,
}

/// What is done with each tensor; its error ends the walk.
pub type Each<'e> = &'e mut dyn FnMut(Passing<'_>) -> Result<(), HeaderError>;

/// Walks over `json`.
pub(super) fn walk(json: &[u8], each: Each<'_>) -> Result<Outline, HeaderError> {
    let mut walk = Walk {
        spans: Vec::new(),
        doubts: Doubts::default(),
        refused: false,
        stopped: None,
        each,
    };

    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let walked = walk
        .deserialize_from(&mut deserializer)
        .and_then(|()| deserializer.end());

    if let Some(error) = walk.stopped {
        return Err(error);
    }

    walked.map_err(|error| HeaderError::NotJson(shortened(&error.to_string())))?;
    let Walk {
        mut spans,
        mut doubts,
        mut refused,
        ..
    } = walk;

    spans.sort_unstable_by(|left, right| left.name.cmp(&right.name));
    for (left, right) in spans.iter().zip(spans.iter().skip(1)) {
        if left.name == right.name {
            refused = true;
            doubts.add(|| format!("tensor {} stands twice", shortened(&left.name)));
        }
    }

    spans.sort_unstable_by(|left, right| {
        (left.begin, left.end, &left.name).cmp(&(right.begin, right.end, &right.name))
    });
    let (mut end_so_far, mut uncovered) = (0_u64, 0_u64);
    for span in &spans {
        uncovered = uncovered.saturating_add(span.begin.saturating_sub(end_so_far));
        if span.begin != end_so_far {
            refused = true;
            let what = if span.begin > end_so_far {
                "a gap before"
            } else {
                "an overlap with"
            };
            doubts.add(|| format!("{what} tensor {}", shortened(&span.name)));
        }

        end_so_far = end_so_far.max(span.end);
    }

    Ok(Outline {
        tensors: spans.len(),
        data_bytes: Bytes::new(end_so_far),
        uncovered_bytes: uncovered,
        last: spans
            .last()
            .map_or_else(String::new, |span| shortened(&span.name)),
        doubts: doubts.finish(refused.then(|| refusal(json)).flatten()),
    })
}

/// What to say of a header that is not as loaders want it; `None` where the crate takes it all the
/// same.
fn refusal(json: &[u8]) -> Option<String> {
    if json.len() > ASKED_BYTES {
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

/// Where a tensor's data lies.
struct ByteSpan<'de> {
    begin: u64,
    end: u64,
    name: Cow<'de, str>,
}

struct Walk<'de, 'e> {
    spans: Vec<ByteSpan<'de>>,
    doubts: Doubts,
    /// Whether the crate would refuse what was seen so far.
    refused: bool,
    /// Why the walk ended, where it was not for its JSON.
    stopped: Option<HeaderError>,
    each: Each<'e>,
}

impl<'de> Walk<'de, '_> {
    fn deserialize_from<D: Deserializer<'de>>(&mut self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }

    fn pass(&mut self, name: Name<'de>, entry: &HeaderEntry<'de>) -> Result<(), HeaderError> {
        let Name(name) = name;
        if self.spans.len() == MAX_TENSORS {
            return Err(HeaderError::TooManyTensors);
        }

        if name.len() > MAX_NAME_BYTES {
            return Err(bad(
                &name,
                format!(
                    "its name has {} bytes, more than {MAX_NAME_BYTES}",
                    name.len()
                ),
            ));
        }

        let (begin, end) = entry.data_offsets;
        let Some(by_offsets) = end.checked_sub(begin) else {
            return Err(bad(
                &name,
                format!("its data ends at {end}, before it begins at {begin}"),
            ));
        };

        let shape = entry
            .shape
            .sizes()
            .ok_or_else(|| bad(&name, format!("{} dimensions", entry.shape.rank)))?;
        let storage = storage(&entry.dtype);
        let bytes = self
            .by_shape(&storage, shape, &name)?
            .filter(|&by_shape| by_shape != Bytes::new(by_offsets))
            .map_or(Bytes::new(by_offsets), |by_shape| {
                self.refused = true;
                self.doubts.add(|| {
                    format!(
                        "tensor {}: shape and offsets disagree on its size",
                        shortened(&name)
                    )
                });
                by_shape.max(Bytes::new(by_offsets))
            });

        (self.each)(Passing {
            name: &name,
            storage,
            shape,
            bytes,
            begin,
        })?;

        self.spans.push(ByteSpan { begin, end, name });
        Ok(())
    }

    /// The size that type and shape give; `None` where the type is not known.
    fn by_shape(
        &mut self,
        storage: &Storage,
        shape: &[u64],
        name: &str,
    ) -> Result<Option<Bytes>, HeaderError> {
        let dtype = match storage {
            Storage::Known(dtype) => *dtype,
            Storage::Unknown(dtype) => {
                self.refused = true;
                self.doubts
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
        self.refused |= elements
            .get()
            .checked_mul(bytes * 8 / block)
            .is_none_or(|bits| !bits.is_multiple_of(8));

        // Elements that do not fill whole bytes: round up, the offsets decide unless they say less.
        Ok(Some(
            stored.unwrap_or_else(|| elements.div_ceil(block) * bytes),
        ))
    }
}

impl<'de> Visitor<'de> for &mut Walk<'de, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut described = false;
        while let Some(name) = map.next_key::<Name<'de>>()? {
            if name.0 == "__metadata__" {
                let Texts(texts) = map.next_value()?;
                self.refused |= described || !texts;
                described = true;
                continue;
            }

            let entry = map.next_value::<HeaderEntry<'de>>()?;
            if let Err(error) = self.pass(name, &entry) {
                self.stopped = Some(error);
                return Err(A::Error::custom("stopped"));
            }
        }

        Ok(())
    }
}

/// A text that is taken from the header itself where it stands there as it is.
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

#[derive(Deserialize)]
struct HeaderEntry<'t> {
    #[serde(borrow)]
    dtype: Cow<'t, str>,
    shape: Shape,
    data_offsets: (u64, u64),
}

/// Sizes up to the rank that is read, and how many there were.
struct Shape {
    first: [u64; MAX_RANK],
    rank: usize,
}

impl Shape {
    fn sizes(&self) -> Option<&[u64]> {
        self.first.get(..self.rank)
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ElementSizes;
        impl<'de> Visitor<'de> for ElementSizes {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of sizes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Shape, A::Error> {
                let mut shape = Shape {
                    first: [0; MAX_RANK],
                    rank: 0,
                };

                while let Some(size) = list.next_element()? {
                    if let Some(place) = shape.first.get_mut(shape.rank) {
                        *place = size;
                    }
                    shape.rank += 1;
                }

                Ok(shape)
            }
        }

        deserializer.deserialize_seq(ElementSizes)
    }
}

/// Whether `__metadata__` is what the format wants, an object of texts; nothing of it is kept.
struct Texts(bool);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&serde_json::value::RawValue>::deserialize(deserializer)?.get();
        Ok(Self(
            serde_json::from_str::<Option<ObjectOfTexts>>(text).is_ok(),
        ))
    }
}

struct ObjectOfTexts;

impl<'de> Deserialize<'de> for ObjectOfTexts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = ObjectOfTexts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ObjectOfTexts, A::Error> {
                while map.next_entry::<IgnoredAny, Name<'de>>()?.is_some() {}
                Ok(ObjectOfTexts)
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[derive(Default)]
struct Doubts {
    said: Vec<String>,
    more: u64,
}

impl Doubts {
    fn add(&mut self, doubt: impl FnOnce() -> String) {
        if self.said.len() < MAX_DOUBTS {
            self.said.push(doubt());
        } else {
            self.more += 1;
        }
    }

    /// All that is said, with `first` before it.
    fn finish(mut self, first: Option<String>) -> Vec<String> {
        if let Some(first) = first {
            self.said.insert(0, first);
            if self.said.len() > MAX_DOUBTS {
                self.said.truncate(MAX_DOUBTS);
                self.more += 1;
            }
        }

        if self.more > 0 {
            self.said
                .push(format!("and {} more doubts of this header", self.more));
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

        assert!(
            header
                .doubts
                .iter()
                .any(|doubt| doubt.contains("type F3 is not known")),
            "{:?}",
            header.doubts
        );
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
        assert_eq!(
            parse(json, None).expect("sized").tensors[0].bytes,
            Bytes::new(16)
        );
    }

    #[test]
    fn what_cannot_be_sized_is_an_error() {
        let refused = |json: &str| parse(json.as_bytes(), None).expect_err(json);
        assert!(matches!(refused("[1,2]"), HeaderError::NotJson(_)));

        assert!(matches!(
            refused(r#"{"a":{"dtype":"F32"}}"#),
            HeaderError::NotJson(_)
        ));
        assert!(matches!(
            refused(r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#),
            HeaderError::NotJson(_)
        ));
        let backwards = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#;
        assert!(matches!(refused(backwards), HeaderError::BadTensor { .. }));
        let vast = r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}"#;
        assert!(matches!(refused(vast), HeaderError::BadTensor { .. }));

        assert!(matches!(
            refused(&"[".repeat(100_000)),
            HeaderError::NotJson(_)
        ));
    }

    /// What passes without a word is what the crate takes, and the crate refuses what is doubted.
    #[test]
    fn the_safetensors_crate_agrees() {
        let good = [
            "{}",
            r#"{"__metadata__":null,"a":{"dtype":"F4","shape":[4],"data_offsets":[0,2]}}"#,
            r#"{"\u0061":{"dtype":"C64","shape":[],"data_offsets":[0,8],"extra":[{}]},"b":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[8,11]}}"#,
            r#"{"b":{"dtype":"BOOL","shape":[0,7],"data_offsets":[4,4]},"a":{"shape":[2,2],"dtype":"U8","data_offsets":[0,4]}}"#,
        ];

        let odd = [
            r#"{"__metadata__":{"a":1}}"#,
            r#"{"__metadata__":[]}"#,
            r#"{"__metadata__":{},"__metadata__":{}}"#,
            r#"{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}"#,
            r#"{"a":{"dtype":"F16","shape":[3],"data_offsets":[1,7]}}"#,
            r#"{"a":{"dtype":"F16","shape":[3],"data_offsets":[0,5]}}"#,
            r#"{"a":{"dtype":"Q4_0","shape":[32],"data_offsets":[0,18]}}"#,
            r#"{"a":{"dtype":"U8","shape":[4611686018427387904],"data_offsets":[0,4611686018427387904]}}"#,
        ];

        let accepts =
            |json: &str| serde_json::from_str::<safetensors::tensor::Metadata>(json).is_ok();
        for json in good {
            assert!(
                accepts(json) && parse(json.as_bytes(), None).expect(json).doubts.is_empty(),
                "{json}"
            );
        }

        for json in odd {
            let doubts = parse(json.as_bytes(), None).expect(json).doubts;
            assert!(
                !accepts(json) && doubts[0].contains("crate refuses the header ("),
                "{json}: {doubts:?}"
            );
        }
    }

    #[test]
    fn names_and_ranks_have_bounds() {
        let refused = |json: String| {
            parse(json.as_bytes(), None)
                .expect_err("refused")
                .to_string()
        };

        let entry = |shape: &str| {
            format!(r#"{{"a":{{"dtype":"U8","shape":[{shape}],"data_offsets":[0,1]}}}}"#)
        };

        assert!(refused(entry(&vec!["1"; 33].join(","))).contains("33 dimensions"));
        assert!(
            refused(entry("1").replace("\"a\"", &format!("{:?}", "n".repeat(1025))))
                .contains("1025 bytes")
        );

        let ends = |most: u64| {
            let json = br#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#;
            let mut passed = 0;
            let mut each = |_: crate::model::safetensors::Passing<'_>| {
                passed += 1;
                if passed > most {
                    Err(HeaderError::TooManyKinds(7))
                } else {
                    Ok(())
                }
            };

            crate::model::safetensors::walk(json, Some(2), &mut each).map(|outline| outline.tensors)
        };

        assert_eq!(
            (ends(2), ends(1)),
            (Ok(2), Err(HeaderError::TooManyKinds(7)))
        );
    }

    #[test]
    fn at_most_eight_doubts_are_listed() {
        let entry = |n: u64| {
            format!(
                r#""t{n}":{{"dtype":"X","shape":[1],"data_offsets":[{n},{}]}}"#,
                n + 1
            )
        };

        let json = format!("{{{}}}", (0..100).map(entry).collect::<Vec<_>>().join(","));
        let doubts = parse(json.as_bytes(), None).expect("sized").doubts;
        assert_eq!(doubts.len(), 9);
        assert_eq!(doubts[8], "and 93 more doubts of this header");
    }
}
