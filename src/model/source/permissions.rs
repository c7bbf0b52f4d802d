//! Who may read files that this program can read.

use std::path::Path;

use crate::files::Disk;

/// For whom files that this program can read are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileReader {
    /// This program's own user, and users who may have what that one has.
    Own,
    /// Not known: it is shown nothing.
    Unknown,
}

impl FileReader {
    /// Whether it could read every file below `folder` itself. When in doubt, no.
    pub(super) fn may_read_all(&self, _disk: &Disk, _folder: &Path) -> bool {
        *self == Self::Own
    }
}
