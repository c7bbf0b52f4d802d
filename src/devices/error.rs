//! The errors of reading the devices.

use hf_mem_core::device::UnusableReason;
use hf_mem_core::wire_word::WireWord;
use std::time::Duration;

use thiserror::Error;

/// An error that prevents a snapshot. [`DevicesError::reason`] is its machine-readable word.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DevicesError {
    /// The driver's management library was not found.
    #[error(
        "no NVIDIA management library: tried {tried}; \
         install the driver, or name the library with --nvml PATH"
    )]
    Library {
        /// The paths that were tried, with the result of each.
        tried: String,
    },
    /// The library is installed, but the kernel module is not loaded.
    #[error(
        "the NVIDIA kernel driver is not loaded; load the `nvidia` module, \
         or check `dmesg` for why it is not"
    )]
    DriverNotLoaded,
    /// The library and the kernel module have different versions.
    #[error(
        "the driver's library and its kernel module have different versions \
         (an upgrade under a loaded module); \
         reload the module or reboot"
    )]
    VersionMismatch,
    /// The driver denies this process access.
    #[error(
        "the driver denies access ({call}); \
         check the device nodes' mode and the unit's DeviceAllow="
    )]
    NoPermission {
        /// The call that the driver denied.
        call: &'static str,
    },
    /// Another error that affects the whole driver.
    #[error("{call} failed: {message}")]
    Driver {
        /// The call that failed.
        call: &'static str,
        /// The error message of the call.
        message: String,
    },
    /// The driver works, but reports no device.
    #[error(
        "the driver sees no GPU; check `nvidia-smi -L`, \
         and in a container or unit that /dev/nvidia* is allowed"
    )]
    NoDevices,
    /// The driver works, but no longer reports any of its devices.
    #[error(
        "the driver no longer sees any GPU (before: {before}); \
         in a container, access to the device nodes may have been revoked"
    )]
    DevicesVanished {
        /// The number of devices before.
        before: usize,
    },
    /// No device is usable.
    #[error("no device is usable: {message}")]
    NoneUsable {
        /// The reason of the first device.
        reason: WireWord<UnusableReason>,
        /// The message of the first device.
        message: String,
    },
    /// A driver call does not return.
    #[error(
        "the driver has not answered for {} ms ({doing}); a faulty GPU can block it indefinitely",
        waited.as_millis()
    )]
    Overdue {
        /// The step that does not return.
        doing: &'static str,
        /// The time since the step began.
        waited: Duration,
    },
    /// The driver is released by request.
    #[error(
        "the driver is released for another {} s, for a reset or reconfiguration",
        remaining.as_secs()
    )]
    Released {
        /// The time until the release ends.
        remaining: Duration,
    },
}

impl DevicesError {
    /// Returns the stable machine-readable reason.
    pub fn reason(&self) -> &str {
        match self {
            Self::Library { .. } | Self::DriverNotLoaded | Self::Driver { .. } => {
                "nvml_unavailable"
            }
            Self::VersionMismatch => "driver_version_mismatch",
            Self::NoPermission { .. } => "no_permission",
            Self::NoDevices => "no_devices",
            Self::DevicesVanished { .. } => "gpu_lost",
            Self::NoneUsable { reason, .. } => reason.as_str(),
            Self::Overdue { .. } => "nvml_overdue",
            Self::Released { .. } => "nvml_released",
        }
    }
}
