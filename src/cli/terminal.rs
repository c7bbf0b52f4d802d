//! Escapes foreign text for a terminal.
//!
//! Names, paths and messages come from other users, processes and hubs. An escape sequence in one
//! of them could control the terminal of the user who reads it, even root's.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Whether a terminal may act on `letter` instead of showing it.
///
/// These are C0, DEL and C1 controls (ECMA-48), Unicode's line and paragraph separators, and the
/// marks that change the direction of the text after them (UAX #9).
fn is_control(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether `text` has no control character.
pub(super) fn is_printable(text: &str) -> bool {
    !text.chars().any(is_control)
}

fn escape(text: &str, needs_escape: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&needs_escape) {
        return Cow::Borrowed(text);
    }

    let mut out = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if needs_escape(letter) {
            out.extend(letter.escape_unicode());
        } else {
            out.push(letter);
        }
    }

    Cow::Owned(out)
}

/// Escapes a value within a line: a control character or line break becomes `\u{1b}`.
pub(super) fn value(text: &str) -> Cow<'_, str> {
    escape(text, is_control)
}

/// Escapes whole output of this program, except its line breaks and tabs.
pub(super) fn text(text: &str) -> Cow<'_, str> {
    escape(text, |letter| {
        is_control(letter) && !matches!(letter, '\n' | '\t')
    })
}

/// Escapes control characters in JSON without changing its meaning.
///
/// `serde_json` escapes only C0. Other control characters occur only within strings, where JSON's
/// own escape (RFC 8259, section 7) can replace them.
pub(super) fn json(json: String) -> String {
    let needs_escape = |letter: char| is_control(letter) && !letter.is_ascii_whitespace();
    if !json.chars().any(needs_escape) {
        return json;
    }

    let mut out = String::with_capacity(json.len() + 16);
    for letter in json.chars() {
        if needs_escape(letter) {
            // All of them are in the basic plane, so one escape each is enough.
            let _ = write!(out, "\\u{:04x}", u32::from(letter));
        } else {
            out.push(letter);
        }
    }

    out
}

/// Returns `answer` with [`value`] applied to every string in it.
///
/// `None` means that the result does not deserialize, which for a wire type is a defect.
pub(super) fn values<T: Serialize + DeserializeOwned>(answer: &T) -> Option<T> {
    let mut tree = serde_json::to_value(answer).ok()?;
    escape_strings(&mut tree, value);
    serde_json::from_value(tree).ok()
}

/// The field of a command's arguments in an answer.
///
/// An argument can be a whole program of several lines within quotes, so its line breaks stay.
const COMMAND_ARGUMENTS: &str = "args";

fn escape_strings(tree: &mut Value, escape: fn(&str) -> Cow<'_, str>) {
    match tree {
        Value::String(text) => {
            if let Cow::Owned(escaped) = escape(text) {
                *text = escaped;
            }
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| escape_strings(item, escape)),
        Value::Object(fields) => {
            if !fields.keys().all(|name| is_printable(name)) {
                *fields = std::mem::take(fields)
                    .into_iter()
                    .map(|(name, field)| (value(&name).into_owned(), field))
                    .collect();
            }
            for (name, field) in fields {
                let escape = if name == COMMAND_ARGUMENTS {
                    text
                } else {
                    value
                };
                escape_strings(field, escape);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A control character of each kind.
    const HOSTILE: &str =
        "a\x1b]0;x\x07\r\n\tb\u{7f}\u{9b}2J\u{202e}\u{2066}\u{200f}\u{61c}\u{2028}\u{2029}c";

    #[test]
    fn value_has_no_control_characters() {
        let shown = value(HOSTILE);
        assert!(is_printable(&shown), "{shown:?}");

        assert!(
            shown.starts_with("a\\u{1b}]0;x\\u{7}\\u{d}\\u{a}\\u{9}b\\u{7f}\\u{9b}2J\\u{202e}"),
            "{shown}"
        );
        assert_eq!(value("größe 模型 👍 a\u{a0}b"), "größe 模型 👍 a\u{a0}b");
    }

    #[test]
    fn text_keeps_line_breaks_and_tabs() {
        assert_eq!(
            text("one\n\ttwo\r\x1b[0m\n"),
            "one\n\ttwo\\u{d}\\u{1b}[0m\n"
        );
    }

    #[test]
    fn escaped_json_has_same_meaning() {
        let meant = serde_json::json!({ "name": HOSTILE, HOSTILE: 1 });
        let printed = json(serde_json::to_string_pretty(&meant).unwrap());
        assert!(
            !printed
                .chars()
                .any(|letter| is_control(letter) && letter != '\n'),
            "{printed:?}"
        );

        assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), meant);
    }

    #[test]
    fn values_escapes_every_string() {
        let meant = serde_json::json!({ "a": [{ "b": HOSTILE }, 7], HOSTILE: { HOSTILE: null } });
        let shown = values(&meant).unwrap();
        assert!(
            is_printable(&shown.to_string()) && !shown.to_string().contains("\\n"),
            "{shown}"
        );
        assert_eq!(shown["a"][1], 7);
        let typed = values(&serde_json::json!({ "args": ["python", "a\nb\x1b"] })).unwrap();
        assert_eq!(typed["args"][1], "a\nb\\u{1b}");
    }
}
