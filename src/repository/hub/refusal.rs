//! What a Hub means by a refusal: its status and its `X-Error-Code` (huggingface_hub
//! `utils/_http.py`).

use reqwest::StatusCode;
use url::Url;

use crate::repository::error::SourceError;

/// Who asked for what, for the messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct RefusedRequest<'a> {
    pub(super) endpoint: &'a Url,
    pub(super) repo: &'a str,
    pub(super) revision: &'a str,
    /// The file, where one was asked for.
    pub(super) file: Option<&'a str>,
    pub(super) token_given: bool,
}

impl RefusedRequest<'_> {
    /// The Hub as a person writes it.
    pub(super) fn hub(&self) -> String {
        self.endpoint.as_str().trim_end_matches('/').to_owned()
    }

    fn absent(&self, what: String, hint: Option<String>) -> SourceError {
        SourceError::NotFound {
            what,
            place: format!("at {}", self.hub()),
            hint,
        }
    }

    /// No such repository, as far as the asker may see.
    pub(super) fn no_repository(&self) -> SourceError {
        let hint = if self.token_given {
            "or the token's user may not see it"
        } else {
            "if it is private, set HF_TOKEN"
        };
        self.absent(format!("repository {}", self.repo), Some(hint.into()))
    }
}

/// The error that a final refusal stands for; `None` where the status may change by trying again.
pub(super) fn meaning(
    status: StatusCode,
    code: Option<&str>,
    asked: &RefusedRequest<'_>,
) -> Option<SourceError> {
    let gated = || SourceError::Gated {
        repo: asked.repo.into(),
        access_url: format!("{}/{}", asked.hub(), asked.repo),
        token_given: asked.token_given,
    };

    let refused_token = || SourceError::Unauthorized {
        endpoint: asked.hub(),
        status: status.as_u16(),
    };

    let absent_file = || {
        let what = format!("file {} of {}", asked.file.unwrap_or("(none)"), asked.repo);
        asked.absent(what, None)
    };

    Some(match (status.as_u16(), code) {
        (401 | 403, Some("GatedRepo")) => gated(),
        (401 | 403 | 404, Some("RepoNotFound")) => asked.no_repository(),
        (404, Some("RevisionNotFound")) => asked.absent(
            format!("revision {} of {}", asked.revision, asked.repo),
            Some("give a branch, a tag or a commit".into()),
        ),
        (404, Some("EntryNotFound")) => absent_file(),
        // Without a token the Hub says 401 of what does not exist and of what is private alike.
        (401, _) if !asked.token_given => asked.no_repository(),
        (401, _) => refused_token(),
        (403, _) if asked.token_given => refused_token(),
        (403, _) => SourceError::MissingMetadata {
            what: asked.repo.into(),
            why: format!(
                "{} answers 403 Forbidden; it may be blocked here, or want a token (HF_TOKEN)",
                asked.hub()
            ),
        },
        (404 | 410, _) if asked.file.is_some() => absent_file(),
        (404 | 410, _) => asked.no_repository(),
        (451, _) => SourceError::MissingMetadata {
            what: asked.repo.into(),
            why: format!("{} withholds it for legal reasons (HTTP 451)", asked.hub()),
        },
        (416, _) => SourceError::MissingMetadata {
            what: asked.repo.into(),
            why: format!(
                "{} is shorter than the Hub's listing says",
                asked.file.unwrap_or("a file")
            ),
        },
        (408 | 425 | 429 | 500.., _) => return None,
        (other, _) => SourceError::MissingMetadata {
            what: asked.repo.into(),
            why: format!(
                "{} answers HTTP {other}; is HF_ENDPOINT a Hub?",
                asked.hub()
            ),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_refusals() {
        let endpoint = Url::parse("https://hub/").expect("an address");
        let reason = |status, code, token_given, file| {
            let asked = RefusedRequest {
                endpoint: &endpoint,
                repo: "a/b",
                revision: "main",
                file,
                token_given,
            };

            meaning(
                StatusCode::from_u16(status).expect("a status"),
                code,
                &asked,
            )
            .map(|error| error.reason())
        };

        assert_eq!(reason(401, Some("GatedRepo"), false, None), Some("gated"));
        assert_eq!(reason(403, Some("GatedRepo"), true, None), Some("gated"));

        assert_eq!(
            reason(401, Some("RepoNotFound"), false, None),
            Some("not_found")
        );
        assert_eq!(reason(401, None, false, None), Some("not_found"));
        assert_eq!(reason(401, None, true, None), Some("unauthorized"));

        assert_eq!(
            reason(404, Some("RevisionNotFound"), true, None),
            Some("not_found")
        );
        assert_eq!(
            reason(404, Some("EntryNotFound"), true, Some("x")),
            Some("not_found")
        );
        assert_eq!(reason(418, None, true, None), Some("missing_metadata"));

        for again in [408, 429, 500, 502, 503, 504, 599] {
            assert_eq!(reason(again, None, true, None), None, "{again}");
        }
    }
}
