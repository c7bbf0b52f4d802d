//! The Hub token and what stands for it: the secret never prints, its identity may.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::hex;

/// The longest file that holds a token: the longest token, with room for white space around it.
pub(crate) const MAX_FILE_BYTES: u64 = 8192;

/// A Hub token. It has no `Display`, no serialisation, and a `Debug` that says nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token in `text` without surrounding white space; `None` where nothing remains or a
    /// header could not carry it.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty() && text.len() <= 4096 && text.bytes().all(|byte| byte.is_ascii_graphic()))
            .then(|| Self(text.to_owned()))
    }

    /// The secret itself, for the one socket that it is sent over.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// The value of an `Authorization` header, marked as sensitive so that no library logs it.
    pub(super) fn header(&self) -> Option<reqwest::header::HeaderValue> {
        let mut value =
            reqwest::header::HeaderValue::from_str(&format!("Bearer {}", self.0)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

/// As whom the Hub is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// As nobody in particular.
    #[default]
    Anonymous,
    /// As the token's user.
    Token(Token),
}

impl Auth {
    /// The token, if there is one.
    pub const fn token(&self) -> Option<&Token> {
        match self {
            Self::Anonymous => None,
            Self::Token(token) => Some(token),
        }
    }

    /// What may be written down for it: the first 16 hex digits of the token's SHA-256, or
    /// `public`.
    pub fn identity(&self) -> String {
        match self {
            Self::Anonymous => "public".into(),
            Self::Token(Token(secret)) => hex::encode(&Sha256::digest(secret.as_bytes()).as_slice()[..8]),
        }
    }
}

impl From<Option<Token>> for Auth {
    fn from(token: Option<Token>) -> Self {
        token.map_or(Self::Anonymous, Self::Token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_nothing_of_itself() {
        let token = Token::new(" hf_canary\n").expect("a token");
        let auth = Auth::Token(token);
        assert_eq!(format!("{auth:?}"), "Token(Token(redacted))");
        assert_eq!(auth.identity().len(), 16);
        assert!(!auth.identity().contains("canary"));
        assert_eq!(Auth::Anonymous.identity(), "public");
    }

    #[test]
    fn what_a_header_cannot_carry_is_no_token() {
        assert_eq!(Token::new(" \n"), None);
        assert_eq!(Token::new("hf_a\r\nHost: evil"), None);
    }
}
