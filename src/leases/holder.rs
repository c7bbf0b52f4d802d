//! Processes that hold leases. A process is identified by its pid *and* its start time, so that a
//! reused pid inherits nothing. A pidfd reports its exit at once.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

/// How many parents are followed upwards. Deeper trees are attributed to no holder.
const MAX_ANCESTORS: usize = 64;

/// A process, identified uniquely while the host is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// Process id, in the daemon's own PID namespace.
    pub pid: u32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/PID/stat`, proc(5)).
    pub start_ticks: u64,
}

/// Why a process cannot hold a lease.
#[derive(Debug, thiserror::Error)]
pub enum HolderError {
    /// The process does not exist.
    #[error("process {pid} has exited; name a running process, or a holder by name")]
    Gone {
        /// The requested process.
        pid: u32,
    },
    /// A file of `/proc` could not be read or does not follow proc(5).
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// The process belongs to another user.
    #[error(
        "process {pid} belongs to uid {owner}, not to uid {requester}; only root may name \
         another user's process"
    )]
    NotYours {
        /// The requested process.
        pid: u32,
        /// Its user.
        owner: u32,
        /// The user who asked.
        requester: u32,
    },
}

/// The relevant fields of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The parent.
    pub parent_pid: u32,
    /// Clock ticks since boot.
    pub start_ticks: u64,
    /// Whether the process has exited and is a zombie.
    pub has_exited: bool,
}

/// Parses the line of `/proc/PID/stat`. The command name is in parentheses and can contain
/// anything, parentheses too, so the fields are counted from the last one.
pub fn parse_stat(line: &str) -> Option<Stat> {
    let (_, fields) = line.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?; // field 3
    let parent_pid = fields.next()?.parse().ok()?; // field 4
    let start_ticks = fields.nth(17)?.parse().ok()?; // field 22
    Some(Stat {
        parent_pid,
        start_ticks,
        has_exited: matches!(state, "Z" | "X" | "x"),
    })
}

fn read_stat(proc_root: &Path, pid: u32) -> Result<Stat, HolderError> {
    let path = proc_root.join(pid.to_string()).join("stat");
    let line = std::fs::read(&path).map_err(|source| unreadable(pid, &path, source))?;
    parse_stat(&String::from_utf8_lossy(&line)).ok_or_else(|| {
        let source = io::Error::new(io::ErrorKind::InvalidData, "not a line of proc(5) stat");
        HolderError::Unreadable {
            path: path.display().to_string(),
            source,
        }
    })
}

fn unreadable(pid: u32, path: &Path, source: io::Error) -> HolderError {
    // ESRCH (3): the process exited between open and read.
    if source.kind() == io::ErrorKind::NotFound || source.raw_os_error() == Some(3) {
        HolderError::Gone { pid }
    } else {
        HolderError::Unreadable {
            path: path.display().to_string(),
            source,
        }
    }
}

/// Returns the identity of a running process. A zombie counts as exited.
pub fn identify(proc_root: &Path, pid: u32) -> Result<ProcessIdentity, HolderError> {
    let stat = read_stat(proc_root, pid)?;
    if stat.has_exited {
        return Err(HolderError::Gone { pid });
    }

    Ok(ProcessIdentity {
        pid,
        start_ticks: stat.start_ticks,
    })
}

/// Returns the real user of a process, from `/proc/PID/status`. The owner of the folder would be
/// root for a process that is not dumpable.
pub fn owner_of(proc_root: &Path, pid: u32) -> Result<u32, HolderError> {
    let (path, status) = read_status(proc_root, pid)?;
    let uid = status.lines().find_map(|line| {
        line.strip_prefix("Uid:")?
            .split_ascii_whitespace()
            .next()?
            .parse()
            .ok()
    });

    uid.ok_or_else(|| {
        let source = io::Error::new(io::ErrorKind::InvalidData, "no Uid: line");
        HolderError::Unreadable {
            path: path.display().to_string(),
            source,
        }
    })
}

fn read_status(proc_root: &Path, pid: u32) -> Result<(PathBuf, String), HolderError> {
    let path = proc_root.join(pid.to_string()).join("status");
    let status = std::fs::read(&path).map_err(|source| unreadable(pid, &path, source))?;
    Ok((path, String::from_utf8_lossy(&status).into_owned()))
}

/// Whether the process is in the PID namespace of `proc_root`. In a namespace of its own, `NSpid:`
/// in its status (proc(5)) has more than one number. A kernel without namespaces has no such line.
pub fn is_in_host_pid_namespace(proc_root: &Path, pid: u32) -> Result<bool, HolderError> {
    let (_, status) = read_status(proc_root, pid)?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    Ok(numbers.is_none_or(|numbers| numbers.split_ascii_whitespace().count() <= 1))
}

/// Fails for a process of another user, unless root asks.
pub fn check_owner(proc_root: &Path, pid: u32, requester: u32) -> Result<(), HolderError> {
    let owner = owner_of(proc_root, pid)?;
    if requester == 0 || requester == owner {
        Ok(())
    } else {
        Err(HolderError::NotYours {
            pid,
            owner,
            requester,
        })
    }
}

/// Whether exactly this process still runs. Another process with its pid does not count, and
/// neither does one that cannot be read.
pub fn is_alive(proc_root: &Path, process: &ProcessIdentity) -> bool {
    identify(proc_root, process.pid).is_ok_and(|found| found == *process)
}

/// A process with a file descriptor that reports its exit.
#[derive(Debug)]
pub struct WatchedProcess {
    /// The process.
    pub identity: ProcessIdentity,
    /// Readable as soon as the process has exited.
    pub pidfd: OwnedFd,
}

/// Opens a pidfd and reads the identity *after* it, so that both name one process. A pid can be
/// reused only after the pidfd's process has exited, and then the pidfd reports that at once.
pub fn watch(proc_root: &Path, pid: u32) -> Result<WatchedProcess, HolderError> {
    let raw = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(HolderError::Gone { pid })?;
    let pidfd = pidfd_open(raw, PidfdFlags::empty()).map_err(|errno| {
        if errno == rustix::io::Errno::SRCH {
            HolderError::Gone { pid }
        } else {
            HolderError::Unreadable {
                path: format!("pidfd of process {pid}"),
                source: errno.into(),
            }
        }
    })?;

    Ok(WatchedProcess {
        identity: identify(proc_root, pid)?,
        pidfd,
    })
}

/// Watches a known process again. It fails for another process with the same pid.
pub fn watch_again(
    proc_root: &Path,
    process: ProcessIdentity,
) -> Result<WatchedProcess, HolderError> {
    let watched = watch(proc_root, process.pid)?;
    if watched.identity == process {
        Ok(watched)
    } else {
        Err(HolderError::Gone { pid: process.pid })
    }
}

/// The parents of processes at one moment. The broker reads them and passes them to the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ancestry {
    processes: HashMap<u32, Stat>,
}

impl Ancestry {
    /// Collects the given processes.
    pub fn new(processes: impl IntoIterator<Item = (u32, Stat)>) -> Self {
        Self {
            processes: processes.into_iter().collect(),
        }
    }

    /// Reads the given processes and their ancestors, up to init. A process that cannot be read is
    /// omitted, and its memory is attributed to no lease.
    pub fn read(proc_root: &Path, pids: impl IntoIterator<Item = u32>) -> Self {
        let mut processes = HashMap::new();
        for pid in pids {
            let mut next = pid;
            for _ in 0..MAX_ANCESTORS {
                if next == 0 || processes.contains_key(&next) {
                    break;
                }
                let Ok(stat) = read_stat(proc_root, next) else {
                    break;
                };
                processes.insert(next, stat);
                next = stat.parent_pid;
            }
        }

        Self { processes }
    }

    /// A process and its known ancestors, the nearest first. If a process started before its
    /// supposed parent, the parent's pid was reused, and the line ends there.
    pub fn line_of(&self, pid: u32) -> Vec<ProcessIdentity> {
        let mut line: Vec<ProcessIdentity> = Vec::new();
        let mut next = pid;
        while line.len() < MAX_ANCESTORS
            && let Some(stat) = self.processes.get(&next)
            && line
                .last()
                .is_none_or(|child| stat.start_ticks <= child.start_ticks)
        {
            line.push(ProcessIdentity {
                pid: next,
                start_ticks: stat.start_ticks,
            });
            next = stat.parent_pid;
        }

        line
    }

    /// How many generations `pid` is below `holder`; 0 is the holder itself. `None` if it is not
    /// known to be in the holder's tree.
    pub fn generations_below(&self, holder: &ProcessIdentity, pid: u32) -> Option<usize> {
        self.line_of(pid)
            .iter()
            .position(|ancestor| ancestor == holder)
    }

    /// Whether a line of ancestors is known up to a process without a parent.
    pub fn reaches_init(&self, line: &[ProcessIdentity]) -> bool {
        line.last()
            .and_then(|last| self.processes.get(&last.pid))
            .is_some_and(|stat| stat.parent_pid == 0)
    }

    /// When a process started, if known.
    pub fn start_ticks(&self, pid: u32) -> Option<u64> {
        self.processes.get(&pid).map(|stat| stat.start_ticks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(parent_pid: u32, start_ticks: u64) -> Stat {
        Stat {
            parent_pid,
            start_ticks,
            has_exited: false,
        }
    }

    #[test]
    fn command_with_parentheses_moves_no_field() {
        let line = "42 (a) b) R 7) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 1";
        assert_eq!(
            parse_stat(line),
            Some(Stat {
                parent_pid: 1,
                start_ticks: 987_654,
                has_exited: false
            })
        );

        assert_eq!(parse_stat("42 (x) S 1 42"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn own_process_is_identified_and_watched() {
        let proc_root = Path::new("/proc");
        let me = identify(proc_root, std::process::id()).unwrap();
        assert!(is_alive(proc_root, &me));

        assert!(!is_alive(
            proc_root,
            &ProcessIdentity {
                start_ticks: me.start_ticks + 1,
                ..me
            }
        ));

        assert_eq!(watch(proc_root, me.pid).unwrap().identity, me);
        let reused = ProcessIdentity {
            start_ticks: me.start_ticks + 1,
            ..me
        };

        assert!(matches!(
            watch_again(proc_root, reused),
            Err(HolderError::Gone { .. })
        ));
        assert_eq!(
            Ancestry::read(proc_root, [me.pid]).generations_below(&me, me.pid),
            Some(0)
        );
        let owner = owner_of(proc_root, me.pid).unwrap();
        assert!(check_owner(proc_root, me.pid, owner).is_ok());
        assert!(check_owner(proc_root, me.pid, 0).is_ok());

        assert!(matches!(
            check_owner(proc_root, me.pid, owner + 1),
            Err(HolderError::NotYours { .. })
        ));
    }

    #[test]
    fn exited_process_is_gone() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();

        assert!(matches!(
            identify(Path::new("/proc"), pid),
            Err(HolderError::Gone { .. })
        ));
        assert!(watch(Path::new("/proc"), pid).is_err());
        assert!(watch(Path::new("/proc"), 0).is_err());
        assert!(watch(Path::new("/proc"), u32::MAX).is_err());
    }

    #[test]
    fn trees_need_matching_start_times() {
        let holder = ProcessIdentity {
            pid: 10,
            start_ticks: 100,
        };

        let tree = Ancestry::new([
            (10, stat(1, 100)),
            (11, stat(10, 110)),
            (12, stat(11, 120)),
            (13, stat(10, 90)),
        ]);
        assert_eq!(tree.generations_below(&holder, 12), Some(2));

        assert_eq!(
            tree.generations_below(
                &ProcessIdentity {
                    pid: 10,
                    start_ticks: 99
                },
                12
            ),
            None
        );

        assert_eq!(
            tree.generations_below(&holder, 13),
            None,
            "older than its parent: a reused pid"
        );

        assert_eq!(tree.generations_below(&holder, 99), None);
        assert!(!tree.reaches_init(&tree.line_of(12)), "its root is unknown");
        let complete = Ancestry::new([(1, stat(0, 1)), (10, stat(1, 100))]);
        assert!(complete.reaches_init(&complete.line_of(10)));
        assert!(!complete.reaches_init(&complete.line_of(99)));
        let cycle = Ancestry::new([(1, stat(2, 5)), (2, stat(1, 5))]);
        assert_eq!(cycle.generations_below(&holder, 1), None);
    }
}
