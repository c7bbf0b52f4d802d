//! What others wrote, made harmless for a terminal: names, paths and messages come from other
//! users, processes and hubs, and an escape sequence in one of them would steer the terminal of
//! whoever reads it, root's too.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Whether a terminal may act on `letter` instead of showing it: C0, DEL and C1 controls (ECMA-48),
/// Unicode's line and paragraph separators, and the marks that turn the direction of what follows
/// (UAX #9).
fn steers(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether nothing in `text` could steer.
pub(super) fn is_sound(text: &str) -> bool {
    !text.chars().any(steers)
}

fn escaped(text: &str, steers: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&steers) {
        return Cow::Borrowed(text);
    }

    let mut out = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if steers(letter) {
            out.extend(letter.escape_unicode());
        } else {
            out.push(letter);
        }
    }

    Cow::Owned(out)
}

/// A value that is to stand within a line: what could steer is shown as `\u{1b}`, an end of line
/// too.
pub(super) fn value(text: &str) -> Cow<'_, str> {
    escaped(text, steers)
}

/// Whole text of ours: its own ends of lines and tabs pass.
pub(super) fn text(text: &str) -> Cow<'_, str> {
    escaped(text, |letter| {
        steers(letter) && !matches!(letter, '\n' | '\t')
    })
}

/// JSON that means the same: serde_json escapes C0 only. Whatever else steers can stand within its
/// strings alone, where JSON's own escape (RFC 8259, section 7) may replace it.
pub(super) fn json(json: String) -> String {
    let raw = |letter: char| steers(letter) && !letter.is_ascii_whitespace();
    if !json.chars().any(raw) {
        return json;
    }

    let mut out = String::with_capacity(json.len() + 16);
    for letter in json.chars() {
        if raw(letter) {
            // All of them are in the basic plane: one escape each.
            let _ = write!(out, "\\u{:04x}", u32::from(letter));
        } else {
            out.push(letter);
        }
    }

    out
}

/// `answer` with [`value`] applied to every text in it, whichever of them a person's view shows.
/// `None` where it cannot be read back, which for a wire type is a defect.
pub(super) fn values<T: Serialize + DeserializeOwned>(answer: &T) -> Option<T> {
    let mut tree = serde_json::to_value(answer).ok()?;
    make_harmless(&mut tree, value);
    serde_json::from_value(tree).ok()
}

/// The arguments of a command to be typed, in an answer: one may be a whole program of several
/// lines, which stand within quotes.
const TYPED: &str = "args";

fn make_harmless(tree: &mut Value, show: fn(&str) -> Cow<'_, str>) {
    match tree {
        Value::String(text) => {
            if let Cow::Owned(shown) = show(text) {
                *text = shown;
            }
        }
        Value::Array(all) => all.iter_mut().for_each(|one| make_harmless(one, show)),
        Value::Object(all) => {
            if !all.keys().all(|name| is_sound(name)) {
                *all = std::mem::take(all)
                    .into_iter()
                    .map(|(name, held)| (value(&name).into_owned(), held))
                    .collect();
            }
            for (name, held) in all {
                make_harmless(held, if name == TYPED { text } else { value });
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind that steers.
    const HOSTILE: &str =
        "a\x1b]0;x\x07\r\n\tb\u{7f}\u{9b}2J\u{202e}\u{2066}\u{200f}\u{61c}\u{2028}\u{2029}c";

    #[test]
    fn nothing_that_steers_is_left_in_a_value() {
        let shown = value(HOSTILE);
        assert!(!shown.chars().any(steers), "{shown:?}");

        assert!(
            shown.starts_with("a\\u{1b}]0;x\\u{7}\\u{d}\\u{a}\\u{9}b\\u{7f}\\u{9b}2J\\u{202e}"),
            "{shown}"
        );
        assert_eq!(value("größe 模型 👍 a\u{a0}b"), "größe 模型 👍 a\u{a0}b");
    }

    #[test]
    fn our_own_lines_and_tabs_stay() {
        assert_eq!(
            text("one\n\ttwo\r\x1b[0m\n"),
            "one\n\ttwo\\u{d}\\u{1b}[0m\n"
        );
    }

    #[test]
    fn json_means_the_same_and_holds_nothing_raw() {
        let meant = serde_json::json!({ "name": HOSTILE, HOSTILE: 1 });
        let printed = json(serde_json::to_string_pretty(&meant).unwrap());
        assert!(
            !printed
                .chars()
                .any(|letter| steers(letter) && letter != '\n'),
            "{printed:?}"
        );

        assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), meant);
    }

    #[test]
    fn every_text_of_an_answer_is_reached() {
        let meant = serde_json::json!({ "a": [{ "b": HOSTILE }, 7], HOSTILE: { HOSTILE: null } });
        let shown = values(&meant).unwrap();
        assert!(
            !shown.to_string().chars().any(steers) && !shown.to_string().contains("\\n"),
            "{shown}"
        );
        assert_eq!(shown["a"][1], 7);
        let typed = values(&serde_json::json!({ "args": ["python", "a\nb\x1b"] })).unwrap();
        assert_eq!(typed["args"][1], "a\nb\\u{1b}");
    }
}
