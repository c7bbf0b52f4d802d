//! Text of others as a label's value: names of devices come from drivers and from files that a user
//! wrote.

use std::fmt;

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

/// A label's value without control characters: they would steer the terminal of a person who reads
/// the page, and some readers of the older format take a carriage return for the end of a line.
/// They are written as `\u{1b}`, so that different texts stay different; the encoder then escapes
/// the backslash as it does any other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LabelText(String);

impl From<&str> for LabelText {
    fn from(text: &str) -> Self {
        if !text.contains(char::is_control) {
            return Self(text.to_owned());
        }

        let mut shown = String::with_capacity(text.len() + 16);
        for letter in text.chars() {
            if letter.is_control() {
                shown.extend(letter.escape_unicode());
            } else {
                shown.push(letter);
            }
        }

        Self(shown)
    }
}

impl EncodeLabelValue for LabelText {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }
}
