//! Python as launch lines write it.

use serde_json::Value;

/// A Python string literal; JSON's escapes are Python's too.
pub(crate) fn literal(text: &str) -> String {
    Value::from(text).to_string()
}
