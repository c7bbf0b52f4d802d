//! The index of sharded weights, parsed within a bound on the number of its tensors.

use std::fmt;

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::MAX_INDEX_TENSORS;
use crate::model::weight_files::{Index, WeightMap, WeightMapBuilder};

/// Parses an index. Also returns the number of tensors that it names.
///
/// The index stores at most [`MAX_INDEX_TENSORS`] names; further ones are only counted.
pub(super) fn parse(text: &[u8]) -> Result<(Index, usize), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let raw = crate::strict_json::nested::<RawIndex, _>(&mut deserializer)?;
    deserializer.end()?;

    let RawIndex {
        metadata,
        weight_map: CountedNames { names, named },
    } = raw;
    let total = metadata.and_then(|metadata| metadata.total_size);

    let index = Index {
        total_bytes: total.and_then(|Total(total)| total),
        weight_map: names,
    };
    Ok((index, named))
}

/// An index as its file has it.
#[derive(Deserialize)]
struct RawIndex {
    #[serde(default)]
    metadata: Option<IndexMetadata>,
    weight_map: CountedNames,
}

#[derive(Deserialize)]
struct IndexMetadata {
    #[serde(default)]
    total_size: Option<Total>,
}

/// A whole number; `None` for any other value.
struct Total(Option<u64>);

impl<'de> Deserialize<'de> for Total {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The raw text is borrowed, so values of other types are never built.
        let text = <&RawValue>::deserialize(deserializer)?.get();
        let is_number = text.starts_with(|first: char| first == '-' || first.is_ascii_digit());
        let value: Option<Value> = is_number.then(|| serde_json::from_str(text).ok()).flatten();
        Ok(Self(value.as_ref().and_then(whole_number)))
    }
}

/// The first names of an index, and the number of all names.
struct CountedNames {
    names: WeightMap,
    named: usize,
}

impl<'de> Deserialize<'de> for CountedNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(NamesVisitor)
    }
}

struct NamesVisitor;

impl<'de> Visitor<'de> for NamesVisitor {
    type Value = CountedNames;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of file names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<CountedNames, A::Error> {
        let (mut names, mut named) = (WeightMapBuilder::default(), 0);
        while named < MAX_INDEX_TENSORS
            && let Some((name, file)) = map.next_entry::<String, String>()?
        {
            names.add(&name, &file).map_err(A::Error::custom)?;
            named += 1;
        }

        // Names beyond the limit are counted and not stored.
        if named == MAX_INDEX_TENSORS {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                named += 1;
            }
        }

        Ok(CountedNames {
            names: names.finish(),
            named,
        })
    }
}

/// Returns an integer, or a float below 2^53 without a fraction.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range is checked just before"
)]
fn whole_number(value: &Value) -> Option<u64> {
    if let Some(integer) = value.as_u64() {
        return Some(integer);
    }

    value
        .as_f64()
        .filter(|float| float.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(float))
        .map(|float| float as u64)
}
