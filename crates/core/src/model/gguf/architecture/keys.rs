//! Reading `{family}.key`: one value for all layers or one for each, absent or contradictory.

use crate::model::architecture::Unsupported;
use crate::model::gguf::{Gguf, Value};

/// More layers than any model has; a bound on what is allocated for a claim.
const MAX_LAYERS: u64 = 4096;
/// Nothing that a model counts (width, heads, tokens, experts) is larger.
const MAX_VALUE: u64 = 1 << 40;

/// The metadata of one file under its family's prefix.
pub(super) struct Keys<'g> {
    pub(super) gguf: &'g Gguf,
    pub(super) family: &'g str,
}

impl<'g> Keys<'g> {
    /// `{family}.{key}`.
    pub(super) fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.family)
    }

    fn value(&self, key: &str) -> Option<&'g Value> {
        self.gguf.metadata.get(&self.name(key))
    }

    /// Whether the file has the key at all.
    pub(super) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// The first key of the family that begins with `start` and does not say 0, which is as good as
    /// no key.
    pub(super) fn first_that_begins(&self, start: &str) -> Option<String> {
        let whole = self.name(start);
        let from_there = self.gguf.metadata.0.range(whole.clone()..);
        let mut ours = from_there.take_while(|(key, _)| key.starts_with(&whole));
        ours.find(|(_, value)| **value != Value::Unsigned(0))
            .map(|(key, _)| key.clone())
    }

    /// One value for the whole model; `None` where the key is absent.
    pub(super) fn optional(&self, key: &str) -> Result<Option<u64>, Unsupported> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Unsigned(value)) => self.bounded(key, *value).map(Some),
            Some(Value::Signed(value)) => match u64::try_from(*value) {
                Ok(value) => self.bounded(key, value).map(Some),
                Err(_) => Err(self.contradiction(key, value.to_string(), "negative")),
            },
            Some(other) => {
                Err(self.contradiction(key, format!("{other:?}"), "not one whole number"))
            }
        }
    }

    /// One value for the whole model, which must be there.
    pub(super) fn required(&self, key: &str) -> Result<u64, Unsupported> {
        self.optional(key)?.ok_or_else(|| self.missing(key))
    }

    /// As [`Keys::required`], and not 0.
    pub(super) fn positive(&self, key: &str) -> Result<u64, Unsupported> {
        match self.required(key)? {
            0 => Err(self.contradiction(key, "0".to_owned(), "must be larger")),
            value => Ok(value),
        }
    }

    /// The number of layers, within reason.
    pub(super) fn layer_count(&self, key: &str) -> Result<u64, Unsupported> {
        match self.positive(key)? {
            value if value > MAX_LAYERS => {
                Err(self.contradiction(key, value.to_string(), "more layers than any model has"))
            }
            value => Ok(value),
        }
    }

    /// A value for each of `layers` layers: the scalar repeated, or the array, which must be as
    /// long.
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

        let item = |item: &i64| match u64::try_from(*item) {
            Ok(value) => self.bounded(key, value),
            Err(_) => Err(self.contradiction(key, item.to_string(), "negative")),
        };

        items
            .iter()
            .map(item)
            .collect::<Result<Vec<_>, _>>()
            .map(Some)
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
