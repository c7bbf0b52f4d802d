//! Untrusted text as a label's value: names of devices come from drivers and from users' files.

use std::fmt;

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

/// A label's value without control characters.
///
/// A control character could control the reader's terminal, and some parsers of the older format
/// treat a carriage return as the end of a line. Each is written as `\u{1b}`, so that different
/// texts stay different. The encoder then escapes the backslash.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LabelText(String);

impl From<&str> for LabelText {
    fn from(text: &str) -> Self {
        if !text.contains(char::is_control) {
            return Self(text.to_owned());
        }

        let mut escaped = String::with_capacity(text.len() + 16);
        for letter in text.chars() {
            if letter.is_control() {
                escaped.extend(letter.escape_unicode());
            } else {
                escaped.push(letter);
            }
        }

        Self(escaped)
    }
}

impl EncodeLabelValue for LabelText {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }
}
