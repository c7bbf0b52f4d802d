//! Conversion of device errors to problems: reason, HTTP status, exit code and hint.

use hf_mem_core::report::problem::{Problem, Reason};

use super::error::DevicesError;

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
