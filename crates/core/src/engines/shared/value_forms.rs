//! Values in the notations of command lines and JSON.

use serde_json::Value;

/// Parses a switch as command lines and JSON write it.
pub fn switch(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(on) => Some(*on),
        Value::Number(number) => match number.as_u64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        },
        Value::String(word) => match word.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "on" | "yes" | "enabled" | "" => Some(true),
            "false" | "0" | "off" | "no" | "disabled" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// Whether `value` is `off` in another notation: `1` and `"1"`, `false` and `"off"`.
pub(super) fn means_same(off: &Value, value: &Value) -> bool {
    match off {
        Value::Bool(off) => switch(value) == Some(*off),
        Value::Number(off) => {
            let number = value
                .as_f64()
                .or_else(|| value.as_str()?.trim().parse().ok());
            number.is_some() && number == off.as_f64()
        }
        _ => {
            matches!(lower_text(value).as_str(), "null" | "none")
                || lower_text(off) == lower_text(value)
        }
    }
}

/// The text of `value` in lower case.
fn lower_text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
        .trim()
        .to_ascii_lowercase()
}
