//! The facts about the host that one pass over the devices uses.

use std::cell::OnceCell;
use std::path::Path;

use hf_mem_core::device::Process;

use super::options::{Margins, NvmlOptions};
use crate::devices::holders::{HostRoots, describe, pids_match};
use crate::files;

/// The largest user database (`passwd`) that is read, in bytes.
const MAX_PASSWD_BYTES: u64 = 64 << 20;

/// The facts about the host that one pass uses.
pub(super) struct HostReading<'a> {
    pub(super) roots: &'a HostRoots,
    pub(super) margins: &'a Margins,
    /// Whether a PID that the driver reports is the same process in `/proc`.
    pids_match: bool,
    passwd: OnceCell<String>,
}

impl<'a> HostReading<'a> {
    pub(super) fn new(options: &'a NvmlOptions) -> Self {
        Self {
            roots: &options.roots,
            margins: &options.margins,
            pids_match: pids_match(&options.roots),
            passwd: OnceCell::new(),
        }
    }

    /// Fills in the identity of the processes.
    ///
    /// Does nothing if the driver's PIDs may belong to another PID namespace than `/proc`.
    pub(super) fn describe(&self, processes: &mut [Process]) {
        if !self.pids_match {
            return;
        }

        for process in processes {
            let passwd = self
                .passwd
                .get_or_init(|| read_passwd(&self.roots.etc.join("passwd")));
            describe(process, &self.roots.proc, passwd);
        }
    }
}

/// Reads the user database. The text is empty if the file cannot be read.
fn read_passwd(path: &Path) -> String {
    let file = path.to_owned();
    files::try_wait(path, move |disk| disk.read_text(&file, MAX_PASSWD_BYTES)).unwrap_or_default()
}
