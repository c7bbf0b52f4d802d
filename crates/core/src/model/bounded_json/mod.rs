//! Bounded parsing of the JSON documents in model repositories.
//!
//! Python's `json` writes bare `NaN` and `Infinity`: Mamba configurations have
//! `"time_step_limit": [0.0, Infinity]`. Such words become `null`, because no size depends on them.
//!
//! A parsed `[0,0,0]` takes sixteen times the memory of its text, and `[{"":0}]` ninety times. So
//! the size of a document is computed before any value is built, and all documents of one model
//! share one budget.

mod parsed_size;
mod shard_index;

use serde_json::Value;

use super::weight_files::Index;

pub use parsed_size::ParsedSize;

/// Maximum length of a configuration. Nearly all published ones are below 1 MiB.
pub const MAX_DOCUMENT_BYTES: u64 = 8 << 20;
/// Maximum length of an index. An index of 100 000 tensors has about 12 MiB.
pub const MAX_INDEX_BYTES: u64 = 64 << 20;

/// Memory that all parsed documents of one model can take together.
///
/// Published documents take about 100 KiB. Lists of the quantization of 40 000 modules take about
/// 30 MiB.
const MAX_PARSED_BYTES: u64 = 48 << 20;
/// Memory that the documents of a small model can take, which is read without waiting.
const MAX_SMALL_BYTES: u64 = 4 << 20;
/// Maximum memory of one name of an index in addition to its text, if no other name has its
/// pattern.
const PAIR_BYTES: u64 = 192;
/// Number of tensors that all indices of one model can name. The largest known number is about
/// 280 000.
const MAX_INDEX_TENSORS: usize = 1 << 19;

/// Why a document is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// The document cannot be parsed.
    #[error("{0}")]
    NotJson(String),
    /// The document exceeds the budget of the model's documents.
    #[error("{0}")]
    OverBudget(String),
    /// The document exceeds the budget of small models, and the caller holds no permit for large
    /// ones.
    #[error("it is large")]
    Large,
}

/// The remaining budget of one model's documents.
#[derive(Debug)]
pub struct DocumentBudget {
    parsed_bytes: u64,
    tensors: usize,
    /// Remaining bytes until the model counts as large; `None` if it is large already.
    small_bytes: Option<u64>,
}

impl Default for DocumentBudget {
    fn default() -> Self {
        Self {
            parsed_bytes: MAX_PARSED_BYTES,
            tensors: MAX_INDEX_TENSORS,
            small_bytes: None,
        }
    }
}

impl DocumentBudget {
    /// Returns the budget of a model that is small so far.
    pub fn small() -> Self {
        Self {
            small_bytes: Some(MAX_SMALL_BYTES),
            ..Self::default()
        }
    }

    /// Lifts the limit of small models.
    pub fn become_large(&mut self) {
        self.small_bytes = None;
    }

    /// Returns whether the documents parsed so far are small.
    pub fn is_small(&self) -> bool {
        MAX_PARSED_BYTES - self.parsed_bytes <= MAX_SMALL_BYTES
    }

    /// Subtracts `bytes` from the budget of small models.
    fn take_small(&mut self, bytes: u64) -> Result<(), DocumentError> {
        let Some(left) = self.small_bytes else {
            return Ok(());
        };
        self.small_bytes = Some(left.checked_sub(bytes).ok_or(DocumentError::Large)?);
        Ok(())
    }

    /// Parses a document if the budget has memory for its values.
    pub fn document(&mut self, text: &[u8]) -> Result<Value, DocumentError> {
        match self.parse(text) {
            Err(DocumentError::NotJson(why)) => {
                self.parse(&without_python_words(text))
                    .map_err(|second| match second {
                        DocumentError::NotJson(_) => DocumentError::NotJson(why),
                        other => other,
                    })
            }
            parsed => parsed,
        }
    }

    fn parse(&mut self, text: &[u8]) -> Result<Value, DocumentError> {
        let size: ParsedSize = serde_json::from_slice(text).map_err(|error| not_json(&error))?;
        let Some(left) = self.parsed_bytes.checked_sub(size.bytes()) else {
            return Err(DocumentError::OverBudget(format!(
                "its {} values take {} bytes of memory; all documents of one model may take \
                 {MAX_PARSED_BYTES}",
                size.values(),
                size.bytes()
            )));
        };

        self.take_small(size.bytes())?;
        let value = serde_json::from_slice(text).map_err(|error| not_json(&error))?;
        self.parsed_bytes = left;

        Ok(value)
    }

    /// Parses an index of shards.
    ///
    /// A `total_size` that is a whole float counts. Any other value of it is ignored.
    pub fn index(&mut self, text: &[u8]) -> Result<Index, DocumentError> {
        let pairs = text.split(|byte| *byte == b':').count() as u64;
        self.take_small(
            pairs
                .saturating_mul(PAIR_BYTES)
                .saturating_add(text.len() as u64),
        )?;

        let (index, named) = shard_index::parse(text).map_err(|error| {
            DocumentError::NotJson(format!("it is not an index of weights: {error}"))
        })?;
        let Some(left) = self.tensors.checked_sub(named) else {
            return Err(DocumentError::OverBudget(format!(
                "it names {named} tensors; all indices of one model may name {MAX_INDEX_TENSORS}"
            )));
        };

        self.tensors = left;
        Ok(index)
    }
}

fn not_json(error: &serde_json::Error) -> DocumentError {
    DocumentError::NotJson(format!("it is not JSON: {error}"))
}

/// Replaces bare `NaN`, `Infinity` and `-Infinity` by `null`.
fn without_python_words(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let (mut rest, mut in_string) = (text, false);
    while let Some((&byte, tail)) = rest.split_first() {
        let word = [&b"-Infinity"[..], b"Infinity", b"NaN"]
            .into_iter()
            .find(|word| !in_string && rest.starts_with(word));
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

    fn document(text: &[u8]) -> Result<Value, DocumentError> {
        DocumentBudget::default().document(text)
    }

    fn index(text: &[u8]) -> Result<Index, DocumentError> {
        DocumentBudget::default().index(text)
    }

    fn list_of(item: &str, count: usize) -> String {
        format!("[{}]", vec![item; count].join(","))
    }

    fn index_of(tensors: usize) -> String {
        let names: Vec<String> = (0..tensors)
            .map(|name| format!(r#""{name:x}":"f""#))
            .collect();
        format!(r#"{{"weight_map":{{{}}}}}"#, names.join(","))
    }

    fn total_bytes(total: &str) -> Option<u64> {
        let text = format!(r#"{{"metadata":{{"total_size":{total}}},"weight_map":{{"a":"f"}}}}"#);
        index(text.as_bytes()).expect("an index").total_bytes
    }

    #[test]
    fn hostile_documents_exceed_the_budget() {
        for (item, count) in [
            ("0", 1 << 21),
            (r#"{"":0}"#, 1 << 17),
            ("[0]", 1 << 19),
            (r#""""#, 1 << 21),
        ] {
            let Err(DocumentError::OverBudget(why)) = document(list_of(item, count).as_bytes())
            else {
                panic!("{item} accepted")
            };
            assert!(
                why.contains(" values take ") && why.contains(&MAX_PARSED_BYTES.to_string()),
                "{why}"
            );
        }

        document(list_of("0", 1 << 19).as_bytes()).expect("within the budget");
    }

    #[test]
    fn documents_share_one_budget() {
        let mut budget = DocumentBudget::default();
        let half = list_of("0", 1 << 20);
        budget.document(half.as_bytes()).expect("the first");

        assert!(matches!(
            budget.document(half.as_bytes()),
            Err(DocumentError::OverBudget(_))
        ));
        budget
            .document(b"{}")
            .expect("the rejected document took nothing");
    }

    #[test]
    fn large_documents_need_a_large_budget() {
        let (document, names) = (list_of("0", 200_000), "\"a\":\"f\",".repeat(40_000));
        let index = format!("{{\"weight_map\":{{{names}\"b\":\"f\"}}}}");
        let mut budget = DocumentBudget::small();
        assert_eq!(
            budget.document(document.as_bytes()),
            Err(DocumentError::Large)
        );
        assert_eq!(budget.index(index.as_bytes()), Err(DocumentError::Large));
        budget.document(b"{}").expect("small");
        assert!(budget.is_small());
        budget.become_large();
        budget.document(document.as_bytes()).expect("large budget");
        budget.index(index.as_bytes()).expect("large budget");
        assert!(!budget.is_small());
    }

    #[test]
    fn tensors_beyond_the_limit_are_rejected() {
        let mut budget = DocumentBudget {
            tensors: 7,
            ..DocumentBudget::default()
        };

        assert_eq!(
            budget
                .index(index_of(5).as_bytes())
                .expect("within the budget")
                .weight_map
                .len(),
            5
        );
        let Err(DocumentError::OverBudget(why)) = budget.index(index_of(3).as_bytes()) else {
            panic!("eight tensors of seven accepted")
        };

        assert!(why.contains("it names 3 tensors"), "{why}");
        assert!(matches!(
            index(index_of(MAX_INDEX_TENSORS + 1).as_bytes()),
            Err(DocumentError::OverBudget(_))
        ));
    }

    #[test]
    fn bare_python_words_become_null() {
        let text = br#"{"a": [0.0, Infinity, -Infinity], "b": NaN, "c": "NaN \" Infinity"}"#;
        assert_eq!(
            document(text),
            Ok(json!({"a": [0.0, null, null], "b": null, "c": "NaN \" Infinity"}))
        );
        assert!(document(b"<html>").is_err());
        assert!(document("[".repeat(10_000).as_bytes()).is_err());
    }

    #[test]
    fn only_whole_totals_count() {
        assert_eq!(total_bytes("12"), Some(12));
        assert_eq!(total_bytes("12.0"), Some(12));
        assert_eq!(total_bytes("12.5"), None);
        assert_eq!(total_bytes("-1"), None);
        assert_eq!(total_bytes("1e300"), None);
        assert_eq!(total_bytes(r#"[1, {"a": 2}]"#), None);
        assert!(index(br#"{"weight_map":{"a":1}}"#).is_err());

        assert_eq!(
            index(br#"{"weight_map":{}}"#)
                .expect("an index")
                .total_bytes,
            None
        );
    }
}
