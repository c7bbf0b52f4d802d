//! JSON as model repositories hold it: bounded, and with the `NaN` and `Infinity` that Python's `json` writes.
//!
//! Mamba configurations really say `"time_step_limit": [0.0, Infinity]`. Such words become `null`, for no size depends
//! on them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::weights::Index;

/// The largest configuration that is read; real ones stay below 1 MiB.
pub const MAX_DOCUMENT_BYTES: u64 = 8 << 20;
/// The largest index that is read; that of 100 000 tensors has some 12 MiB.
pub const MAX_INDEX_BYTES: u64 = 64 << 20;

/// Parses a document.
pub fn document(text: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(text)
        .or_else(|refusal| serde_json::from_slice(&without_python_words(text)).map_err(|_| refusal))
        .map_err(|error| format!("it is not JSON: {error}"))
}

/// Parses an index of shards. A `total_size` that is a whole float counts; any other is left out.
pub fn index(text: &[u8]) -> Result<Index, String> {
    #[derive(Deserialize)]
    struct Raw {
        #[serde(default)]
        metadata: Option<BTreeMap<String, Value>>,
        weight_map: BTreeMap<String, String>,
    }
    let raw: Raw = serde_json::from_slice(text).map_err(|error| format!("it is not an index of weights: {error}"))?;
    let total = raw.metadata.as_ref().and_then(|metadata| metadata.get("total_size"));
    Ok(Index { total_bytes: total.and_then(whole_number), weight_map: raw.weight_map })
}

/// An integer, or a float below 2^53 that is one.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked just before")]
fn whole_number(value: &Value) -> Option<u64> {
    let float =
        || value.as_f64().filter(|float| float.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(float));
    value.as_u64().or_else(|| float().map(|float| float as u64))
}

/// Replaces bare `NaN`, `Infinity` and `-Infinity` by `null`.
fn without_python_words(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let (mut rest, mut in_string) = (text, false);
    while let Some((&byte, tail)) = rest.split_first() {
        let word =
            [&b"-Infinity"[..], b"Infinity", b"NaN"].into_iter().find(|word| !in_string && rest.starts_with(word));
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

    #[test]
    fn python_words_outside_strings_become_null() {
        let text = br#"{"a": [0.0, Infinity, -Infinity], "b": NaN, "c": "NaN \" Infinity"}"#;
        assert_eq!(document(text), Ok(json!({"a": [0.0, null, null], "b": null, "c": "NaN \" Infinity"})));
        assert!(document(b"<html>").is_err());
        assert!(document("[".repeat(10_000).as_bytes()).is_err());
    }

    #[test]
    fn totals_of_indices() {
        let total = |total: &str| {
            index(format!(r#"{{"metadata":{{"total_size":{total}}},"weight_map":{{"a":"f"}}}}"#).as_bytes())
                .expect("an index")
                .total_bytes
        };
        assert_eq!(total("12"), Some(12));
        assert_eq!(total("12.0"), Some(12));
        assert_eq!(total("12.5"), None);
        assert_eq!(total("-1"), None);
        assert_eq!(total("1e300"), None);
        assert!(index(br#"{"weight_map":{"a":1}}"#).is_err());
        assert_eq!(index(br#"{"weight_map":{}}"#).expect("an index").total_bytes, None);
    }
}
