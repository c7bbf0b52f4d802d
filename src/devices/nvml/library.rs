//! The search for the driver's library, and its initialization.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, mem};

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::InitFlags;
use nvml_wrapper::error::NvmlError;

use super::options::NvmlOptions;
use crate::devices::error::DevicesError;
use crate::devices::holders::HostRoots;

/// The paths that are tried if no path is configured.
///
/// The first one uses the loader's own search. The others are the locations of WSL, NixOS, Debian
/// and Fedora. The plain `libnvidia-ml.so` is missing on purpose, because it is a stub that does
/// not work.
const SEARCH_PATHS: [&str; 6] = [
    "libnvidia-ml.so.1",
    "/usr/lib/wsl/lib/libnvidia-ml.so.1",
    "/run/opengl-driver/lib/libnvidia-ml.so.1",
    "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
    "/usr/lib/aarch64-linux-gnu/libnvidia-ml.so.1",
    "/usr/lib64/libnvidia-ml.so.1",
];

/// Loads and initializes the library.
///
/// With `without_attach`, the initialization attaches no GPU, so sleeping GPUs stay asleep.
pub(super) fn open(explicit: Option<&Path>, without_attach: bool) -> Result<Nvml, DevicesError> {
    let paths: Vec<&OsStr> = match explicit {
        Some(path) => vec![path.as_os_str()],
        None => SEARCH_PATHS.iter().map(OsStr::new).collect(),
    };

    let mut tried = Vec::new();
    for path in paths {
        let flags = if without_attach {
            InitFlags::NO_ATTACH
        } else {
            InitFlags::empty()
        };

        let nvml = match Nvml::builder().lib_path(path).flags(flags).init() {
            // An older library lacks `nvmlInitWithFlags`.
            Err(NvmlError::FailedToLoadSymbol(_)) if without_attach => {
                Nvml::builder().lib_path(path).init()
            }
            other => other,
        };

        match nvml {
            Ok(nvml) if nvml.lib().nvmlShutdown.is_err() => {
                // Without the symbol, a drop would panic in the wrapper. Every NVIDIA library has
                // it.
                mem::forget(nvml);
                tried.push(format!("{} (lacks nvmlShutdown)", path.display()));
            }
            Ok(nvml) => return Ok(nvml),
            Err(error @ (NvmlError::LibloadingError(_) | NvmlError::FailedToLoadSymbol(_))) => {
                tried.push(if explicit.is_some() {
                    format!("{} ({error})", path.display())
                } else {
                    path.display().to_string()
                });
            }
            Err(error) => return Err(driver_error(&error, "nvmlInit")),
        }
    }

    Err(DevicesError::Library {
        tried: tried.join(", "),
    })
}

/// Converts an error that affects the whole driver.
pub(super) fn driver_error(error: &NvmlError, call: &'static str) -> DevicesError {
    match error {
        NvmlError::DriverNotLoaded => DevicesError::DriverNotLoaded,
        NvmlError::LibRmVersionMismatch => DevicesError::VersionMismatch,
        NvmlError::NoPermission | NvmlError::OperatingSystem => DevicesError::NoPermission { call },
        // The usual error of a device node that this process may not open.
        NvmlError::Unknown => {
            let message = format!(
                "{error}; check that /dev/nvidia* exist and that this process may open them, \
                 and see dmesg"
            );
            DevicesError::Driver { call, message }
        }
        other => DevicesError::Driver {
            call,
            message: other.to_string(),
        },
    }
}

/// Whether an error of one device means that the library must be opened again.
pub(super) fn is_library_wide(error: &NvmlError) -> bool {
    matches!(
        error,
        NvmlError::Uninitialized | NvmlError::DriverNotLoaded | NvmlError::LibRmVersionMismatch
    )
}

/// Returns the file of the loaded library: `explicit` if it is a path, or else the mapped file.
pub(super) fn loaded_path(explicit: Option<&Path>) -> Option<PathBuf> {
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

/// A file's device, inode and modification time.
type FileIdentity = (u64, u64, i64);

/// The identity of the installed driver: the version of the kernel module and the library's files.
///
/// It changes when a driver is installed, loaded or replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    module: Option<String>,
    files: Vec<Option<FileIdentity>>,
}

impl Fingerprint {
    /// Takes the fingerprint of the module and of these files.
    pub fn take(roots: &HostRoots, files: &[PathBuf]) -> Self {
        Self {
            module: fs::read_to_string(roots.proc.join("driver/nvidia/version")).ok(),
            files: files.iter().map(|path| file_identity(path)).collect(),
        }
    }

    /// Takes the fingerprint while no library is open.
    ///
    /// It covers every path where a library can appear, and the loader's cache.
    pub fn of_search_paths(options: &NvmlOptions) -> Self {
        let paths = match &options.library {
            Some(path) => vec![path.clone()],
            None => SEARCH_PATHS
                .iter()
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
                .collect(),
        };

        let loader_cache = options.roots.etc.join("ld.so.cache");
        Self::take(&options.roots, &[paths, vec![loader_cache]].concat())
    }
}

fn file_identity(path: &Path) -> Option<FileIdentity> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino(), meta.mtime()))
}
