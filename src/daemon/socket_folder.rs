//! Whether a root daemon may put its socket into a folder.
//!
//! A user who can write to a folder on the way to the socket can replace the socket by another, or
//! a folder by a symbolic link while root changes modes and groups below it. So root serves only
//! where nobody but root can rename entries: every folder from `/` down, and every link that is
//! followed, must be root's own. A daemon without root's rights can harm no one but its own user;
//! there the kernel's permissions decide.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::process::Uid;

/// Links that are followed, as by the kernel.
const MAX_LINKS: usize = 40;

const STICKY: u32 = 0o1000;
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;

/// Why a folder, or a link to one, is not root's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FolderRisk {
    /// Another user owns it.
    #[error("belongs to user {0}, who could put another socket in its place")]
    Owner(u32),
    /// A group may write to it, and it is not sticky.
    #[error("is writable by group {0}, whose members could put another socket in its place")]
    Group(u32),
    /// Any user may write to it, and it is not sticky.
    #[error(
        "is writable by every user and not sticky, so that any of them could put another socket in its place"
    )]
    Everyone,
}

/// What the check found, besides that all is well.
#[derive(Debug)]
pub(super) enum FolderError {
    /// A folder, or a link on the way, that is not root's own.
    Risky { place: PathBuf, risk: FolderRisk },
    /// The way cannot be walked.
    System(io::Error),
}

impl From<io::Error> for FolderError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// Refuses `folder` for a daemon of the user `daemon`, where that is root, unless all of the way to
/// it is root's own.
pub(super) fn check(folder: &Path, daemon: Uid) -> Result<(), FolderError> {
    if !daemon.is_root() {
        return Ok(());
    }

    let folder = std::path::absolute(folder)?;
    let mut place = PathBuf::from("/");
    let mut rest: VecDeque<OsString> = names(&folder).collect();
    let mut links = 0;
    check_one(&place, &fs::symlink_metadata(&place)?)?;

    while let Some(name) = rest.pop_front() {
        if name == ".." {
            place.pop();
            continue;
        }

        let next = place.join(name);
        let found = fs::symlink_metadata(&next)?;
        check_one(&next, &found)?;

        if !found.is_symlink() {
            place = next;
            continue;
        }

        links += 1;
        if links > MAX_LINKS {
            return Err(
                io::Error::from_raw_os_error(rustix::io::Errno::LOOP.raw_os_error()).into(),
            );
        }

        let target = fs::read_link(&next)?;
        if target.is_absolute() {
            place = PathBuf::from("/");
        }

        for name in names(&target).rev() {
            rest.push_front(name);
        }
    }

    Ok(())
}

/// The steps of `path`, below its root.
fn names(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

fn check_one(place: &Path, found: &Metadata) -> Result<(), FolderError> {
    // A link has all bits of the mode, and none of them counts.
    let mode = if found.is_symlink() { 0 } else { found.mode() };

    match risk(found.uid(), found.gid(), mode) {
        None => Ok(()),
        Some(risk) => Err(FolderError::Risky {
            place: place.to_owned(),
            risk,
        }),
    }
}

/// What is wrong with a folder of this owner, group and mode. A sticky one lets its users change
/// their own entries only.
fn risk(uid: u32, gid: u32, mode: u32) -> Option<FolderRisk> {
    let sticky = mode & STICKY != 0;
    if uid != 0 {
        Some(FolderRisk::Owner(uid))
    } else if mode & OTHERS_WRITE != 0 && !sticky {
        Some(FolderRisk::Everyone)
    } else if mode & GROUP_WRITES != 0 && !sticky && gid != 0 {
        Some(FolderRisk::Group(gid))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};

    use super::*;

    #[test]
    fn only_roots_folders_are_safe() {
        let cases = [
            (0, 0, 0o755, None),
            (0, 0, 0o775, None),
            (0, 0, 0o1777, None),
            (0, 44, 0o1775, None),
            (0, 44, 0o755, None),
            (0, 44, 0o775, Some(FolderRisk::Group(44))),
            (0, 44, 0o2775, Some(FolderRisk::Group(44))),
            (0, 0, 0o777, Some(FolderRisk::Everyone)),
            (1000, 0, 0o755, Some(FolderRisk::Owner(1000))),
            (1000, 1000, 0o1777, Some(FolderRisk::Owner(1000))),
        ];

        for (uid, gid, mode, expected) in cases {
            assert_eq!(risk(uid, gid, mode), expected, "{uid}:{gid} {mode:o}");
        }
    }

    #[test]
    fn other_users_daemons_are_not_held_back() {
        assert!(check(Path::new("/nonexistent/folder"), Uid::from_raw(1000)).is_ok());
    }

    /// Folders of other users can only be made by root: as another user this is not tested.
    #[test]
    fn whole_way_must_be_roots() {
        if !rustix::process::geteuid().is_root() {
            return;
        }

        let directory = tempfile::tempdir().unwrap();
        let folder = |name: &str, uid: u32, mode: u32| {
            let folder = directory.path().join(name);
            fs::create_dir_all(folder.join("run")).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
            chown(&folder, Some(uid), None).unwrap();
            folder
        };

        let own = folder("own", 0, 0o755);
        let alices = folder("alice", 1000, 0o755);
        let open = folder("open", 0, 0o777);
        let sticky = folder("sticky", 0, 0o1777);

        let link = |place: PathBuf, target: &Path, uid: u32| {
            symlink(target, &place).unwrap();
            lchown(&place, Some(uid), None).unwrap();
            place
        };

        let safe_link = link(
            directory.path().join("safe"),
            Path::new("own/../own/run"),
            0,
        );

        let link_to_alice = link(own.join("outside"), &alices, 0);
        let alices_link = link(sticky.join("alices"), &own, 1000);
        let loops = link(own.join("loop"), Path::new("loop"), 0);

        for safe in [
            own.join("run"),
            sticky.join("run"),
            safe_link.clone(),
            own.join("run/../../own"),
        ] {
            assert!(
                check(&safe, Uid::ROOT).is_ok(),
                "{}: {:?}",
                safe.display(),
                check(&safe, Uid::ROOT)
            );
        }

        for (unsafe_folder, named, expected) in [
            (alices.clone(), &alices, FolderRisk::Owner(1000)),
            (alices.join("run"), &alices, FolderRisk::Owner(1000)),
            (open.join("run"), &open, FolderRisk::Everyone),
            (link_to_alice.join("run"), &alices, FolderRisk::Owner(1000)),
            (
                alices_link.join("run"),
                &alices_link,
                FolderRisk::Owner(1000),
            ),
        ] {
            match check(&unsafe_folder, Uid::ROOT) {
                Err(FolderError::Risky { place, risk }) => {
                    assert_eq!((&place, risk), (named, expected));
                }
                other => panic!("{}: {other:?}", unsafe_folder.display()),
            }
        }

        assert!(matches!(
            check(&loops, Uid::ROOT),
            Err(FolderError::System(_))
        ));
    }
}
