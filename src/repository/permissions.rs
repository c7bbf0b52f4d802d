//! Who may read a file, by its permission bits and those of the folders above it.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::files::Disk;

/// Files below one folder that are looked at, and folders in one another.
const MAX_ENTRIES: usize = 20_000;
const MAX_DEPTH: usize = 8;

/// For whom files that this program can read are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileReader {
    /// This program's own user, and users who may have what that one has.
    Own,
    /// Another user of this host.
    User {
        /// Its number.
        uid: u32,
        /// Its groups, the primary one among them.
        groups: Vec<u32>,
    },
    /// Not known: it is shown nothing.
    Unknown,
}

impl FileReader {
    /// Whether it could read every file below `folder` itself. When in doubt, no.
    pub(super) fn may_read_all(&self, disk: &Disk, folder: &Path) -> bool {
        match self {
            Self::Own => true,
            Self::Unknown => false,
            Self::User { uid, groups } => {
                let mut look = Look {
                    disk,
                    uid: *uid,
                    groups,
                    passable: HashMap::new(),
                    seen: 0,
                };
                look.tree(folder, 0)
            }
        }
    }
}

/// One user's look at files, with what it found of folders so far.
struct Look<'a> {
    disk: &'a Disk,
    uid: u32,
    groups: &'a [u32],
    passable: HashMap<PathBuf, bool>,
    seen: usize,
}

const READ: u32 = 0o4;
const ENTER: u32 = 0o1;

impl Look<'_> {
    /// Whether all below `folder` can be listed and read.
    fn tree(&mut self, folder: &Path, depth: usize) -> bool {
        if depth > MAX_DEPTH || !self.reaches(folder, READ | ENTER) {
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
            Some(found) if found.is_dir() => self.tree(&entry.path, depth + 1),
            Some(found) if found.is_file() => self.reaches(&entry.path, READ),
            // A link that leads nowhere, a pipe: nothing is read of these.
            _ => true,
        })
    }

    /// Whether the user has `wanted` of what `path` leads to, and can enter every folder on the way
    /// there.
    fn reaches(&mut self, path: &Path, wanted: u32) -> bool {
        let Ok(path) = self.disk.canonical(path) else {
            return false;
        };

        self.has(&path, wanted)
            && path
                .ancestors()
                .skip(1)
                .all(|folder| self.can_enter(folder))
    }

    fn can_enter(&mut self, folder: &Path) -> bool {
        if let Some(known) = self.passable.get(folder) {
            return *known;
        }
        let passable = self.has(folder, ENTER);
        self.passable.insert(folder.to_owned(), passable);
        passable
    }

    fn has(&self, path: &Path, wanted: u32) -> bool {
        let Ok(found) = self.disk.metadata(path) else {
            return false;
        };

        if found.uid() != self.uid && self.disk.has_access_list(path) {
            // The bits of the group are the list's mask then, and the list may shut out one user.
            return false;
        }

        self.bits(&found) & wanted == wanted
    }

    /// The bits of the one class that the user is of: an owner without a right does not get it as
    /// one of the others.
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

    /// Not the user who runs the tests, and in no group of theirs.
    const OTHER: u32 = 4_000_000_000;

    fn may(reader: &FileReader, folder: &Path) -> bool {
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
    fn a_snapshot_is_readable_as_its_files_are() {
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
            // The class decides alone.
            (0o755, 0o755, 0o604, [true, false, true]),
            (0o755, 0o755, 0o044, [true, true, false]),
        ] {
            set(&blob, blob_mode);
            set(&blobs, blobs_mode);
            set(root.path(), root_mode);
            let found = [&other, &member, &owner].map(|reader| may(reader, &snapshot));
            assert_eq!(
                found,
                [others, members, owners],
                "{root_mode:o} {blobs_mode:o} {blob_mode:o}"
            );

            assert!(may(&FileReader::Own, &snapshot) && !may(&FileReader::Unknown, &snapshot));
        }
    }

    #[test]
    fn an_access_list_closes_a_file() {
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

        assert!(may(&other, folder.path()));

        // acl(5): the owner, this one user with no right at all, the group, the mask, all others.
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
        // A file system without access lists has nothing to get wrong.
        if setxattr(&path, "system.posix_acl_access", &list, XattrFlags::empty()).is_ok() {
            assert!(!may(&other, folder.path()));
        }
    }
}
