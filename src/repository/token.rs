//! The Hub token and its identity. The secret is never printed; its identity may be.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::hex;

/// Maximum length of a token file: the longest token, with room for white space around it.
pub(crate) const MAX_FILE_BYTES: u64 = 8192;

/// A Hub token. It has no `Display` and no serialization, and its `Debug` prints nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Returns the token in `text` without surrounding white space. Returns `None` if it is empty
    /// or a header cannot carry it.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty() && text.len() <= 4096 && text.bytes().all(|byte| byte.is_ascii_graphic()))
            .then(|| Self(text.to_owned()))
    }

    /// Returns the secret itself, for the one socket that it is sent over.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// Returns the value of an `Authorization` header, marked as sensitive so that no library logs
    /// it.
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

/// The identity for requests to a Hub.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// No identity.
    #[default]
    Anonymous,
    /// The token's user.
    Token(Token),
}

impl Auth {
    /// Returns the token, if there is one.
    pub const fn token(&self) -> Option<&Token> {
        match self {
            Self::Anonymous => None,
            Self::Token(token) => Some(token),
        }
    }

    /// Returns the identity that may be stored: the first 16 hex digits of the token's SHA-256, or
    /// `public`.
    pub fn identity(&self) -> String {
        match self {
            Self::Anonymous => "public".into(),
            Self::Token(Token(secret)) => {
                hex::encode(&Sha256::digest(secret.as_bytes()).as_slice()[..8])
            }
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
    fn token_is_never_printed() {
        let token = Token::new(" hf_canary\n").expect("a token");
        let auth = Auth::Token(token);
        assert_eq!(format!("{auth:?}"), "Token(Token(redacted))");
        assert_eq!(auth.identity().len(), 16);
        assert!(!auth.identity().contains("canary"));
        assert_eq!(Auth::Anonymous.identity(), "public");
    }

    #[test]
    fn text_unfit_for_header_is_rejected() {
        assert_eq!(Token::new(" \n"), None);
        assert_eq!(Token::new("hf_a\r\nHost: evil"), None);
    }
}
