//! Why there is no reading of the devices.

use hf_mem_core::device::UnusableReason;
use hf_mem_core::wire_word::WireWord;
use std::time::Duration;

use thiserror::Error;

/// Why a snapshot cannot be had; the word for machines is [`DevicesError::reason`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DevicesError {
    /// The driver's management library is not there.
    #[error(
        "no NVIDIA management library: tried {tried}; install the driver, or name the library with --nvml PATH"
    )]
    Library {
        /// What was tried, with what came of it.
        tried: String,
    },
    /// The library is there, the kernel module is not.
    #[error(
        "the NVIDIA kernel driver is not loaded; load the `nvidia` module, or check `dmesg` for why it is not"
    )]
    DriverNotLoaded,
    /// Library and kernel module are of different versions.
    #[error(
        "the driver's library and its kernel module are of different versions (an upgrade under a loaded module); \
         reload the module or reboot"
    )]
    VersionMismatch,
    /// The driver refuses this process.
    #[error(
        "the driver refuses access ({call}); check the device nodes' mode and the unit's DeviceAllow="
    )]
    NoPermission {
        /// The call that was refused.
        call: &'static str,
    },
    /// Anything else that fails as a whole.
    #[error("{call} failed: {message}")]
    Driver {
        /// What was called.
        call: &'static str,
        /// What it said.
        message: String,
    },
    /// The driver works and has no device.
    #[error(
        "the driver sees no GPU; check `nvidia-smi -L`, and in a container or unit that /dev/nvidia* is allowed"
    )]
    NoDevices,
    /// The driver works and has lost all devices that it had.
    #[error(
        "the driver sees no GPU any more; there were {before}; in a container the device nodes may be revoked"
    )]
    DevicesVanished {
        /// How many there were.
        before: usize,
    },
    /// No device may be used, and all for one reason.
    #[error("no device can be used: {message}")]
    NoneUsable {
        /// The reason of the first.
        reason: WireWord<UnusableReason>,
        /// Its sentence.
        message: String,
    },
    /// A driver call blocks.
    #[error("the driver has not answered for {} ms ({doing}); a sick GPU can block it for ever", waited.as_millis())]
    Overdue {
        /// What it is busy with.
        doing: &'static str,
        /// For how long.
        waited: Duration,
    },
    /// Somebody asked that the driver be left alone.
    #[error("the driver is released for {} s more, for a reset or reconfiguration", remaining.as_secs())]
    Released {
        /// How long still.
        remaining: Duration,
    },
}

impl DevicesError {
    /// The stable word for machines.
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
