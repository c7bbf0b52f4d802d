//! The options of reading NVIDIA devices.

use std::path::PathBuf;

use hf_mem_core::bytes::Bytes;

use crate::devices::holders::HostRoots;

/// The options of reading NVIDIA devices.
#[derive(Clone, Debug, Default)]
pub struct NvmlOptions {
    /// The library's path or soname. `None` searches for it.
    pub library: Option<PathBuf>,
    /// The directories with facts about the host.
    pub roots: HostRoots,
    /// The memory to keep free.
    pub margins: Margins,
}

/// The bytes to keep free on devices that not only compute processes use.
#[derive(Clone, Copy, Debug)]
pub struct Margins {
    /// The margin on a GPU that drives a display.
    ///
    /// Idle desktops were seen to hold 211 to 596 MiB, and they can grow at any time.
    pub display_bytes: Bytes,
    /// The margin of unified memory, for the host itself.
    pub host_bytes: Bytes,
}

impl Default for Margins {
    /// Returns 512 MiB for a display and 2 GiB for a host; both are assumptions.
    fn default() -> Self {
        Self {
            display_bytes: Bytes::mib(512),
            host_bytes: Bytes::gib(2),
        }
    }
}
