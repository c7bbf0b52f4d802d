//! Who holds a lease: a process known by its pid *and* its start time, so that a reused pid
//! inherits nothing, and watched through a pidfd, so that its death is told at once.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

/// How many parents are followed upwards; deeper trees are not known to be anyone's.
const DEEPEST_TREE: usize = 64;

/// A process that no other can be taken for, as long as the host is up.
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
    /// There is no such process.
    #[error(
        "process {pid} is not there any more; name a running process, or a holder by name and time to live only"
    )]
    Gone {
        /// Asked for.
        pid: u32,
    },
    /// `/proc` did not answer as proc(5) says.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// What was read.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// The process belongs to another user.
    #[error(
        "process {pid} belongs to uid {owner}, not to uid {asker}; only root may name another user's process"
    )]
    NotYours {
        /// Asked for.
        pid: u32,
        /// Whose it is.
        owner: u32,
        /// Who asked.
        asker: u32,
    },
}

/// A line of `/proc/PID/stat`, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The parent.
    pub parent_pid: u32,
    /// Clock ticks since boot.
    pub start_ticks: u64,
    /// Dead, and only waiting for its parent to notice.
    pub dead: bool,
}

/// Reads one line of `/proc/PID/stat`. The command name is in parentheses and may hold anything,
/// parentheses too: the fields are counted from the last one.
pub fn parse_stat(line: &str) -> Option<Stat> {
    let (_, fields) = line.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?; // field 3
    let parent_pid = fields.next()?.parse().ok()?; // field 4
    let start_ticks = fields.nth(17)?.parse().ok()?; // field 22
    Some(Stat {
        parent_pid,
        start_ticks,
        dead: matches!(state, "Z" | "X" | "x"),
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
    // ESRCH (3): the process went away between open and read.
    if source.kind() == io::ErrorKind::NotFound || source.raw_os_error() == Some(3) {
        HolderError::Gone { pid }
    } else {
        HolderError::Unreadable {
            path: path.display().to_string(),
            source,
        }
    }
}

/// The identity of a running process; a zombie is gone.
pub fn identify(proc_root: &Path, pid: u32) -> Result<ProcessIdentity, HolderError> {
    let stat = read_stat(proc_root, pid)?;
    if stat.dead {
        return Err(HolderError::Gone { pid });
    }

    Ok(ProcessIdentity {
        pid,
        start_ticks: stat.start_ticks,
    })
}

/// The real user of a process, from `/proc/PID/status` (the folder's own owner is root for a
/// process that is not dumpable).
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

/// Whether the process numbers processes as `/proc` does here, and not as a PID namespace of its
/// own: then `NSpid:` in its status (proc(5)) holds more numbers than one. A kernel without
/// namespaces has no such line.
pub fn counts_as_here(proc_root: &Path, pid: u32) -> Result<bool, HolderError> {
    let (_, status) = read_status(proc_root, pid)?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    Ok(numbers.is_none_or(|numbers| numbers.split_ascii_whitespace().count() <= 1))
}

/// Refuses a process of another user, unless root asks.
pub fn check_owner(proc_root: &Path, pid: u32, asker: u32) -> Result<(), HolderError> {
    let owner = owner_of(proc_root, pid)?;
    if asker == 0 || asker == owner {
        Ok(())
    } else {
        Err(HolderError::NotYours { pid, owner, asker })
    }
}

/// Whether exactly this process still runs: another with its pid does not count, and what cannot be
/// read is not known to live.
pub fn is_alive(proc_root: &Path, process: &ProcessIdentity) -> bool {
    identify(proc_root, process.pid).is_ok_and(|found| found == *process)
}

/// A holder whose death makes its file descriptor readable.
#[derive(Debug)]
pub struct WatchedProcess {
    /// Who it is.
    pub identity: ProcessIdentity,
    /// Readable as soon as the process has ended.
    pub pidfd: OwnedFd,
}

/// Opens a pidfd and reads the identity *after* it, so that both are of one process: a pid can be
/// reused only once the process that the pidfd names has ended, and then the caller is told so by
/// the pidfd at once.
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

/// As [`watch`], for a process that is known already: one that has its pid only is refused.
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

/// Who is whose child, as it was at one moment: read by the shell, given to the ledger as data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ancestry {
    processes: HashMap<u32, Stat>,
}

impl Ancestry {
    /// From what is known of each process.
    pub fn new(processes: impl IntoIterator<Item = (u32, Stat)>) -> Self {
        Self {
            processes: processes.into_iter().collect(),
        }
    }

    /// Reads the given processes and their parents, up to init. What cannot be read is left out:
    /// its memory is then nobody's.
    pub fn read(proc_root: &Path, pids: impl IntoIterator<Item = u32>) -> Self {
        let mut processes = HashMap::new();
        for pid in pids {
            let mut next = pid;
            for _ in 0..DEEPEST_TREE {
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

    /// A process and its ancestors, the nearest first, as far as they are known. A process that
    /// started before its would-be parent is not its child: that pid was reused, and the line ends
    /// there.
    pub fn line_of(&self, pid: u32) -> Vec<ProcessIdentity> {
        let mut line: Vec<ProcessIdentity> = Vec::new();
        let mut next = pid;
        while line.len() < DEEPEST_TREE
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

    /// How many generations `pid` is below `holder` (0: it is the holder itself); `None` where it
    /// is not known to be of its tree.
    pub fn generations_below(&self, holder: &ProcessIdentity, pid: u32) -> Option<usize> {
        self.line_of(pid)
            .iter()
            .position(|ancestor| ancestor == holder)
    }

    /// Whether a line of descent is known up to a process without a parent.
    pub fn reaches_init(&self, line: &[ProcessIdentity]) -> bool {
        line.last()
            .and_then(|last| self.processes.get(&last.pid))
            .is_some_and(|stat| stat.parent_pid == 0)
    }

    /// When a process started, where known.
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
            dead: false,
        }
    }

    #[test]
    fn a_command_name_with_parentheses_moves_no_field() {
        let line = "42 (a) b) R 7) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 1";
        assert_eq!(
            parse_stat(line),
            Some(Stat {
                parent_pid: 1,
                start_ticks: 987_654,
                dead: false
            })
        );

        assert_eq!(parse_stat("42 (x) S 1 42"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn this_process_is_identified_watched_and_alive() {
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
    fn a_dead_process_is_gone() {
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
    fn trees_are_followed_by_pid_and_start() {
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
        assert!(
            !tree.reaches_init(&tree.line_of(12)),
            "its root is not known"
        );
        let whole = Ancestry::new([(1, stat(0, 1)), (10, stat(1, 100))]);
        assert!(whole.reaches_init(&whole.line_of(10)));
        assert!(!whole.reaches_init(&whole.line_of(99)));
        let circle = Ancestry::new([(1, stat(2, 5)), (2, stat(1, 5))]);
        assert_eq!(circle.generations_below(&holder, 1), None);
    }
}
