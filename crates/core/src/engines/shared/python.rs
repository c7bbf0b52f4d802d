//! Python source in launch lines.

use serde_json::Value;

/// A Python string literal; JSON's escapes are valid in Python.
pub(crate) fn literal(text: &str) -> String {
    Value::from(text).to_string()
}
