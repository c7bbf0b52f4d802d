//! The socket: handed over by systemd, or bound by the daemon itself without ever taking what is
//! not its own.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;
use listenfd::ListenFd;
use rustix::fs::{FlockOperation, flock};
use tracing::warn;

use super::socket_folder::{self, FolderError, FolderRisk};
use crate::accounts::Accounts;
use crate::config::SocketConfig;

/// A socket that is listened on, in non-blocking mode. Dropping it removes the path, if the daemon
/// made it and it is still the one that it made.
#[derive(Debug)]
pub struct Listening {
    listener: Option<UnixListener>,
    own: Option<OwnPath>,
}

/// A path that the daemon made: what stands there is ours only while device and inode are the same.
#[derive(Debug)]
struct OwnPath {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// Why there is no socket to listen on.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Something else than a socket stands at the path.
    #[error("{} is {kind}, not a socket: it is left alone", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
        /// What stands there.
        kind: &'static str,
    },
    /// Another daemon answers there.
    #[error("another daemon listens on {} already", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// The folder is not there.
    #[error("cannot listen on {}: the folder {} does not exist", path.display(), parent.display())]
    NoFolder {
        /// The path.
        path: PathBuf,
        /// Its folder.
        parent: PathBuf,
    },
    /// Another user could replace the socket of a root daemon.
    #[error("cannot listen on {}: {} {risk}", path.display(), place.display())]
    UnsafeFolder {
        /// The path.
        path: PathBuf,
        /// The folder on the way to it, or the link.
        place: PathBuf,
        /// What is wrong with that.
        risk: FolderRisk,
    },
    /// The system refuses.
    #[error("cannot {action} {}: {source}", path.display())]
    System {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// systemd handed over something else than one Unix stream socket.
    #[error("the service manager handed over {0}")]
    Activation(String),
}

impl From<SocketError> for Problem {
    fn from(error: SocketError) -> Self {
        let (reason, hint) = match &error {
            SocketError::NotASocket { .. } => {
                (Reason::BadConfiguration, "remove it, or set socket.path to another path".to_owned())
            }
            SocketError::InUse { .. } => (
                Reason::Busy,
                "stop it first (`systemctl stop hf-mem-probe.socket hf-mem-probe.service`), or use --socket".to_owned(),
            ),
            SocketError::NoFolder { parent, .. } => (
                Reason::BadConfiguration,
                format!(
                    "under systemd RuntimeDirectory=hf-mem-probe makes it; by hand: `install -d -m 0755 {}`, or use \
                     --socket with a folder that you own",
                    parent.display()
                ),
            ),
            SocketError::UnsafeFolder { .. } => (
                Reason::Forbidden,
                "start it by its units, or use --socket in a folder of root's that no other user can write to, such as \
                 one below /run"
                    .to_owned(),
            ),
            SocketError::System { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => (
                Reason::Forbidden,
                "run it as the user who owns the folder, or use --socket with a folder that you own".to_owned(),
            ),
            SocketError::System { .. } => (Reason::BadConfiguration, "see socket.path in the configuration".to_owned()),
            SocketError::Activation(_) => {
                (Reason::BadConfiguration, "hf-mem-probe.socket must have exactly one ListenStream=PATH".to_owned())
            }
        };

        Self::new(reason, error.to_string()).hint(hint)
    }
}

impl Listening {
    /// The listener, for the server. Once.
    pub fn take(&mut self) -> Option<UnixListener> {
        self.listener.take()
    }

    /// The path, where the daemon made it.
    pub fn own_path(&self) -> Option<&Path> {
        self.own.as_ref().map(|own| own.path.as_path())
    }

    /// A socket that someone else made.
    pub fn adopted(listener: UnixListener) -> io::Result<Self> {
        // It may have been made blocking; tokio would then stall without a word.
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener: Some(listener),
            own: None,
        })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let Some(own) = &self.own else { return };
        let still_ours = fs::symlink_metadata(&own.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (own.device, own.inode));
        if still_ours && let Err(error) = fs::remove_file(&own.path) {
            warn!(path = %own.path.display(), %error, "cannot remove the socket");
        }
    }
}

/// The socket that systemd handed over (`LISTEN_FDS`), if any. Must run before threads are started:
/// it clears the variables, so that children do not take them for theirs.
pub fn from_systemd(mut handed: ListenFd) -> Result<Option<Listening>, SocketError> {
    match handed.len() {
        0 => Ok(None),
        1 => {
            let wrong = |error: io::Error| {
                SocketError::Activation(format!("no Unix stream socket: {error}"))
            };
            let listener = handed.take_unix_listener(0).map_err(wrong)?;
            listener.map(Listening::adopted).transpose().map_err(wrong)
        }
        count => Err(SocketError::Activation(format!(
            "{count} sockets, where one is served"
        ))),
    }
}

/// Binds `config.path` with its group and mode.
pub fn bind(config: &SocketConfig, accounts: &Accounts) -> Result<Listening, SocketError> {
    let path = config.path.as_path();
    let system = |action, source| SocketError::System {
        action,
        path: path.to_owned(),
        source,
    };

    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let cannot_open = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => SocketError::NoFolder {
            path: path.to_owned(),
            parent: parent.to_owned(),
        },
        _ => system("open the folder of", error),
    };

    socket_folder::check(parent, rustix::process::geteuid()).map_err(|error| match error {
        FolderError::Risky { place, risk } => SocketError::UnsafeFolder {
            path: path.to_owned(),
            place,
            risk,
        },
        FolderError::System(error) => cannot_open(error),
    })?;

    let folder = File::open(parent).map_err(cannot_open)?;

    // Two daemons that start at the same moment must not both find nobody and unlink each other's
    // socket. The lock is on the folder, so that no file is left behind, and lasts until the socket
    // listens.
    flock(&folder, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
        rustix::io::Errno::WOULDBLOCK => SocketError::InUse {
            path: path.to_owned(),
        },
        errno => system("lock the folder of", errno.into()),
    })?;

    clear_way(path)?;

    // Nobody may connect before group and mode are right, and the process's umask is not ours to
    // change under other threads: so the socket is made in a folder that only we can enter, and
    // moved into place when it is ready.
    let nursery = tempfile::Builder::new()
        .prefix(".")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(parent)
        .map_err(|error| system("make a folder beside", error))?;
    let newborn = nursery.path().join("s");
    let listener = UnixListener::bind(&newborn).map_err(|error| system("listen on", error))?;
    let mut listening = Listening::adopted(listener).map_err(|error| system("listen on", error))?;
    give_to_group(&newborn, &config.group, accounts);
    fs::set_permissions(&newborn, fs::Permissions::from_mode(config.mode.0))
        .map_err(|error| system("set the mode of", error))?;
    let made = fs::symlink_metadata(&newborn).map_err(|error| system("look at", error))?;
    fs::rename(&newborn, path).map_err(|error| system("put in place", error))?;

    listening.own = Some(OwnPath {
        path: path.to_owned(),
        device: made.dev(),
        inode: made.ino(),
    });

    Ok(listening)
}

/// Removes a socket that nobody listens on. Anything else is left alone, and an error.
fn clear_way(path: &Path) -> Result<(), SocketError> {
    let system = |action, source| SocketError::System {
        action,
        path: path.to_owned(),
        source,
    };

    let found = match fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(system("look at", error)),
    };

    if !found.is_socket() {
        let kind = match found {
            kind if kind.is_dir() => "a folder",
            kind if kind.is_symlink() => "a symbolic link",
            kind if kind.is_file() => "a file",
            _ => "something else",
        };

        return Err(SocketError::NotASocket {
            path: path.to_owned(),
            kind,
        });
    }

    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            warn!(path = %path.display(), "removing the socket of a daemon that is gone");
            fs::remove_file(path).map_err(|error| system("remove the stale socket", error))
        }
        // An answer, but also a full backlog and a missing permission, mean that somebody is there.
        Ok(_) | Err(_) => Err(SocketError::InUse {
            path: path.to_owned(),
        }),
    }
}

/// Gives the socket to the group. Where that cannot be, it stays with the daemon's own group, which
/// is stricter: the daemon goes on and says so.
fn give_to_group(path: &Path, group: &str, accounts: &Accounts) {
    let given = accounts
        .gid(group)
        .map_err(|error| error.to_string())
        .and_then(|gid| chgrp(path, gid).map_err(|error| error.to_string()));
    if let Err(why) = given {
        warn!(%group, %why, "the socket is not given to its group: only the daemon's own group may connect");
    }
}

/// Changes the group, unless it is the right one already: a sandboxed service may not call chown at
/// all.
fn chgrp(path: &Path, gid: u32) -> io::Result<()> {
    if fs::symlink_metadata(path)?.gid() == gid {
        Ok(())
    } else {
        std::os::unix::fs::lchown(path, None, Some(gid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(folder: &Path) -> SocketConfig {
        SocketConfig {
            path: folder.join("api.sock"),
            group: "0".to_owned(),
            ..SocketConfig::default()
        }
    }

    fn reason(error: SocketError) -> (Reason, String) {
        let problem = Problem::from(error);
        (problem.reason, problem.detail)
    }

    #[test]
    fn it_is_made_with_its_mode_and_removed_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let listening = bind(&config, &Accounts::default()).unwrap();
        assert_eq!(fs::metadata(&config.path).unwrap().mode() & 0o777, 0o660);
        drop(listening);
        assert!(!config.path.exists());

        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            0,
            "nothing is left behind"
        );
    }

    #[test]
    fn a_file_at_the_path_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        fs::write(&config.path, "precious").unwrap();
        let (reason, detail) = reason(bind(&config, &Accounts::default()).unwrap_err());
        assert_eq!((reason, reason.exit_code()), (Reason::BadConfiguration, 78));

        assert!(
            detail.ends_with("api.sock is a file, not a socket: it is left alone"),
            "{detail}"
        );
        assert_eq!(fs::read_to_string(&config.path).unwrap(), "precious");
    }

    #[test]
    fn a_link_to_a_socket_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let victim = folder.path().join("other.sock");
        drop(UnixListener::bind(&victim).unwrap());
        std::os::unix::fs::symlink(&victim, &config.path).unwrap();

        assert!(matches!(
            bind(&config, &Accounts::default()),
            Err(SocketError::NotASocket { .. })
        ));
        assert!(victim.exists());
    }

    #[test]
    fn a_second_daemon_is_refused_and_the_first_keeps_its_socket() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let first = bind(&config, &Accounts::default()).unwrap();
        let (reason, detail) = reason(bind(&config, &Accounts::default()).unwrap_err());
        assert_eq!((reason, reason.exit_code()), (Reason::Busy, 75));
        assert!(detail.starts_with("another daemon listens on "), "{detail}");
        UnixStream::connect(&config.path).unwrap();
        drop(first);
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        drop(UnixListener::bind(&config.path).unwrap());
        assert!(config.path.exists());
        let listening = bind(&config, &Accounts::default()).unwrap();
        UnixStream::connect(&config.path).unwrap();
        drop(listening);
    }

    #[test]
    fn what_is_not_ours_any_more_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let listening = bind(&config, &Accounts::default()).unwrap();
        fs::remove_file(&config.path).unwrap();
        fs::write(&config.path, "someone else's").unwrap();
        drop(listening);
        assert!(config.path.exists());

        let adopted =
            Listening::adopted(UnixListener::bind(folder.path().join("systemd.sock")).unwrap())
                .unwrap();
        drop(adopted);
        assert!(
            folder.path().join("systemd.sock").exists(),
            "an activated socket stays"
        );
    }

    #[test]
    fn folder_of_another_user_is_refused() {
        if !rustix::process::geteuid().is_root() {
            // As another user this folder cannot be made.
            return;
        }

        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(folder.path(), Some(1000), None).unwrap();
        let (reason, detail) =
            reason(bind(&config(folder.path()), &Accounts::default()).unwrap_err());
        assert_eq!((reason, reason.exit_code()), (Reason::Forbidden, 77));
        assert!(detail.contains("belongs to user 1000"), "{detail}");

        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            0,
            "nothing is made there"
        );
    }

    #[test]
    fn a_missing_folder_is_named_with_the_cure() {
        let folder = tempfile::tempdir().unwrap();
        let config = SocketConfig {
            path: folder.path().join("run/api.sock"),
            ..SocketConfig::default()
        };

        let problem = Problem::from(bind(&config, &Accounts::default()).unwrap_err());
        assert_eq!(problem.reason, Reason::BadConfiguration);

        assert!(
            problem.detail.contains("the folder") && problem.detail.ends_with("run does not exist"),
            "{problem}"
        );
        assert!(problem.hint.unwrap().contains("install -d"));
    }
}
