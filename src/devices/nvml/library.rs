//! Finding and opening the driver's library.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, mem};

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::InitFlags;
use nvml_wrapper::error::NvmlError;

use super::reader::NvmlOptions;
use crate::devices::error::DevicesError;
use crate::devices::holders::HostRoots;

/// Where the library is looked for when no path is given: the loader's own search, then where WSL,
/// NixOS, Debian and Fedora put it. Never the plain `libnvidia-ml.so`: that name belongs to a stub
/// that cannot work.
const PLACES: [&str; 6] = [
    "libnvidia-ml.so.1",
    "/usr/lib/wsl/lib/libnvidia-ml.so.1",
    "/run/opengl-driver/lib/libnvidia-ml.so.1",
    "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
    "/usr/lib/aarch64-linux-gnu/libnvidia-ml.so.1",
    "/usr/lib64/libnvidia-ml.so.1",
];

/// Loads and initialises the library. With `lazily`, no GPU is attached by that, so that sleeping
/// ones stay asleep.
pub(super) fn open(explicit: Option<&Path>, lazily: bool) -> Result<Nvml, DevicesError> {
    let places: Vec<&OsStr> = match explicit {
        Some(path) => vec![path.as_os_str()],
        None => PLACES.iter().map(OsStr::new).collect(),
    };

    let mut tried = Vec::new();
    for place in places {
        let flags = if lazily {
            InitFlags::NO_ATTACH
        } else {
            InitFlags::empty()
        };

        let nvml = match Nvml::builder().lib_path(place).flags(flags).init() {
            // An older library without `nvmlInitWithFlags`.
            Err(NvmlError::FailedToLoadSymbol(_)) if lazily => {
                Nvml::builder().lib_path(place).init()
            }
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

    Err(DevicesError::Library {
        tried: tried.join(", "),
    })
}

/// An error that concerns the driver as a whole.
pub(super) fn whole(error: &NvmlError, call: &'static str) -> DevicesError {
    match error {
        NvmlError::DriverNotLoaded => DevicesError::DriverNotLoaded,
        NvmlError::LibRmVersionMismatch => DevicesError::VersionMismatch,
        NvmlError::NoPermission | NvmlError::OperatingSystem => DevicesError::NoPermission { call },
        // How a device node that may not be opened is often met.
        NvmlError::Unknown => {
            let message = format!(
                "{error}; check that /dev/nvidia* exist and may be opened here, and see dmesg"
            );
            DevicesError::Driver { call, message }
        }
        other => DevicesError::Driver {
            call,
            message: other.to_string(),
        },
    }
}

/// Whether an error met on one device means that the whole library has to be opened anew.
pub(super) fn concerns_all(error: &NvmlError) -> bool {
    matches!(
        error,
        NvmlError::Uninitialized | NvmlError::DriverNotLoaded | NvmlError::LibRmVersionMismatch
    )
}

/// The file that the library was loaded from: `explicit` where that is a path, else what the loader
/// mapped.
pub(super) fn mapped(explicit: Option<&Path>) -> Option<PathBuf> {
    if let Some(path) = explicit.filter(|path| path.components().count() > 1) {
        return Some(path.to_owned());
    }

    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let path = maps.lines().find_map(|line| {
        line.find('/')
            .and_then(|at| line.get(at..))
            .filter(|it| is_library(it))
    })?;

    Some(PathBuf::from(path))
}

fn is_library(path: &str) -> bool {
    path.rsplit('/')
        .next()
        .is_some_and(|name| name.starts_with("libnvidia-ml.so"))
}

/// A file's device, inode and time of change.
type FileIdentity = (u64, u64, i64);

/// What tells that a driver was installed, loaded or exchanged: the kernel module's version, the
/// library's files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    module: Option<String>,
    files: Vec<Option<FileIdentity>>,
}

impl Fingerprint {
    /// Takes it now, of the module and these files.
    pub fn take(roots: &HostRoots, files: &[PathBuf]) -> Self {
        let identity = |path: &PathBuf| {
            fs::metadata(path)
                .ok()
                .map(|meta| (meta.dev(), meta.ino(), meta.mtime()))
        };

        Self {
            module: fs::read_to_string(roots.proc.join("driver/nvidia/version")).ok(),
            files: files.iter().map(identity).collect(),
        }
    }

    /// Takes it where no library is open: of every place where one may appear, and of the loader's
    /// own list.
    pub fn of_places(options: &NvmlOptions) -> Self {
        let places = match &options.library {
            Some(path) => vec![path.clone()],
            None => PLACES
                .iter()
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
                .collect(),
        };

        let loaders = options.roots.etc.join("ld.so.cache");
        Self::take(&options.roots, &[places, vec![loaders]].concat())
    }
}
