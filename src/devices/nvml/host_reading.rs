//! The facts about the host that one pass over the devices uses.

use hf_mem_core::device::Process;

use super::options::{Margins, NvmlOptions};
use crate::accounts::UserNames;
use crate::devices::holders::{HostRoots, describe, pids_match};

/// The facts about the host that one pass uses.
pub(super) struct HostReading<'a> {
    pub(super) roots: &'a HostRoots,
    pub(super) margins: &'a Margins,
    /// Whether a PID that the driver reports is the same process in `/proc`.
    pids_match: bool,
    users: UserNames,
}

impl<'a> HostReading<'a> {
    pub(super) fn new(options: &'a NvmlOptions) -> Self {
        Self {
            roots: &options.roots,
            margins: &options.margins,
            pids_match: pids_match(&options.roots),
            users: UserNames::of_host(&options.roots.etc),
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
            describe(process, &self.roots.proc, &self.users);
        }
    }
}
