//! Checks whether a root daemon can safely put its socket into a folder.
//!
//! A user who can write to a folder on the path can replace the socket by another. The user can
//! also replace a folder by a symbolic link while root changes modes and groups below it. So a root
//! daemon requires that only root can rename entries: every folder from `/` down, and every link on
//! the path, must be root's own. A daemon without root's rights can harm its own user only, so the
//! kernel's permissions decide.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::process::Uid;

/// The most links on a path, as in the kernel.
const MAX_LINKS: usize = 40;

const STICKY: u32 = 0o1000;
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;

/// Why a folder, or a link to one, is not safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FolderRisk {
    /// Another user owns it.
    #[error("belongs to user {0}, who could replace the socket")]
    Owner(u32),
    /// A group can write to it, and it is not sticky.
    #[error("is writable by group {0}, whose members could replace the socket")]
    Group(u32),
    /// Any user can write to it, and it is not sticky.
    #[error("is writable by every user and not sticky, so any user could replace the socket")]
    Everyone,
}

/// Why a folder fails the check.
#[derive(Debug)]
pub(super) enum FolderError {
    /// A folder on the path, or a link, is not root's own.
    Risky { place: PathBuf, risk: FolderRisk },
    /// A part of the path cannot be read.
    System(io::Error),
}

impl From<io::Error> for FolderError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// Rejects `folder` for a daemon that runs as root, unless its whole path is root's own. Accepts it
/// for any other user.
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

/// Returns the components of `path`, below its root.
fn names(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

fn check_one(place: &Path, found: &Metadata) -> Result<(), FolderError> {
    // The mode of a link has all bits, and none of them counts.
    let mode = if found.is_symlink() { 0 } else { found.mode() };

    match risk(found.uid(), found.gid(), mode) {
        None => Ok(()),
        Some(risk) => Err(FolderError::Risky {
            place: place.to_owned(),
            risk,
        }),
    }
}

/// Returns the risk of a folder with this owner, group and mode. In a sticky folder users can
/// change their own entries only.
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

    fn make_folder(folder: PathBuf, uid: u32, mode: u32) -> PathBuf {
        fs::create_dir_all(folder.join("run")).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
        chown(&folder, Some(uid), None).unwrap();
        folder
    }

    fn make_link(place: PathBuf, target: &Path, uid: u32) -> PathBuf {
        symlink(target, &place).unwrap();
        lchown(&place, Some(uid), None).unwrap();
        place
    }

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
    fn other_users_daemons_skip_the_check() {
        assert!(check(Path::new("/nonexistent/folder"), Uid::from_raw(1000)).is_ok());
    }

    /// Only root can create folders of other users. As another user this test does nothing.
    #[test]
    fn whole_path_must_be_roots() {
        if !rustix::process::geteuid().is_root() {
            return;
        }

        let directory = tempfile::tempdir().unwrap();
        let own = make_folder(directory.path().join("own"), 0, 0o755);
        let alices = make_folder(directory.path().join("alice"), 1000, 0o755);
        let open = make_folder(directory.path().join("open"), 0, 0o777);
        let sticky = make_folder(directory.path().join("sticky"), 0, 0o1777);

        let safe_link = make_link(
            directory.path().join("safe"),
            Path::new("own/../own/run"),
            0,
        );

        let link_to_alice = make_link(own.join("outside"), &alices, 0);
        let alices_link = make_link(sticky.join("alices"), &own, 1000);
        let loops = make_link(own.join("loop"), Path::new("loop"), 0);

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
