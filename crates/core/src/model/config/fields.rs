//! Typed, bounded access to the keys of one configuration object, with aliases and class defaults.
//!
//! Every accessor names the key in its error. An absent key takes the default of its model class; a
//! key that is there and `null` takes none, as in transformers' configuration classes.

use serde_json::{Map, Value};

use super::super::architecture::Unsupported;
use super::ignored::Ignored;

/// A JSON object.
pub(super) type Object = Map<String, Value>;

/// No published size of a model comes near it; beyond it a value cannot be meant.
const LARGEST_SIZE: u64 = 1 << 32;
/// Longest per-layer list that is read.
const LONGEST_LIST: usize = 4096;

/// The keys of a configuration and the defaults behind them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a> {
    /// For messages.
    pub(super) class: &'a str,
    /// Of the language model.
    pub(super) model_type: &'a str,
    /// The object that is read.
    pub(super) own: &'a Object,
    /// The root object; the same as `own` for plain configurations.
    pub(super) root: &'a Object,
    /// What absent keys mean in this class.
    pub(super) defaults: &'static [(&'static str, u64)],
    /// What is there and not used.
    pub(super) ignored: &'a Ignored,
}

impl<'a> Fields<'a> {
    /// The same model's keys in another object, without defaults.
    pub(super) fn inside(&self, own: &'a Object) -> Self {
        Self {
            own,
            defaults: &[],
            ..*self
        }
    }

    /// The value of `key`, where it is there and not `null`.
    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.own.get(key).filter(|value| !value.is_null())
    }

    /// Whether `key` is there, `null` included.
    pub(super) fn has(&self, key: &str) -> bool {
        self.own.contains_key(key)
    }

    /// A nested object.
    pub(super) fn object(&self, key: &str) -> Result<Option<&'a Object>, Unsupported> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(other) => Err(contradiction(key, other, "an object is expected")),
        }
    }

    /// The first of `keys` that is there: a size of at least 1; else the class's default.
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

    /// As [`Fields::size`], 0 allowed.
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

    /// As [`Fields::size`], and an error where nothing says.
    pub(super) fn need(&self, keys: &[&str]) -> Result<u64, Unsupported> {
        self.size(keys)?
            .ok_or_else(|| self.missing(keys.first().copied().unwrap_or_default()))
    }

    /// The class's default for `key`.
    pub(super) fn default(&self, key: &str) -> Option<u64> {
        self.defaults
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, value)| *value)
    }

    /// A truth value.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, Unsupported> {
        match self.value(key) {
            None if self.has(key) => Ok(None),
            None => Ok(self.default(key).map(|value| value != 0)),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(contradiction(key, other, "true or false is expected")),
        }
    }

    /// A text.
    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        self.value(key).and_then(Value::as_str)
    }

    /// A positive factor.
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

    /// A list of numbers, one for each layer.
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

    /// A list of words, one for each layer.
    pub(super) fn words(&self, key: &str) -> Result<Option<Vec<&'a str>>, Unsupported> {
        let Some(values) = self.list(key)? else {
            return Ok(None);
        };

        let word = |value: &'a Value| {
            value
                .as_str()
                .ok_or_else(|| contradiction(key, value, "a word is expected"))
        };

        values.iter().map(word).collect::<Result<_, _>>().map(Some)
    }

    /// A list of anything, its length bounded.
    pub(super) fn list(&self, key: &str) -> Result<Option<&'a Vec<Value>>, Unsupported> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Array(values)) if values.len() <= LONGEST_LIST => Ok(Some(values)),
            Some(other) => Err(contradiction(
                key,
                other,
                "a list of at most 4096 entries is expected",
            )),
        }
    }

    /// "Nobody knows what this key does to the cache."
    pub(super) fn family(&self, key: impl Into<String>) -> Unsupported {
        Unsupported::Family {
            class: self.class.to_owned(),
            model_type: self.model_type.to_owned(),
            key: key.into(),
        }
    }

    /// "Nothing shows that its cache is the usual one."
    pub(super) fn unproved(&self, why: &str) -> Unsupported {
        let (class, model_type) = (self.class.to_owned(), self.model_type.to_owned());

        Unsupported::Unproved {
            class,
            model_type,
            why: why.to_owned(),
        }
    }

    /// "This key is needed."
    pub(super) fn missing(&self, key: &str) -> Unsupported {
        Unsupported::Missing {
            class: self.class.to_owned(),
            key: key.to_owned(),
        }
    }

    /// "This list does not have an entry for each layer."
    pub(super) fn length(&self, key: &str, length: usize, layers: usize) -> Unsupported {
        Unsupported::Contradiction {
            key: key.to_owned(),
            value: format!("a list of {length}"),
            why: format!("{} has {layers} layers", self.class),
        }
    }
}

/// A whole number within bounds. Booleans count as 0 and 1, as they do in Python.
pub(super) fn whole(key: &str, value: &Value) -> Result<u64, Unsupported> {
    match (value.as_u64(), value) {
        (Some(number), _) if number <= LARGEST_SIZE => Ok(number),
        (Some(_), _) => Err(contradiction(key, value, "larger than any model's")),
        (None, Value::Bool(flag)) => Ok(u64::from(*flag)),
        (None, _) => Err(contradiction(
            key,
            value,
            "a whole number of at least 0 is expected",
        )),
    }
}

/// "This value cannot be meant", the value shortened.
pub(super) fn contradiction(key: &str, value: &Value, why: impl Into<String>) -> Unsupported {
    // A container may be nested or long: its kind says enough.
    let value = match value {
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) => format!("'{}'", text.chars().take(60).collect::<String>()),
        other => other.to_string().chars().take(60).collect(),
    };

    Unsupported::Contradiction {
        key: key.to_owned(),
        value,
        why: why.into(),
    }
}
