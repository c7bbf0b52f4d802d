//! The JSON values of a header: names, entries and the `__metadata__` object.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::MAX_RANK;

/// A text that is borrowed from the header unless it contains escapes.
pub(super) struct Name<'de>(pub(super) Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor)
    }
}

struct NameVisitor;

impl<'de> Visitor<'de> for NameVisitor {
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

/// The header's entry of one tensor.
#[derive(Deserialize)]
pub(super) struct HeaderEntry<'t> {
    #[serde(borrow)]
    pub(super) dtype: Cow<'t, str>,
    pub(super) shape: Shape,
    pub(super) data_offsets: (u64, u64),
}

/// A tensor's shape. Sizes beyond [`MAX_RANK`] are only counted.
pub(super) struct Shape {
    first: [u64; MAX_RANK],
    rank: usize,
}

impl Shape {
    /// Returns all sizes, or `None` if there are more than [`MAX_RANK`].
    pub(super) fn sizes(&self) -> Option<&[u64]> {
        self.first.get(..self.rank)
    }

    /// Returns the number of sizes.
    pub(super) fn rank(&self) -> usize {
        self.rank
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
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
            if let Some(slot) = shape.first.get_mut(shape.rank) {
                *slot = size;
            }
            shape.rank += 1;
        }

        Ok(shape)
    }
}

/// The `__metadata__` object, which must be an object of texts or `null`. Its texts are not stored.
pub(super) struct TextMap {
    pub(super) is_valid: bool,
}

impl<'de> Deserialize<'de> for TextMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&RawValue>::deserialize(deserializer)?.get();
        Ok(Self {
            is_valid: serde_json::from_str::<Option<ObjectOfTexts>>(text).is_ok(),
        })
    }
}

struct ObjectOfTexts;

impl<'de> Deserialize<'de> for ObjectOfTexts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TextsVisitor)
    }
}

struct TextsVisitor;

impl<'de> Visitor<'de> for TextsVisitor {
    type Value = ObjectOfTexts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ObjectOfTexts, A::Error> {
        while map.next_entry::<IgnoredAny, Name<'de>>()?.is_some() {}
        Ok(ObjectOfTexts)
    }
}
