//! Finding and opening the driver's library.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, mem};

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::InitFlags;
use nvml_wrapper::error::NvmlError;

use crate::devices::error::DevicesError;

/// Where the library is looked for when no path is given: the loader's own search, then where WSL, NixOS, Debian and
/// Fedora put it. Never the plain `libnvidia-ml.so`: that name belongs to a stub that cannot work.
const PLACES: [&str; 6] = [
    "libnvidia-ml.so.1",
    "/usr/lib/wsl/lib/libnvidia-ml.so.1",
    "/run/opengl-driver/lib/libnvidia-ml.so.1",
    "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
    "/usr/lib/aarch64-linux-gnu/libnvidia-ml.so.1",
    "/usr/lib64/libnvidia-ml.so.1",
];

/// Loads and initialises the library. With `lazily`, no GPU is attached by that, so that sleeping ones stay asleep.
pub(super) fn open(explicit: Option<&Path>, lazily: bool) -> Result<Nvml, DevicesError> {
    let places: Vec<&OsStr> = match explicit {
        Some(path) => vec![path.as_os_str()],
        None => PLACES.iter().map(OsStr::new).collect(),
    };
    let mut tried = Vec::new();
    for place in places {
        let flags = if lazily { InitFlags::NO_ATTACH } else { InitFlags::empty() };
        let nvml = match Nvml::builder().lib_path(place).flags(flags).init() {
            // An older library without `nvmlInitWithFlags`.
            Err(NvmlError::FailedToLoadSymbol(_)) if lazily => Nvml::builder().lib_path(place).init(),
            other => other,
        };
        match nvml {
            Ok(nvml) if nvml.lib().nvmlShutdown.is_err() => {
                // Dropping it would panic inside the wrapper. No library of NVIDIA's lacks it.
                mem::forget(nvml);
                tried.push(format!("{} (lacks nvmlShutdown)", place.display()));
            }
            Ok(nvml) => return Ok(nvml),
            Err(error @ (NvmlError::LibloadingError(_) | NvmlError::FailedToLoadSymbol(_))) => {
                tried.push(if explicit.is_some() {
                    format!("{} ({error})", place.display())
                } else {
                    place.display().to_string()
                });
            }
            Err(error) => return Err(whole(&error, "nvmlInit")),
        }
    }
    Err(DevicesError::Library { tried: tried.join(", ") })
}

/// An error that concerns the driver as a whole.
pub(super) fn whole(error: &NvmlError, call: &'static str) -> DevicesError {
    match error {
        NvmlError::DriverNotLoaded => DevicesError::DriverNotLoaded,
        NvmlError::LibRmVersionMismatch => DevicesError::VersionMismatch,
        NvmlError::NoPermission | NvmlError::OperatingSystem => DevicesError::NoPermission { call },
        other => DevicesError::Driver { call, message: other.to_string() },
    }
}

/// Whether an error met on one device means that the whole library has to be opened anew.
pub(super) fn concerns_all(error: &NvmlError) -> bool {
    matches!(error, NvmlError::Uninitialized | NvmlError::DriverNotLoaded | NvmlError::LibRmVersionMismatch)
}

/// What tells that the driver was exchanged under a running process: the kernel module's version, the library's file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    module: Option<String>,
    library: Option<(u64, u64, i64)>,
}

impl Fingerprint {
    /// Takes it now; `library` is the explicit path, where one is set.
    pub fn take(proc: &Path, library: Option<&PathBuf>) -> Self {
        let meta = library.and_then(|path| fs::metadata(path).ok());
        Self {
            module: fs::read_to_string(proc.join("driver/nvidia/version")).ok(),
            library: meta.map(|meta| (meta.dev(), meta.ino(), meta.mtime())),
        }
    }
}
