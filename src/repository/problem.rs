//! Conversion of source errors to problems: reason, HTTP status, exit code and hint.

use hf_mem_core::report::problem::{Problem, Reason};

use super::error::SourceError;

impl From<SourceError> for Problem {
    fn from(error: SourceError) -> Self {
        let reason = match &error {
            SourceError::BadReference { .. } => Reason::Usage,
            SourceError::BadSetting { .. } => Reason::BadConfiguration,
            SourceError::NotFound { .. } => Reason::NotFound,
            SourceError::Gated { .. } => Reason::Gated,
            SourceError::Unauthorized { .. } => Reason::Unauthorized,
            SourceError::HubUnreachable { .. } | SourceError::Offline { .. } => {
                Reason::HubUnreachable
            }
            SourceError::RateLimited { .. } => Reason::RateLimited,
            SourceError::MissingMetadata { .. }
            | SourceError::BadHeader { .. }
            | SourceError::Io { .. } => Reason::MissingMetadata,
        };

        let mut problem = Self::new(reason, error.to_string());
        problem.retry_after_seconds = error.retry_after().map(|wait| wait.as_secs());

        problem
    }
}
