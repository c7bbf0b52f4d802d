//! JSON as model repositories hold it: bounded, and with the `NaN` and `Infinity` that Python's
//! `json` writes.
//!
//! Mamba configurations really say `"time_step_limit": [0.0, Infinity]`. Such words become `null`,
//! for no size depends on them.
//!
//! `[0,0,0]` takes sixteen times its length once it is parsed, `[{"":0}]` ninety times. So the
//! values of a document are counted before any is built, and the documents of one model have room
//! for so much together and no more.

use std::fmt;

use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::weight_files::{Index, WeightMap, WeightMapBuilder};

/// The largest configuration that is read; nearly all real ones stay below 1 MiB.
pub const MAX_DOCUMENT_BYTES: u64 = 8 << 20;
/// The largest index that is read; that of 100 000 tensors has some 12 MiB.
pub const MAX_INDEX_BYTES: u64 = 64 << 20;

/// Memory that the documents of one model may take together once they are parsed; real ones take
/// some 100 KiB, and lists of what each of 40 000 modules is quantised to some 30 MiB.
const MAX_PARSED_BYTES: u64 = 48 << 20;
/// The same of a reading that is nothing to wait for.
const MAX_SMALL_BYTES: u64 = 4 << 20;
/// What a name of an index takes at most in addition to its own text, where no other name has its
/// pattern.
const PAIR_BYTES: u64 = 192;
/// Tensors that the indices of one model may name together; the largest known names some 280 000.
const MAX_INDEX_TENSORS: usize = 1 << 19;

/// Why a document is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It cannot be understood.
    #[error("{0}")]
    NotJson(String),
    /// It would take more memory than there is for a model's documents.
    #[error("{0}")]
    TooMuch(String),
    /// It takes more than what is small, and the reading has not waited for its turn as a large
    /// one.
    #[error("it is large")]
    Large,
}

/// What the documents of one model may still take.
#[derive(Debug)]
pub struct Room {
    parsed_bytes: u64,
    tensors: usize,
    /// What may be taken before this is a large reading.
    small_bytes: Option<u64>,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            parsed_bytes: MAX_PARSED_BYTES,
            tensors: MAX_INDEX_TENSORS,
            small_bytes: None,
        }
    }
}

impl Room {
    /// Room for a reading that is small so far.
    pub fn small() -> Self {
        Self {
            small_bytes: Some(MAX_SMALL_BYTES),
            ..Self::default()
        }
    }

    /// The reading is a large one from now on.
    pub fn become_large(&mut self) {
        self.small_bytes = None;
    }

    /// Whether what was taken is small.
    pub fn is_small(&self) -> bool {
        MAX_PARSED_BYTES - self.parsed_bytes <= MAX_SMALL_BYTES
    }

    /// Takes `bytes` off what a small reading may take.
    fn take_small(&mut self, bytes: u64) -> Result<(), Refused> {
        let Some(left) = self.small_bytes else {
            return Ok(());
        };
        self.small_bytes = Some(left.checked_sub(bytes).ok_or(Refused::Large)?);
        Ok(())
    }

    /// Parses a document, once it is counted that its values have room.
    pub fn document(&mut self, text: &[u8]) -> Result<Value, Refused> {
        match self.parse(text) {
            Err(Refused::NotJson(why)) => {
                self.parse(&without_python_words(text))
                    .map_err(|second| match second {
                        Refused::NotJson(_) => Refused::NotJson(why),
                        other => other,
                    })
            }
            taken => taken,
        }
    }

    fn parse(&mut self, text: &[u8]) -> Result<Value, Refused> {
        let not_json =
            |error: serde_json::Error| Refused::NotJson(format!("it is not JSON: {error}"));
        let weight: Weight = serde_json::from_slice(text).map_err(not_json)?;
        let Some(left) = self.parsed_bytes.checked_sub(weight.bytes) else {
            return Err(Refused::TooMuch(format!(
                "its {} values take {} bytes of memory; all documents of one model may take {MAX_PARSED_BYTES}",
                weight.values, weight.bytes
            )));
        };

        self.take_small(weight.bytes)?;
        let value = serde_json::from_slice(text).map_err(not_json)?;
        self.parsed_bytes = left;

        Ok(value)
    }

    /// Parses an index of shards. A `total_size` that is a whole float counts; any other is left
    /// out.
    pub fn index(&mut self, text: &[u8]) -> Result<Index, Refused> {
        let pairs = text.split(|byte| *byte == b':').count() as u64;
        self.take_small(
            pairs
                .saturating_mul(PAIR_BYTES)
                .saturating_add(text.len() as u64),
        )?;

        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let raw = crate::strict_json::nested::<RawIndex, _>(&mut deserializer)
            .and_then(|raw| deserializer.end().map(|()| raw));

        let RawIndex {
            metadata,
            weight_map,
        } = raw
            .map_err(|error| Refused::NotJson(format!("it is not an index of weights: {error}")))?;

        let Some(left) = self.tensors.checked_sub(weight_map.named) else {
            return Err(Refused::TooMuch(format!(
                "it names {} tensors; all indices of one model may name {MAX_INDEX_TENSORS}",
                weight_map.named
            )));
        };

        self.tensors = left;
        let total = metadata.and_then(|metadata| metadata.total_size);

        Ok(Index {
            total_bytes: total.and_then(|Total(total)| total),
            weight_map: weight_map.names,
        })
    }
}

/// How many values a document has, and what they take as [`Value`]s: a vector has room for four
/// values at least, and a map is a tree whose nodes have room for eleven keys and are half full at
/// worst.
///
/// It is read as any value is, and keeps nothing of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    values: u64,
    bytes: u64,
}

impl Weight {
    const VALUE_BYTES: u64 = 32;
    const NODE_BYTES: u64 = 640;
    const KEYS_OF_A_NODE: u64 = 6;
    /// What an allocator adds to a text.
    const TEXT_BYTES: u64 = 16;

    /// Whether it is no more than what the documents of one model may take; what it is where it is
    /// more.
    pub fn within_bounds(self) -> Result<(), String> {
        let (values, bytes) = (self.values, self.bytes);
        if bytes <= MAX_PARSED_BYTES {
            return Ok(());
        }

        Err(format!(
            "its {values} values take {bytes} bytes of memory; a model may take {MAX_PARSED_BYTES}"
        ))
    }

    fn of(bytes: u64) -> Self {
        Self { values: 1, bytes }
    }

    fn text(length: usize) -> Self {
        Self::of(length as u64 + Self::TEXT_BYTES)
    }

    /// The same with `other` inside.
    fn with(self, other: Self) -> Self {
        Self {
            values: self.values + other.values,
            bytes: self.bytes + other.bytes,
        }
    }
}

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Weigh;
        impl<'de> Visitor<'de> for Weigh {
            type Value = Weight;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any JSON value")
            }

            fn visit_unit<E>(self) -> Result<Weight, E> {
                Ok(Weight::of(0))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Weight, E> {
                Ok(Weight::of(0))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Weight, E> {
                Ok(Weight::of(0))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Weight, E> {
                Ok(Weight::of(0))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Weight, E> {
                Ok(Weight::of(0))
            }

            fn visit_str<E>(self, text: &str) -> Result<Weight, E> {
                Ok(Weight::text(text.len()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Weight, A::Error> {
                let (mut all, mut length) = (Weight::of(0), 0_u64);
                while let Some(item) = list.next_element()? {
                    all = all.with(item);
                    length += 1;
                }

                let room = if length == 0 {
                    0
                } else {
                    length.next_power_of_two().max(4)
                };

                all.bytes += room * Weight::VALUE_BYTES;
                Ok(all)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Weight, A::Error> {
                let (mut all, mut keys) = (Weight::of(0), 0_u64);
                while let Some((key, item)) = map.next_entry::<Weight, Weight>()? {
                    all = all.with(item);
                    all.bytes += key.bytes;
                    keys += 1;
                }

                all.bytes += keys.div_ceil(Weight::KEYS_OF_A_NODE) * Weight::NODE_BYTES;
                Ok(all)
            }
        }

        deserializer.deserialize_any(Weigh)
    }
}

/// An index as it is written.
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

/// A whole number; `None` for any other value, of which nothing is kept.
struct Total(Option<u64>);

impl<'de> Deserialize<'de> for Total {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A number's text is borrowed and any other value's too: nothing is built of it.
        let text = <&RawValue>::deserialize(deserializer)?.get();
        let number = text.starts_with(|first: char| first == '-' || first.is_ascii_digit());
        let value: Option<Value> = number.then(|| serde_json::from_str(text).ok()).flatten();
        Ok(Self(value.as_ref().and_then(whole_number)))
    }
}

/// The names of an index, up to as many as there may be, and how many there are.
struct CountedNames {
    names: WeightMap,
    named: usize,
}

impl<'de> Deserialize<'de> for CountedNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
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

                // More are counted and not kept.
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

        deserializer.deserialize_map(Names)
    }
}

/// An integer, or a float below 2^53 that is one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range is checked just before"
)]
fn whole_number(value: &Value) -> Option<u64> {
    let float = || {
        value
            .as_f64()
            .filter(|float| float.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(float))
    };
    value.as_u64().or_else(|| float().map(|float| float as u64))
}

/// Replaces bare `NaN`, `Infinity` and `-Infinity` by `null`.
fn without_python_words(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let (mut rest, mut in_string) = (text, false);
    while let Some((&byte, tail)) = rest.split_first() {
        let word = [&b"-Infinity"[..], b"Infinity", b"NaN"]
            .into_iter()
            .find(|word| !in_string && rest.starts_with(word));
        if let Some(word) = word {
            out.extend_from_slice(b"null");
            rest = &rest[word.len()..];
            continue;
        }

        out.push(byte);
        rest = tail;

        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                if let Some((&escaped, tail)) = rest.split_first() {
                    out.push(escaped);
                    rest = tail;
                }
            }
            _ => {}
        }
    }

    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(text: &[u8]) -> Result<Value, Refused> {
        Room::default().document(text)
    }

    fn index(text: &[u8]) -> Result<Index, Refused> {
        Room::default().index(text)
    }

    #[test]
    fn values_are_counted_before_they_are_built() {
        let weight = |text: &str| serde_json::from_str::<Weight>(text).expect("JSON");
        assert_eq!(
            weight("[0,[],null]"),
            Weight {
                values: 4,
                bytes: 4 * 32
            }
        );

        assert_eq!(
            weight(r#"{"ab": "cde"}"#),
            Weight {
                values: 2,
                bytes: 640 + 18 + 19
            }
        );

        let hostile = |item: &str, count: usize| format!("[{}]", vec![item; count].join(","));
        for (item, count) in [
            ("0", 1 << 21),
            (r#"{"":0}"#, 1 << 17),
            ("[0]", 1 << 19),
            (r#""""#, 1 << 21),
        ] {
            let Err(Refused::TooMuch(why)) = document(hostile(item, count).as_bytes()) else {
                panic!("{item} taken")
            };
            assert!(
                why.contains(" values take ") && why.contains(&MAX_PARSED_BYTES.to_string()),
                "{why}"
            );
        }

        document(hostile("0", 1 << 19).as_bytes()).expect("room for a large one");
    }

    #[test]
    fn all_documents_of_one_model_share_their_room() {
        let mut room = Room::default();
        let half = format!("[{}]", vec!["0"; 1 << 20].join(","));
        room.document(half.as_bytes()).expect("the first");

        assert!(matches!(
            room.document(half.as_bytes()),
            Err(Refused::TooMuch(_))
        ));
        room.document(b"{}").expect("what was refused took nothing");
    }

    #[test]
    fn what_is_not_small_is_taken_by_a_large_reading_alone() {
        let (document, names) = (
            format!("[{}]", vec!["0"; 200_000].join(",")),
            "\"a\":\"f\",".repeat(40_000),
        );
        let index = format!("{{\"weight_map\":{{{names}\"b\":\"f\"}}}}");
        let mut room = Room::small();
        assert_eq!(room.document(document.as_bytes()), Err(Refused::Large));
        assert_eq!(room.index(index.as_bytes()), Err(Refused::Large));
        room.document(b"{}").expect("small");
        assert!(room.is_small());
        room.become_large();
        room.document(document.as_bytes()).expect("room");
        room.index(index.as_bytes()).expect("room");
        assert!(!room.is_small());
    }

    #[test]
    fn indices_name_no_more_tensors_than_any_model_has() {
        let of = |tensors: usize| {
            let names: Vec<String> = (0..tensors)
                .map(|name| format!(r#""{name:x}":"f""#))
                .collect();
            format!(r#"{{"weight_map":{{{}}}}}"#, names.join(","))
        };

        let mut room = Room {
            tensors: 7,
            ..Room::default()
        };

        assert_eq!(
            room.index(of(5).as_bytes()).expect("room").weight_map.len(),
            5
        );
        let Err(Refused::TooMuch(why)) = room.index(of(3).as_bytes()) else {
            panic!("eight of seven")
        };

        assert!(why.contains("it names 3 tensors"), "{why}");
        assert!(matches!(
            index(of(MAX_INDEX_TENSORS + 1).as_bytes()),
            Err(Refused::TooMuch(_))
        ));
    }

    #[test]
    fn python_words_outside_strings_become_null() {
        let text = br#"{"a": [0.0, Infinity, -Infinity], "b": NaN, "c": "NaN \" Infinity"}"#;
        assert_eq!(
            document(text),
            Ok(json!({"a": [0.0, null, null], "b": null, "c": "NaN \" Infinity"}))
        );
        assert!(document(b"<html>").is_err());
        assert!(document("[".repeat(10_000).as_bytes()).is_err());
    }

    #[test]
    fn totals_of_indices() {
        let total = |total: &str| {
            index(
                format!(r#"{{"metadata":{{"total_size":{total}}},"weight_map":{{"a":"f"}}}}"#)
                    .as_bytes(),
            )
            .expect("an index")
            .total_bytes
        };

        assert_eq!(total("12"), Some(12));
        assert_eq!(total("12.0"), Some(12));
        assert_eq!(total("12.5"), None);
        assert_eq!(total("-1"), None);
        assert_eq!(total("1e300"), None);
        assert_eq!(total(r#"[1, {"a": 2}]"#), None);
        assert!(index(br#"{"weight_map":{"a":1}}"#).is_err());

        assert_eq!(
            index(br#"{"weight_map":{}}"#)
                .expect("an index")
                .total_bytes,
            None
        );
    }
}
