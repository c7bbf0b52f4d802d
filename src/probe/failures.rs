//! Failures of the path's parts as problems: one place for the reason, the status and the cure.

use crate::api::problem::{Problem, Reason};
use crate::devices::declared::DeclaredError;
use crate::devices::error::DevicesError;
use crate::engines::profile::ProfileError;
use crate::model::source::SourceError;
use crate::model::source::metadata::RecordError;

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

impl From<RecordError> for Problem {
    fn from(error: RecordError) -> Self {
        Self::new(Reason::MissingMetadata, error.to_string())
    }
}

impl From<DevicesError> for Problem {
    fn from(error: DevicesError) -> Self {
        let reason = match &error {
            DevicesError::NoDevices => Reason::NoDevices,
            DevicesError::DevicesVanished { .. } => Reason::GpuLost,
            DevicesError::NoneUsable { reason, .. } => Reason::of_device(reason),
            DevicesError::VersionMismatch => Reason::DriverVersionMismatch,
            DevicesError::NoPermission { .. } => Reason::NoPermission,
            DevicesError::Overdue { .. } => Reason::NvmlOverdue,
            DevicesError::Released { .. } => Reason::NvmlReleased,
            DevicesError::Library { .. }
            | DevicesError::DriverNotLoaded
            | DevicesError::Driver { .. } => Reason::NvmlUnavailable,
        };
        let mut problem = Self::new(reason, error.to_string());
        if let DevicesError::Released { remaining } = &error {
            problem.retry_after_seconds = Some(remaining.as_secs().saturating_add(1));
            return problem;
        }
        problem.hint("declare devices with --gpus to ask without a driver")
    }
}

impl From<DeclaredError> for Problem {
    fn from(error: DeclaredError) -> Self {
        let problem = Self::new(Reason::Usage, error.to_string());
        match error {
            DeclaredError::UnknownCard { .. } | DeclaredError::UnknownProfile { .. } => {
                problem.hint("docs/cards.md lists the known cards (the packages put it in /usr/share/doc/hf-mem-probe)")
            }
            _ => problem,
        }
    }
}

impl From<ProfileError> for Problem {
    fn from(error: ProfileError) -> Self {
        Self::new(Reason::BadConfiguration, error.to_string())
    }
}
