//! The socket: handed over by systemd, or bound by the daemon, which never replaces a file or a
//! socket that is not its own.

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

/// A listening socket in non-blocking mode. Dropping it removes the path if the daemon created it
/// and it still is the same socket.
#[derive(Debug)]
pub struct Listening {
    listener: Option<UnixListener>,
    own: Option<OwnPath>,
}

/// A path that the daemon created. The file at it is the daemon's only while device and inode
/// match.
#[derive(Debug)]
struct OwnPath {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// Why there is no socket to listen on.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The file at the path is not a socket.
    #[error("{} is {kind}, not a socket: the daemon does not replace it", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
        /// The kind of the file.
        kind: &'static str,
    },
    /// Another daemon answers there.
    #[error("another daemon already listens on {}", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// The folder does not exist.
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
        /// The folder on the path, or the link.
        place: PathBuf,
        /// Its risk.
        risk: FolderRisk,
    },
    /// A system call failed.
    #[error("cannot {action} {}: {source}", path.display())]
    System {
        /// What failed.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// systemd handed over something other than one Unix stream socket.
    #[error("the service manager handed over {0}")]
    Activation(String),
}

impl SocketError {
    fn system(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::System {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

impl From<SocketError> for Problem {
    fn from(error: SocketError) -> Self {
        let (reason, hint) = match &error {
            SocketError::NotASocket { .. } => (
                Reason::BadConfiguration,
                "remove it, or set socket.path to another path".to_owned(),
            ),
            SocketError::InUse { .. } => (
                Reason::Busy,
                "stop it first (`systemctl stop hf-mem-probe.socket hf-mem-probe.service`), \
                 or use --socket"
                    .to_owned(),
            ),
            SocketError::NoFolder { parent, .. } => (
                Reason::BadConfiguration,
                format!(
                    "under systemd, RuntimeDirectory=hf-mem-probe creates it; otherwise run \
                     `install -d -m 0755 {}`, or use --socket with a folder that you own",
                    parent.display()
                ),
            ),
            SocketError::UnsafeFolder { .. } => (
                Reason::Forbidden,
                "start it through its units, or use --socket in a folder that only root can \
                 write to, such as one below /run"
                    .to_owned(),
            ),
            SocketError::System { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                (
                    Reason::Forbidden,
                    "run it as the user who owns the folder, or use --socket with a folder that \
                     you own"
                        .to_owned(),
                )
            }
            SocketError::System { .. } => (
                Reason::BadConfiguration,
                "check socket.path in the configuration".to_owned(),
            ),
            SocketError::Activation(_) => (
                Reason::BadConfiguration,
                "give hf-mem-probe.socket exactly one ListenStream=PATH".to_owned(),
            ),
        };

        Self::new(reason, error.to_string()).hint(hint)
    }
}

impl Listening {
    /// Takes the listener. Only the first call returns it.
    pub fn take(&mut self) -> Option<UnixListener> {
        self.listener.take()
    }

    /// The path, if the daemon created it.
    pub fn own_path(&self) -> Option<&Path> {
        self.own.as_ref().map(|own| own.path.as_path())
    }

    /// Adopts a socket that another process created.
    pub fn adopted(listener: UnixListener) -> io::Result<Self> {
        // tokio would silently stall on a blocking socket.
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

/// Returns the socket that systemd handed over (`LISTEN_FDS`), if any.
///
/// Call it before threads start: it clears the variables, so that child processes do not use them.
pub fn from_systemd(mut handed_over: ListenFd) -> Result<Option<Listening>, SocketError> {
    match handed_over.len() {
        0 => Ok(None),
        1 => {
            let listener = handed_over.take_unix_listener(0);
            listener
                .and_then(|listener| listener.map(Listening::adopted).transpose())
                .map_err(|error| SocketError::Activation(format!("no Unix stream socket: {error}")))
        }
        count => Err(SocketError::Activation(format!(
            "{count} sockets instead of one"
        ))),
    }
}

/// Binds `config.path` with its group and mode.
pub fn bind(config: &SocketConfig, accounts: &Accounts) -> Result<Listening, SocketError> {
    let path = config.path.as_path();
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));

    socket_folder::check(parent, rustix::process::geteuid()).map_err(|error| match error {
        FolderError::Risky { place, risk } => SocketError::UnsafeFolder {
            path: path.to_owned(),
            place,
            risk,
        },
        FolderError::System(error) => cannot_open_folder(path, parent, error),
    })?;

    let folder = File::open(parent).map_err(|error| cannot_open_folder(path, parent, error))?;

    // Two daemons that start at the same moment must not both find the path unused and remove each
    // other's socket. The lock is on the folder, so that no lock file remains. It lasts until the
    // socket listens.
    flock(&folder, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
        rustix::io::Errno::WOULDBLOCK => SocketError::InUse {
            path: path.to_owned(),
        },
        errno => SocketError::system("lock the folder of", path, errno.into()),
    })?;

    clear_path(path)?;

    // No client may connect before group and mode are set, and changing the process's umask would
    // affect other threads. So the socket is created in a staging directory that only this user can
    // enter, and moved into place when it is ready.
    let staging = tempfile::Builder::new()
        .prefix(".")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(parent)
        .map_err(|error| SocketError::system("create a staging directory for", path, error))?;
    let staged = staging.path().join("s");
    let mut listening = UnixListener::bind(&staged)
        .and_then(Listening::adopted)
        .map_err(|error| SocketError::system("listen on", path, error))?;
    give_to_group(&staged, &config.group, accounts);
    fs::set_permissions(&staged, fs::Permissions::from_mode(config.mode.0))
        .map_err(|error| SocketError::system("set the mode of", path, error))?;
    let created = fs::symlink_metadata(&staged)
        .map_err(|error| SocketError::system("read the metadata of", path, error))?;
    fs::rename(&staged, path)
        .map_err(|error| SocketError::system("move into place", path, error))?;

    listening.own = Some(OwnPath {
        path: path.to_owned(),
        device: created.dev(),
        inode: created.ino(),
    });

    Ok(listening)
}

fn cannot_open_folder(path: &Path, parent: &Path, error: io::Error) -> SocketError {
    match error.kind() {
        io::ErrorKind::NotFound => SocketError::NoFolder {
            path: path.to_owned(),
            parent: parent.to_owned(),
        },
        _ => SocketError::system("open the folder of", path, error),
    }
}

/// Removes a socket on which no process listens. Any other file at the path is an error.
fn clear_path(path: &Path) -> Result<(), SocketError> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(SocketError::system("read the metadata of", path, error)),
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
            warn!(path = %path.display(), "removing the socket of a daemon that has ended");
            fs::remove_file(path)
                .map_err(|error| SocketError::system("remove the stale socket", path, error))
        }
        // An answer means that a daemon listens; so do a full backlog and a missing permission.
        Ok(_) | Err(_) => Err(SocketError::InUse {
            path: path.to_owned(),
        }),
    }
}

/// Changes the socket's group. If that fails, the socket keeps the daemon's own group, which is
/// stricter: the daemon continues with a warning.
fn give_to_group(path: &Path, group: &str, accounts: &Accounts) {
    let changed = accounts
        .gid(group)
        .map_err(|error| error.to_string())
        .and_then(|gid| chgrp(path, gid).map_err(|error| error.to_string()));
    if let Err(why) = changed {
        warn!(
            %group, %why,
            "cannot change the socket's group: only the daemon's own group can connect"
        );
    }
}

/// Changes the group unless it is right already: a sandboxed service cannot call chown at all.
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
    fn socket_has_mode_and_is_removed() {
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
    fn other_files_are_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        fs::write(&config.path, "precious").unwrap();
        let (reason, detail) = reason(bind(&config, &Accounts::default()).unwrap_err());
        assert_eq!((reason, reason.exit_code()), (Reason::BadConfiguration, 78));

        assert!(
            detail.ends_with("api.sock is a file, not a socket: the daemon does not replace it"),
            "{detail}"
        );
        assert_eq!(fs::read_to_string(&config.path).unwrap(), "precious");
    }

    #[test]
    fn links_to_sockets_are_not_followed() {
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
    fn second_daemon_is_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let first = bind(&config, &Accounts::default()).unwrap();
        let (reason, detail) = reason(bind(&config, &Accounts::default()).unwrap_err());
        assert_eq!((reason, reason.exit_code()), (Reason::Busy, 75));
        assert!(
            detail.starts_with("another daemon already listens on "),
            "{detail}"
        );
        UnixStream::connect(&config.path).unwrap();
        drop(first);
    }

    #[test]
    fn stale_socket_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        drop(UnixListener::bind(&config.path).unwrap());
        assert!(config.path.exists());
        let listening = bind(&config, &Accounts::default()).unwrap();
        UnixStream::connect(&config.path).unwrap();
        drop(listening);
    }

    #[test]
    fn foreign_sockets_are_not_removed() {
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
    fn folder_of_another_user_is_rejected() {
        if !rustix::process::geteuid().is_root() {
            // Only root can create such a folder.
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
            "nothing is created there"
        );
    }

    #[test]
    fn missing_folder_has_a_hint() {
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
