//! Failures of the path's parts as problems: one place for the reason, the status and the cure.

use crate::api::problem::{Problem, Reason};
use crate::model::source::SourceError;

impl From<SourceError> for Problem {
    fn from(error: SourceError) -> Self {
        let reason = match &error {
            SourceError::BadReference { .. } => Reason::Usage,
            SourceError::BadSetting { .. } => Reason::BadConfiguration,
            SourceError::NotFound { .. } => Reason::NotFound,
            SourceError::Gated { .. } => Reason::Gated,
            SourceError::Unauthorized { .. } => Reason::Unauthorized,
            SourceError::HubUnreachable { .. } | SourceError::Offline { .. } => Reason::HubUnreachable,
            SourceError::RateLimited { .. } => Reason::RateLimited,
            SourceError::MissingMetadata { .. } | SourceError::BadHeader { .. } | SourceError::Io { .. } => {
                Reason::MissingMetadata
            }
        };
        let mut problem = Self::new(reason, error.to_string());
        problem.retry_after_seconds = error.retry_after().map(|wait| wait.as_secs());
        problem
    }
}
