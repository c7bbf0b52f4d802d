//! Which users may read a file, by its permission bits and those of the folders above it.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::files::Disk;

/// Maximum files below one folder, and maximum depth of its subfolders.
const MAX_ENTRIES: usize = 20_000;
const MAX_DEPTH: usize = 8;

/// The user for whom this program reads files that it can read itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileReader {
    /// This program's own user, and users with the same access.
    Own,
    /// Another user of this host.
    User {
        /// The user's id.
        uid: u32,
        /// The ids of the user's groups, including the primary one.
        groups: Vec<u32>,
    },
    /// An unknown user, who may read nothing.
    Unknown,
}

impl FileReader {
    /// Whether the user could read every file below `folder`. Returns false in case of doubt.
    pub(super) fn may_read_all(&self, disk: &Disk, folder: &Path) -> bool {
        match self {
            Self::Own => true,
            Self::Unknown => false,
            Self::User { uid, groups } => {
                let mut check = PermissionCheck {
                    disk,
                    uid: *uid,
                    groups,
                    passable: HashMap::new(),
                    seen: 0,
                };
                check.can_read_tree(folder, 0)
            }
        }
    }
}

/// A permission check for one user, with its results for folders so far.
struct PermissionCheck<'a> {
    disk: &'a Disk,
    uid: u32,
    groups: &'a [u32],
    passable: HashMap<PathBuf, bool>,
    seen: usize,
}

const READ: u32 = 0o4;
const ENTER: u32 = 0o1;

impl PermissionCheck<'_> {
    /// Whether the user can list and read everything below `folder`.
    fn can_read_tree(&mut self, folder: &Path, depth: usize) -> bool {
        if depth > MAX_DEPTH || !self.can_access(folder, READ | ENTER) {
            return false;
        }

        let Ok(entries) = self.disk.list(folder, MAX_ENTRIES, |_| true) else {
            return false;
        };

        self.seen += entries.len();
        if self.seen > MAX_ENTRIES {
            return false;
        }

        entries.into_iter().all(|entry| match entry.metadata {
            Some(found) if found.is_dir() => self.can_read_tree(&entry.path, depth + 1),
            Some(found) if found.is_file() => self.can_access(&entry.path, READ),
            // Nothing is read from dangling links and pipes.
            _ => true,
        })
    }

    /// Whether the user has the rights `wanted` on the target of `path`, and can enter every folder
    /// above it.
    fn can_access(&mut self, path: &Path, wanted: u32) -> bool {
        let Ok(path) = self.disk.canonical(path) else {
            return false;
        };

        self.has_rights(&path, wanted)
            && path
                .ancestors()
                .skip(1)
                .all(|folder| self.can_enter(folder))
    }

    fn can_enter(&mut self, folder: &Path) -> bool {
        if let Some(known) = self.passable.get(folder) {
            return *known;
        }
        let passable = self.has_rights(folder, ENTER);
        self.passable.insert(folder.to_owned(), passable);
        passable
    }

    fn has_rights(&self, path: &Path, wanted: u32) -> bool {
        let Ok(found) = self.disk.metadata(path) else {
            return false;
        };

        if found.uid() != self.uid && self.disk.has_access_list(path) {
            // The group bits are then the list's mask, and the list may exclude this user.
            return false;
        }

        self.bits(&found) & wanted == wanted
    }

    /// Returns the bits of the user's one class. An owner without a right does not get it from the
    /// class of others.
    fn bits(&self, found: &Metadata) -> u32 {
        let class = if found.uid() == self.uid {
            6
        } else if self.groups.contains(&found.gid()) {
            3
        } else {
            0
        };

        (found.mode() >> class) & 0o7
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::files;

    /// A user who does not run the tests and shares no group with them.
    const OTHER: u32 = 4_000_000_000;

    fn may_read(reader: &FileReader, folder: &Path) -> bool {
        let (reader, folder) = (reader.clone(), folder.to_owned());
        files::wait(&folder.clone(), move |disk| {
            reader.may_read_all(disk, &folder)
        })
        .unwrap()
    }

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn snapshot_is_readable_as_its_files() {
        let root = tempfile::tempdir().unwrap();
        let [blobs, snapshot] = ["blobs", "snapshot"].map(|name| root.path().join(name));
        for folder in [&blobs, &snapshot] {
            fs::create_dir(folder).unwrap();
        }

        let blob = blobs.join("b");
        fs::write(&blob, "{}").unwrap();
        symlink("../blobs/b", snapshot.join("config.json")).unwrap();
        let found = fs::metadata(&blob).unwrap();

        let other = FileReader::User {
            uid: OTHER,
            groups: vec![OTHER],
        };

        let member = FileReader::User {
            uid: OTHER,
            groups: vec![OTHER, found.gid()],
        };

        let owner = FileReader::User {
            uid: found.uid(),
            groups: vec![OTHER],
        };

        for (root_mode, blobs_mode, blob_mode, [others, members, owners]) in [
            (0o755, 0o755, 0o644, [true, true, true]),
            (0o755, 0o755, 0o640, [false, true, true]),
            (0o755, 0o755, 0o600, [false, false, true]),
            (0o755, 0o700, 0o644, [false, false, true]),
            (0o711, 0o711, 0o644, [true, true, true]),
            (0o700, 0o755, 0o644, [false, false, true]),
            // Only one class counts.
            (0o755, 0o755, 0o604, [true, false, true]),
            (0o755, 0o755, 0o044, [true, true, false]),
        ] {
            set(&blob, blob_mode);
            set(&blobs, blobs_mode);
            set(root.path(), root_mode);
            let found = [&other, &member, &owner].map(|reader| may_read(reader, &snapshot));
            assert_eq!(
                found,
                [others, members, owners],
                "{root_mode:o} {blobs_mode:o} {blob_mode:o}"
            );

            assert!(
                may_read(&FileReader::Own, &snapshot) && !may_read(&FileReader::Unknown, &snapshot)
            );
        }
    }

    #[test]
    fn access_list_can_exclude_a_user() {
        use rustix::fs::{XattrFlags, setxattr};

        let folder = tempfile::tempdir().unwrap();
        set(folder.path(), 0o755);
        let path = folder.path().join("config.json");
        fs::write(&path, "{}").unwrap();
        set(&path, 0o644);

        let other = FileReader::User {
            uid: OTHER,
            groups: vec![OTHER],
        };

        assert!(may_read(&other, folder.path()));

        // acl(5): the owner, this one user without any right, the group, the mask, all others.
        let mut list = 2_u32.to_le_bytes().to_vec();
        for (tag, rights, id) in [
            (1, 6, u32::MAX),
            (2, 0, OTHER),
            (4, 4, u32::MAX),
            (16, 4, u32::MAX),
            (32, 4, u32::MAX),
        ] {
            list.extend([u16::to_le_bytes(tag), u16::to_le_bytes(rights)].concat());
            list.extend(u32::to_le_bytes(id));
        }
        // A file system without access lists passes.
        if setxattr(&path, "system.posix_acl_access", &list, XattrFlags::empty()).is_ok() {
            assert!(!may_read(&other, folder.path()));
        }
    }
}
