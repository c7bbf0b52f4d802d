//! Access to the keys `{family}.*`, with one value for all layers or one for each.

use std::collections::BTreeSet;

use crate::model::architecture::Unsupported;
use crate::model::gguf::{Gguf, Value};

/// Maximum number of layers, which bounds the memory for a claimed number. No model has as many.
const MAX_LAYERS: u64 = 4096;
/// Maximum value of a width, or of a number of heads, tokens or experts.
const MAX_VALUE: u64 = 1 << 40;

/// The metadata of one file under its family's prefix.
pub(super) struct Keys<'g> {
    pub(super) gguf: &'g Gguf,
    pub(super) family: &'g str,
}

impl<'g> Keys<'g> {
    /// Returns `{family}.{key}`.
    pub(super) fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.family)
    }

    fn value(&self, key: &str) -> Option<&'g Value> {
        self.gguf.metadata.get(&self.name(key))
    }

    /// Returns whether the file has the key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// Returns a truth value, or `None` if the key is absent or of another type.
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        match self.value(key) {
            Some(Value::Bool(flag)) => Some(*flag),
            _ => None,
        }
    }

    /// Returns the family's first key that begins with `prefix` and is not 0.
    ///
    /// A value of 0 means the same as an absent key.
    pub(super) fn first_with_prefix(&self, prefix: &str) -> Option<String> {
        let prefix = self.name(prefix);
        let following = self.gguf.metadata.0.range(prefix.clone()..);
        let mut matching = following.take_while(|(key, _)| key.starts_with(&prefix));
        matching
            .find(|(_, value)| **value != Value::Unsigned(0))
            .map(|(key, _)| key.clone())
    }

    /// Returns one value for the whole model, or `None` if the key is absent.
    pub(super) fn optional(&self, key: &str) -> Result<Option<u64>, Unsupported> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Unsigned(value)) => self.bounded(key, *value).map(Some),
            Some(Value::Signed(value)) => self.non_negative(key, *value).map(Some),
            Some(other) => {
                Err(self.contradiction(key, format!("{other:?}"), "not one whole number"))
            }
        }
    }

    /// Returns one value for the whole model. An absent key is an error.
    pub(super) fn required(&self, key: &str) -> Result<u64, Unsupported> {
        self.optional(key)?.ok_or_else(|| self.missing(key))
    }

    /// Returns the same as [`Keys::required`]. A value of 0 is an error.
    pub(super) fn positive(&self, key: &str) -> Result<u64, Unsupported> {
        match self.required(key)? {
            0 => Err(self.contradiction(key, "0".to_owned(), "must be larger")),
            value => Ok(value),
        }
    }

    /// Returns a number of layers. A number above [`MAX_LAYERS`] is an error.
    pub(super) fn layer_count(&self, key: &str) -> Result<u64, Unsupported> {
        match self.positive(key)? {
            value if value > MAX_LAYERS => {
                Err(self.contradiction(key, value.to_string(), "more layers than any model has"))
            }
            value => Ok(value),
        }
    }

    /// Returns a value for each of `layers` layers, from a scalar or an array of that length.
    pub(super) fn per_layer(
        &self,
        key: &str,
        layers: u64,
    ) -> Result<Option<Vec<u64>>, Unsupported> {
        let length = usize::try_from(layers.min(MAX_LAYERS)).unwrap_or(0);
        let items = match self.value(key) {
            Some(Value::Integers(items)) => items,
            Some(Value::Bool(value)) => return Ok(Some(vec![u64::from(*value); length])),
            _ => return Ok(self.optional(key)?.map(|value| vec![value; length])),
        };

        if items.len() != length {
            let why = "not as long as there are layers";
            return Err(self.contradiction(key, format!("an array of {}", items.len()), why));
        }

        let values: Result<Vec<u64>, Unsupported> = items
            .iter()
            .map(|item| self.non_negative(key, *item))
            .collect();
        values.map(Some)
    }

    /// Returns a list of any length, or `None` if the key is absent.
    pub(super) fn numbers(&self, key: &str) -> Result<Option<Vec<u64>>, Unsupported> {
        let Some(Value::Integers(items)) = self.value(key) else {
            return Ok(self.optional(key)?.map(|value| vec![value]));
        };

        let values: Result<Vec<u64>, Unsupported> = items
            .iter()
            .map(|item| self.non_negative(key, *item))
            .collect();
        values.map(Some)
    }

    /// Returns the number of distinct indices in a list where negative numbers mean none.
    pub(super) fn distinct_indices(&self, key: &str) -> usize {
        match self.value(key) {
            Some(Value::Integers(items)) => {
                let indices = items.iter().filter(|item| **item >= 0);
                indices.collect::<BTreeSet<_>>().len()
            }
            _ => 0,
        }
    }

    fn non_negative(&self, key: &str, value: i64) -> Result<u64, Unsupported> {
        match u64::try_from(value) {
            Ok(value) => self.bounded(key, value),
            Err(_) => Err(self.contradiction(key, value.to_string(), "negative")),
        }
    }

    fn bounded(&self, key: &str, value: u64) -> Result<u64, Unsupported> {
        if value > MAX_VALUE {
            Err(self.contradiction(key, value.to_string(), "too large to be meant"))
        } else {
            Ok(value)
        }
    }

    pub(super) fn missing(&self, key: &str) -> Unsupported {
        Unsupported::Missing {
            class: self.family.to_owned(),
            key: self.name(key),
        }
    }

    pub(super) fn contradiction(&self, key: &str, value: String, why: &str) -> Unsupported {
        let value = if value.len() > 80 {
            "a long value".to_owned()
        } else {
            value
        };

        Unsupported::Contradiction {
            key: self.name(key),
            value,
            why: why.to_owned(),
        }
    }
}
