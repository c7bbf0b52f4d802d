//! The meaning of a Hub's refusal, by its status and `X-Error-Code`.
//!
//! Source: huggingface_hub `utils/_http.py`.

use reqwest::StatusCode;
use url::Url;

use crate::repository::error::SourceError;

/// The subject of a request, for messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestContext<'a> {
    pub(super) endpoint: &'a Url,
    pub(super) repo: &'a str,
    pub(super) revision: &'a str,
    /// The requested file; `None` for an API request.
    pub(super) file: Option<&'a str>,
    pub(super) token_given: bool,
}

impl RequestContext<'_> {
    /// Returns the Hub's address without the trailing slash.
    pub(super) fn hub(&self) -> String {
        self.endpoint.as_str().trim_end_matches('/').to_owned()
    }

    /// Returns the file with its repository, or the repository.
    pub(super) fn what(&self) -> String {
        self.file.map_or_else(
            || self.repo.to_owned(),
            |file| format!("{file} of {}", self.repo),
        )
    }

    fn not_found(&self, what: String, hint: Option<String>) -> SourceError {
        SourceError::NotFound {
            what,
            place: format!("at {}", self.hub()),
            hint,
        }
    }

    fn no_file(&self) -> SourceError {
        let what = format!("file {} of {}", self.file.unwrap_or("(none)"), self.repo);
        self.not_found(what, None)
    }

    /// Returns the error for a repository that does not exist or is invisible to this token.
    pub(super) fn no_repository(&self) -> SourceError {
        let hint = if self.token_given {
            "or the token's user has no access to it"
        } else {
            "if it is private, set HF_TOKEN"
        };
        self.not_found(format!("repository {}", self.repo), Some(hint.into()))
    }
}

/// Returns the error that a final refusal means. Returns `None` if a retry may succeed.
pub(super) fn final_error(
    status: StatusCode,
    code: Option<&str>,
    context: &RequestContext<'_>,
) -> Option<SourceError> {
    let gated_error = || SourceError::Gated {
        repo: context.repo.into(),
        access_url: format!("{}/{}", context.hub(), context.repo),
        token_given: context.token_given,
    };

    let token_error = || SourceError::Unauthorized {
        endpoint: context.hub(),
        status: status.as_u16(),
    };

    Some(match (status.as_u16(), code) {
        (401 | 403, Some("GatedRepo")) => gated_error(),
        (401 | 403 | 404, Some("RepoNotFound")) => context.no_repository(),
        (404, Some("RevisionNotFound")) => context.not_found(
            format!("revision {} of {}", context.revision, context.repo),
            Some("name a branch, a tag or a commit".into()),
        ),
        (404, Some("EntryNotFound")) => context.no_file(),
        // Without a token the Hub answers 401 for absent and for private repositories.
        (401, _) if !context.token_given => context.no_repository(),
        (401, _) => token_error(),
        (403, _) if context.token_given => token_error(),
        (403, _) => SourceError::MissingMetadata {
            what: context.repo.into(),
            why: format!(
                "{} answers 403 Forbidden; the network may block it, or set HF_TOKEN",
                context.hub()
            ),
        },
        (404 | 410, _) if context.file.is_some() => context.no_file(),
        (404 | 410, _) => context.no_repository(),
        (451, _) => SourceError::MissingMetadata {
            what: context.repo.into(),
            why: format!(
                "{} withholds it for legal reasons (HTTP 451)",
                context.hub()
            ),
        },
        (416, _) => SourceError::MissingMetadata {
            what: context.repo.into(),
            why: format!(
                "{} is shorter than the Hub's listing says",
                context.file.unwrap_or("a file")
            ),
        },
        (408 | 425 | 429 | 500.., _) => return None,
        (other, _) => SourceError::MissingMetadata {
            what: context.repo.into(),
            why: format!(
                "{} answers HTTP {other}; is HF_ENDPOINT a Hub?",
                context.hub()
            ),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_has_its_reason() {
        let endpoint = Url::parse("https://hub/").expect("an address");
        let reason_of = |status, code, token_given, file| {
            let context = RequestContext {
                endpoint: &endpoint,
                repo: "a/b",
                revision: "main",
                file,
                token_given,
            };

            final_error(
                StatusCode::from_u16(status).expect("a status"),
                code,
                &context,
            )
            .map(|error| error.reason())
        };

        assert_eq!(
            reason_of(401, Some("GatedRepo"), false, None),
            Some("gated")
        );
        assert_eq!(reason_of(403, Some("GatedRepo"), true, None), Some("gated"));

        assert_eq!(
            reason_of(401, Some("RepoNotFound"), false, None),
            Some("not_found")
        );
        assert_eq!(reason_of(401, None, false, None), Some("not_found"));
        assert_eq!(reason_of(401, None, true, None), Some("unauthorized"));

        assert_eq!(
            reason_of(404, Some("RevisionNotFound"), true, None),
            Some("not_found")
        );
        assert_eq!(
            reason_of(404, Some("EntryNotFound"), true, Some("x")),
            Some("not_found")
        );
        assert_eq!(reason_of(418, None, true, None), Some("missing_metadata"));

        for again in [408, 429, 500, 502, 503, 504, 599] {
            assert_eq!(reason_of(again, None, true, None), None, "{again}");
        }
    }
}
