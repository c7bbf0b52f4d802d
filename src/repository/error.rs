//! Errors of reading metadata. Each says what failed, on what, and how to fix it.
//!
//! All callers that wait for the same answer receive a clone, so errors hold texts and no sources.
//! They contain no token and no signed URL: addresses are printed without their query.

use std::time::Duration;

/// Why a model's metadata is unavailable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The text is not a reference to a model.
    #[error(
        "{reference:?} is not a model: {why}; write owner/name, owner/name@revision, or a path that exists"
    )]
    BadReference {
        /// The text.
        reference: String,
        /// The problem.
        why: String,
    },
    /// An invalid setting in the environment or the configuration.
    #[error("{name}: {why}")]
    BadSetting {
        /// The variable or key.
        name: String,
        /// The problem, and how to fix it.
        why: String,
    },
    /// No such repository, revision, file or folder, or this caller cannot see it.
    #[error("{what} was not found {place}{}", hint.as_deref().map(|hint| format!("; {hint}")).unwrap_or_default())]
    NotFound {
        /// Repository, revision or file, by name.
        what: String,
        /// The searched place: `at https://huggingface.co`, `in /models/x`.
        place: String,
        /// A similar name, or another possible cause.
        hint: Option<String>,
    },
    /// The repository exists, but only accepted users can read its files.
    #[error("{repo} is gated: {}; ask for access at {access_url}{}", if *token_given { "the token's user has not been granted access" } else { "no token was given" }, if *token_given { "" } else { ", then set HF_TOKEN" })]
    Gated {
        /// The repository.
        repo: String,
        /// Where to request access.
        access_url: String,
        /// Whether a token was sent.
        token_given: bool,
    },
    /// The Hub rejected the token.
    #[error(
        "{endpoint} refuses the token (HTTP {status}); make a new one at {endpoint}/settings/tokens or unset HF_TOKEN"
    )]
    Unauthorized {
        /// The Hub.
        endpoint: String,
        /// 401 or 403.
        status: u16,
    },
    /// The Hub is unreachable, or its responses were unusable until the deadline.
    #[error("{url} could not be read: {why} (tried {attempts} times in {}); check the network, proxy and HF_ENDPOINT, or try again later", humantime::format_duration(Duration::from_millis(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))))]
    HubUnreachable {
        /// The address without its query.
        url: String,
        /// Why the last attempt failed.
        why: String,
        /// Requests made.
        attempts: u32,
        /// Time spent on them.
        elapsed: Duration,
    },
    /// The Hub asks to wait for longer than the time left.
    #[error("{endpoint} limits the rate of requests{}; set HF_TOKEN for a higher limit, or try again later", retry_after.map(|wait| format!(" and asks to wait {} s", wait.as_secs())).unwrap_or_default())]
    RateLimited {
        /// The Hub.
        endpoint: String,
        /// How long it asks to wait; `None` if it does not say.
        retry_after: Option<Duration>,
    },
    /// Offline mode is on, and the model is not in the cache.
    #[error("{what} is not in the cache{}, and HF_HUB_OFFLINE is set; unset it, or use a local folder or a bundle", folder.as_deref().map(|folder| format!(" ({folder})")).unwrap_or_default())]
    Offline {
        /// The repository.
        what: String,
        /// The cache that was searched.
        folder: Option<String>,
    },
    /// Metadata that an answer needs is missing or unreadable.
    #[error("{what}: {why}")]
    MissingMetadata {
        /// The repository or folder.
        what: String,
        /// The missing or invalid part, and how to fix it.
        why: String,
    },
    /// The header of a weight file is invalid.
    #[error("{file} of {what}: {why}")]
    BadHeader {
        /// The repository or folder.
        what: String,
        /// The file.
        file: String,
        /// The problem.
        why: String,
    },
    /// A local file could not be read.
    #[error("{path}: {why}")]
    Io {
        /// The path.
        path: String,
        /// The system's own message.
        why: String,
    },
}

impl SourceError {
    /// Returns the word for this failure in an answer's `reason`.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::BadReference { .. } => "bad_reference",
            Self::BadSetting { .. } => "bad_configuration",
            Self::NotFound { .. } => "not_found",
            Self::Gated { .. } => "gated",
            Self::Unauthorized { .. } => "unauthorized",
            Self::HubUnreachable { .. } => "hub_unreachable",
            Self::RateLimited { .. } => "rate_limited",
            Self::Offline { .. } => "offline",
            Self::MissingMetadata { .. } | Self::Io { .. } => "missing_metadata",
            Self::BadHeader { .. } => "bad_header",
        }
    }

    /// Whether the same request may succeed later with no change on this host. A stale answer is
    /// better than such an error.
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::HubUnreachable { .. } | Self::RateLimited { .. } | Self::Offline { .. }
        )
    }

    /// Returns how long the Hub asked to wait.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_says_how_to_fix_it() {
        let gated = SourceError::Gated {
            repo: "a/b".into(),
            access_url: "https://huggingface.co/a/b".into(),
            token_given: false,
        };

        assert_eq!(
            gated.to_string(),
            "a/b is gated: no token was given; ask for access at https://huggingface.co/a/b, then set HF_TOKEN"
        );
        let limited = SourceError::RateLimited {
            endpoint: "https://hf.co".into(),
            retry_after: Some(Duration::from_secs(120)),
        };

        assert!(
            limited.to_string().contains("asks to wait 120 s"),
            "{limited}"
        );
        let down = SourceError::HubUnreachable {
            url: "https://hf.co/api".into(),
            why: "HTTP 503".into(),
            attempts: 3,
            elapsed: Duration::from_millis(2500),
        };

        assert!(
            down.to_string()
                .contains("HTTP 503 (tried 3 times in 2s 500ms)"),
            "{down}"
        );
    }
}
