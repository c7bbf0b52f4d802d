//! Key/value pairs of a header.
//!
//! Scalars, short strings and short numeric arrays are stored in full. Every other value is
//! represented by its length.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::GgufError;
use super::cursor::{Cursor, Stop, shown};

/// Minimum bytes of a pair: key length 8, one byte of key, type 4, one byte of value.
pub(super) const MIN_PAIR_BYTES: u64 = 14;
/// Maximum length of a key: "up to 65535 bytes long" (ggml `docs/gguf.md`).
const MAX_KEY_BYTES: u64 = 65_535;
/// Maximum length of a stored string. Longer ones are chat templates and licenses.
const MAX_STORED_TEXT_BYTES: u64 = 256;
/// Maximum length of a stored array. Longer ones are vocabularies; no model has as many layers.
const MAX_STORED_ARRAY_ITEMS: u64 = 4096;
/// Maximum depth of nested arrays. llama.cpp rejects them all, but a valid file with an unusual key
/// should still be parsed.
const MAX_ARRAY_DEPTH: u32 = 4;
/// Maximum bytes of all stored values. Beyond it, values are represented by their length.
const MAX_STORED_BYTES: usize = 1 << 20;

/// A metadata value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// An unsigned integer of any width.
    Unsigned(u64),
    /// A signed integer of any width.
    Signed(i64),
    /// A float of either width.
    Float(f64),
    /// A Boolean.
    Bool(bool),
    /// A short string.
    Text(String),
    /// A short array of integers or Booleans (0 and 1).
    Integers(Vec<i64>),
    /// Any other value, represented by its length.
    Long {
        /// Bytes of a string or items of an array.
        length: u64,
    },
}

/// The key/value pairs of a header.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Metadata(pub BTreeMap<String, Value>);

impl Metadata {
    /// Returns the value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// Returns a non-negative integer. Returns `None` if the key is absent or has another type.
    pub fn unsigned(&self, key: &str) -> Option<u64> {
        match self.get(key)? {
            Value::Unsigned(value) => Some(*value),
            Value::Signed(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    /// Returns a short string.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns a Boolean.
    pub fn truth(&self, key: &str) -> Option<bool> {
        match self.get(key)? {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// Returns the length of an array, whether its items are stored or not.
    pub fn length(&self, key: &str) -> Option<u64> {
        match self.get(key)? {
            Value::Integers(items) => Some(items.len() as u64),
            Value::Long { length } => Some(*length),
            _ => None,
        }
    }
}

/// The types in the file format, in the order of their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ValueKind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl ValueKind {
    fn read(cursor: &mut Cursor<'_>, key: &str) -> Result<Self, Stop> {
        Ok(match cursor.u32()? {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::Text,
            9 => Self::Array,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            id => {
                return Err(bad(
                    key,
                    format!("value type {id} does not exist (0 to 12 do)"),
                ));
            }
        })
    }

    /// Returns the bytes of one value, or `None` for types without a fixed size.
    const fn width(self) -> Option<u64> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Text | Self::Array => None,
        }
    }
}

fn bad(key: &str, why: impl Into<String>) -> Stop {
    GgufError::Metadata {
        key: shown(key.as_bytes()),
        why: why.into(),
    }
    .into()
}

/// Reads `count` pairs.
pub(super) fn read(cursor: &mut Cursor<'_>, count: u64) -> Result<Metadata, Stop> {
    let mut pairs = BTreeMap::new();
    let mut stored = 0_usize;

    for left in (0..count).rev() {
        let key = cursor.string(MAX_KEY_BYTES, "the length of a metadata key")?;
        let Ok(key) = std::str::from_utf8(key) else {
            return Err(bad(&shown(key), "the key is not UTF-8"));
        };

        let kind = ValueKind::read(cursor, key)?;
        let value = read_value(cursor, key, kind, stored < MAX_STORED_BYTES)?;
        let value_bytes = match &value {
            Value::Text(text) => text.len(),
            Value::Integers(items) => items.len().saturating_mul(8),
            _ => 8,
        };
        stored = stored.saturating_add(key.len()).saturating_add(value_bytes);

        // llama.cpp rejects a "duplicate key" too, so no value has to be chosen.
        if pairs.insert(key.to_owned(), value).is_some() {
            return Err(bad(key, "is in the header twice"));
        }

        cursor.expect(left, MIN_PAIR_BYTES, "metadata count", "")?;
    }

    Ok(Metadata(pairs))
}

/// Reads a value. It is represented by its length if it is long or `can_store` is false.
fn read_value(
    cursor: &mut Cursor<'_>,
    key: &str,
    kind: ValueKind,
    can_store: bool,
) -> Result<Value, Stop> {
    Ok(match kind {
        ValueKind::U8 => Value::Unsigned(u64::from(u8::from_le_bytes(cursor.array()?))),
        ValueKind::U16 => Value::Unsigned(u64::from(u16::from_le_bytes(cursor.array()?))),
        ValueKind::U32 => Value::Unsigned(u64::from(cursor.u32()?)),
        ValueKind::U64 => Value::Unsigned(cursor.u64()?),
        ValueKind::I8 => Value::Signed(i64::from(i8::from_le_bytes(cursor.array()?))),
        ValueKind::I16 => Value::Signed(i64::from(i16::from_le_bytes(cursor.array()?))),
        ValueKind::I32 => Value::Signed(i64::from(i32::from_le_bytes(cursor.array()?))),
        ValueKind::I64 => Value::Signed(i64::from_le_bytes(cursor.array()?)),
        ValueKind::F32 => Value::Float(f64::from(f32::from_le_bytes(cursor.array()?))),
        ValueKind::F64 => Value::Float(f64::from_le_bytes(cursor.array()?)),
        ValueKind::Bool => match cursor.array::<1>()? {
            [0] => Value::Bool(false),
            [1] => Value::Bool(true),
            [other] => return Err(bad(key, format!("{other} is not a Boolean"))),
        },
        ValueKind::Text => {
            let length = cursor.u64()?;
            let bytes = cursor.take(length)?;
            match std::str::from_utf8(bytes) {
                Ok(text) if can_store && length <= MAX_STORED_TEXT_BYTES => {
                    Value::Text(text.to_owned())
                }
                _ => Value::Long { length },
            }
        }
        ValueKind::Array => {
            let item = ValueKind::read(cursor, key)?;
            let count = cursor.u64()?;

            let is_integer = !matches!(
                item,
                ValueKind::Text | ValueKind::Array | ValueKind::F32 | ValueKind::F64
            );

            if can_store && is_integer && count <= MAX_STORED_ARRAY_ITEMS {
                read_integers(cursor, key, item, count)?
            } else {
                skip_array(cursor, key, item, count, 1)?;
                Value::Long { length: count }
            }
        }
    })
}

fn read_integers(
    cursor: &mut Cursor<'_>,
    key: &str,
    item: ValueKind,
    count: u64,
) -> Result<Value, Stop> {
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(match read_value(cursor, key, item, false)? {
            Value::Signed(value) => value,
            Value::Bool(value) => i64::from(value),
            Value::Unsigned(value) => i64::try_from(value)
                .map_err(|_| bad(key, format!("item {value} is above 2^63 - 1")))?,
            _ => return Err(bad(key, "an array of mixed types")),
        });
    }

    Ok(Value::Integers(items))
}

/// Skips an array.
fn skip_array(
    cursor: &mut Cursor<'_>,
    key: &str,
    item: ValueKind,
    count: u64,
    depth: u32,
) -> Result<(), Stop> {
    if let Some(width) = item.width() {
        cursor.expect(count, width, "array", key)?;
        return cursor.take(count.saturating_mul(width)).map(|_| ());
    }

    // A string has at least its length; an array has at least its item type and count.
    let min_bytes = if item == ValueKind::Text { 8 } else { 12 };
    cursor.expect(count, min_bytes, "array", key)?;

    for _ in 0..count {
        if item == ValueKind::Text {
            let length = cursor.u64()?;
            cursor.take(length)?;
        } else if depth >= MAX_ARRAY_DEPTH {
            return Err(bad(
                key,
                format!("arrays nested more than {MAX_ARRAY_DEPTH} deep"),
            ));
        } else {
            let inner = ValueKind::read(cursor, key)?;
            let inner_count = cursor.u64()?;
            skip_array(cursor, key, inner, inner_count, depth + 1)?;
        }
    }

    Ok(())
}
