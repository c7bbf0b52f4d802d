//! The memory that a JSON document takes once it is parsed.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::MAX_PARSED_BYTES;

/// The number of values in a document, and the bytes that they take as [`serde_json::Value`]s.
///
/// A vector has room for at least four values. A map is a tree whose nodes have room for eleven
/// keys and are at worst half full.
///
/// Deserializes from any JSON value and stores none of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParsedSize {
    values: u64,
    bytes: u64,
}

impl ParsedSize {
    const VALUE_BYTES: u64 = 32;
    const NODE_BYTES: u64 = 640;
    const KEYS_PER_NODE: u64 = 6;
    /// The allocator's overhead for one text.
    const TEXT_BYTES: u64 = 16;

    /// Checks the size against the budget of one model's documents. The error states the size.
    pub fn within_bounds(self) -> Result<(), String> {
        let (values, bytes) = (self.values, self.bytes);
        if bytes <= MAX_PARSED_BYTES {
            return Ok(());
        }

        Err(format!(
            "its {values} values take {bytes} bytes of memory; a model may take {MAX_PARSED_BYTES}"
        ))
    }

    /// Returns the number of values.
    pub(super) fn values(self) -> u64 {
        self.values
    }

    /// Returns the bytes that the values take.
    pub(super) fn bytes(self) -> u64 {
        self.bytes
    }

    fn one_value(bytes: u64) -> Self {
        Self { values: 1, bytes }
    }

    fn text(length: usize) -> Self {
        Self::one_value(length as u64 + Self::TEXT_BYTES)
    }

    /// Returns the sum of `self` and the nested `other`.
    fn plus(self, other: Self) -> Self {
        Self {
            values: self.values + other.values,
            bytes: self.bytes + other.bytes,
        }
    }
}

impl<'de> Deserialize<'de> for ParsedSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

struct SizeVisitor;

impl<'de> Visitor<'de> for SizeVisitor {
    type Value = ParsedSize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<ParsedSize, E> {
        Ok(ParsedSize::one_value(0))
    }

    fn visit_bool<E>(self, _: bool) -> Result<ParsedSize, E> {
        Ok(ParsedSize::one_value(0))
    }

    fn visit_u64<E>(self, _: u64) -> Result<ParsedSize, E> {
        Ok(ParsedSize::one_value(0))
    }

    fn visit_i64<E>(self, _: i64) -> Result<ParsedSize, E> {
        Ok(ParsedSize::one_value(0))
    }

    fn visit_f64<E>(self, _: f64) -> Result<ParsedSize, E> {
        Ok(ParsedSize::one_value(0))
    }

    fn visit_str<E>(self, text: &str) -> Result<ParsedSize, E> {
        Ok(ParsedSize::text(text.len()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ParsedSize, A::Error> {
        let (mut total, mut length) = (ParsedSize::one_value(0), 0_u64);
        while let Some(item) = list.next_element()? {
            total = total.plus(item);
            length += 1;
        }

        let capacity = if length == 0 {
            0
        } else {
            length.next_power_of_two().max(4)
        };

        total.bytes += capacity * ParsedSize::VALUE_BYTES;
        Ok(total)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ParsedSize, A::Error> {
        let (mut total, mut keys) = (ParsedSize::one_value(0), 0_u64);
        while let Some((key, item)) = map.next_entry::<ParsedSize, ParsedSize>()? {
            total = total.plus(item);
            total.bytes += key.bytes;
            keys += 1;
        }

        total.bytes += keys.div_ceil(ParsedSize::KEYS_PER_NODE) * ParsedSize::NODE_BYTES;
        Ok(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(text: &str) -> ParsedSize {
        serde_json::from_str(text).expect("JSON")
    }

    #[test]
    fn list_and_map_sizes_are_exact() {
        assert_eq!(
            size("[0,[],null]"),
            ParsedSize {
                values: 4,
                bytes: 4 * 32
            }
        );

        assert_eq!(
            size(r#"{"ab": "cde"}"#),
            ParsedSize {
                values: 2,
                bytes: 640 + 18 + 19
            }
        );
    }
}
