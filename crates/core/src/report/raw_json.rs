//! A JSON object that is checked for its syntax and not yet read.
//!
//! When read, it takes up to about thirty times its length in memory. Many callers can wait at the
//! same time, so their metadata stays text until their turn.

use std::sync::Arc;

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use crate::strict_json;

/// One JSON object as text; clones share it.
#[derive(Clone, Debug)]
pub struct RawJson(Arc<RawValue>);

impl RawJson {
    /// Serializes `value`.
    pub fn new<T: Serialize>(value: &T) -> serde_json::Result<Self> {
        Ok(Self(to_raw_value(value)?.into()))
    }

    /// Reads the object; nesting is bounded as everywhere.
    pub fn read<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        strict_json::from_str(self.0.get())
    }
}

impl PartialEq for RawJson {
    /// Compares the text.
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Eq for RawJson {}

impl Serialize for RawJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RawJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        if !raw.get().starts_with('{') {
            return Err(Error::custom(
                "invalid type: expected an object of metadata",
            ));
        }

        Ok(Self(raw.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Question;

    #[test]
    fn text_is_kept_until_read() {
        let text =
            r#"{"model":{"repo":"a/b","revision":null,"file":null,"metadata":{"x": [1, 2.50]}}}"#;
        let question: Question = serde_json::from_str(text).unwrap();
        let metadata = question.model.metadata.clone().unwrap();

        assert!(
            serde_json::to_string(&question)
                .unwrap()
                .contains(r#""metadata":{"x": [1, 2.50]}"#)
        );

        assert_eq!(
            metadata.read::<serde_json::Value>().unwrap(),
            serde_json::json!({"x": [1, 2.5]})
        );

        // A tree in between works too, as in a test or a proxy.
        let tree = serde_json::to_value(&question).unwrap();
        assert!(
            serde_json::from_value::<Question>(tree)
                .unwrap()
                .model
                .metadata
                .is_some()
        );
    }

    #[test]
    fn other_json_and_deep_nesting_fail() {
        for wrong in ["{1}", "[]", "1", "null"] {
            assert!(serde_json::from_str::<RawJson>(wrong).is_err(), "{wrong}");
        }

        let nested = format!("{}1{}", "[".repeat(200), "]".repeat(200));
        let deep: RawJson = serde_json::from_str(&format!("{{\"x\": {nested}}}")).unwrap();
        let error = deep.read::<serde_json::Value>().unwrap_err().to_string();
        assert!(error.contains("recursion limit exceeded"), "{error}");
    }
}
