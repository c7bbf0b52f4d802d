//! Typed, bounded access to the keys of one configuration object, with aliases and class defaults.
//!
//! Every accessor names the key in its error. An absent key has the default of its model class; a
//! key that is `null` has none, as in transformers' configuration classes.

use serde_json::{Map, Value};

use super::super::architecture::Unsupported;
use super::ignored::Ignored;

/// A JSON object.
pub(super) type Object = Map<String, Value>;

/// The largest valid value. No published size of a model comes near it.
const MAX_SIZE: u64 = 1 << 32;
/// Maximum length of a list that is read.
const MAX_LIST: usize = 4096;

/// The keys of a configuration object, and the defaults of absent keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a> {
    /// The class, for messages.
    pub(super) class: &'a str,
    /// The type of the language model.
    pub(super) model_type: &'a str,
    /// The object that accessors read.
    pub(super) own: &'a Object,
    /// The root object. It is the same as `own` for plain configurations.
    pub(super) root: &'a Object,
    /// The values of absent keys in this class.
    pub(super) defaults: &'static [(&'static str, u64)],
    /// Collects the values that are ignored.
    pub(super) ignored: &'a Ignored,
}

impl<'a> Fields<'a> {
    /// Returns the same model's fields with another object to read, without defaults.
    pub(super) fn inside(&self, own: &'a Object) -> Self {
        Self {
            own,
            defaults: &[],
            ..*self
        }
    }

    /// Returns the value of `key`, if it is present and not `null`.
    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.own.get(key).filter(|value| !value.is_null())
    }

    /// Returns whether `key` is present, `null` included.
    pub(super) fn has(&self, key: &str) -> bool {
        self.own.contains_key(key)
    }

    /// Reads a nested object.
    pub(super) fn object(&self, key: &str) -> Result<Option<&'a Object>, Unsupported> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(other) => Err(contradiction(key, other, "an object is expected")),
        }
    }

    /// Reads the first of `keys` that is present as a size of at least 1, else the class's default.
    pub(super) fn size(&self, keys: &[&str]) -> Result<Option<u64>, Unsupported> {
        match self.count(keys)? {
            Some(0) => {
                let key = keys
                    .iter()
                    .find(|key| self.value(key).is_some())
                    .or(keys.first())
                    .copied()
                    .unwrap_or_default();
                Err(contradiction(key, &Value::from(0), "must be at least 1"))
            }
            other => Ok(other),
        }
    }

    /// Reads a size like [`Fields::size`], but accepts 0.
    pub(super) fn count(&self, keys: &[&str]) -> Result<Option<u64>, Unsupported> {
        for key in keys {
            if let Some(value) = self.value(key) {
                return whole(key, value).map(Some);
            }
        }

        if keys.iter().any(|key| self.has(key)) {
            return Ok(None);
        }

        Ok(keys.iter().find_map(|key| self.default(key)))
    }

    /// Reads a size like [`Fields::size`], but fails if there is no value and no default.
    pub(super) fn need(&self, keys: &[&str]) -> Result<u64, Unsupported> {
        self.size(keys)?
            .ok_or_else(|| self.missing(keys.first().copied().unwrap_or_default()))
    }

    /// Returns the class's default for `key`.
    pub(super) fn default(&self, key: &str) -> Option<u64> {
        self.defaults
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, value)| *value)
    }

    /// Reads a Boolean.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, Unsupported> {
        match self.value(key) {
            None if self.has(key) => Ok(None),
            None => Ok(self.default(key).map(|value| value != 0)),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(contradiction(key, other, "true or false is expected")),
        }
    }

    /// Reads a text.
    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        self.value(key).and_then(Value::as_str)
    }

    /// Reads a positive factor.
    pub(super) fn factor(&self, key: &str) -> Result<Option<f64>, Unsupported> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(factor)
                    if factor.is_finite() && factor > 0.0 && factor <= f64::from(1 << 20) =>
                {
                    Ok(Some(factor))
                }
                _ => Err(contradiction(key, value, "a positive number is expected")),
            },
        }
    }

    /// Reads a list of numbers, usually one for each layer.
    pub(super) fn numbers(&self, key: &str) -> Result<Option<Vec<u64>>, Unsupported> {
        let Some(values) = self.list(key)? else {
            return Ok(None);
        };

        values
            .iter()
            .map(|value| whole(key, value))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// Reads a list of words, usually one for each layer.
    pub(super) fn words(&self, key: &str) -> Result<Option<Vec<&'a str>>, Unsupported> {
        let Some(values) = self.list(key)? else {
            return Ok(None);
        };

        values
            .iter()
            .map(|value| {
                value
                    .as_str()
                    .ok_or_else(|| contradiction(key, value, "a word is expected"))
            })
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// Reads a list of any values, with bounded length.
    pub(super) fn list(&self, key: &str) -> Result<Option<&'a Vec<Value>>, Unsupported> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Array(values)) if values.len() <= MAX_LIST => Ok(Some(values)),
            Some(other) => Err(contradiction(
                key,
                other,
                "a list of at most 4096 entries is expected",
            )),
        }
    }

    /// Returns the error for a key whose effect on the cache is unknown.
    pub(super) fn family(&self, key: impl Into<String>) -> Unsupported {
        Unsupported::Family {
            class: self.class.to_owned(),
            model_type: self.model_type.to_owned(),
            key: key.into(),
        }
    }

    /// Returns the error for an unknown word in a list with one entry per layer.
    pub(super) fn unknown_entry(&self, list: &str, layer: usize, word: &str) -> Unsupported {
        self.family(format!("{list}[{layer}] = {}", cut(word, 40)))
    }

    /// Returns the error for an unknown type whose tensors do not confirm ordinary attention.
    pub(super) fn unconfirmed(&self, why: &str) -> Unsupported {
        let (class, model_type) = (self.class.to_owned(), self.model_type.to_owned());

        Unsupported::Unconfirmed {
            class,
            model_type,
            why: why.to_owned(),
        }
    }

    /// Returns the error for an absent key without a default.
    pub(super) fn missing(&self, key: &str) -> Unsupported {
        Unsupported::Missing {
            class: self.class.to_owned(),
            key: key.to_owned(),
        }
    }

    /// Returns the error for a list whose length is not the number of layers.
    pub(super) fn length(&self, key: &str, length: usize, layers: usize) -> Unsupported {
        Unsupported::Contradiction {
            key: key.to_owned(),
            value: format!("a list of {length}"),
            why: format!("{} has {layers} layers", self.class),
        }
    }
}

/// Converts a whole number within bounds. As in Python, Booleans count as 0 and 1.
pub(super) fn whole(key: &str, value: &Value) -> Result<u64, Unsupported> {
    match (value.as_u64(), value) {
        (Some(number), _) if number <= MAX_SIZE => Ok(number),
        (Some(_), _) => Err(contradiction(key, value, "larger than 2^32")),
        (None, Value::Bool(flag)) => Ok(u64::from(*flag)),
        (None, _) => Err(contradiction(
            key,
            value,
            "a whole number of at least 0 is expected",
        )),
    }
}

/// Returns the error for an invalid value, which it shortens.
pub(super) fn contradiction(key: &str, value: &Value, why: impl Into<String>) -> Unsupported {
    // The kind of a container is enough, because its content may be nested or long.
    let value = match value {
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) => format!("'{}'", cut(text, 60)),
        other => cut(&other.to_string(), 60),
    };

    Unsupported::Contradiction {
        key: key.to_owned(),
        value,
        why: why.into(),
    }
}

/// Returns at most the first `chars` characters of `text`.
pub(super) fn cut(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}
