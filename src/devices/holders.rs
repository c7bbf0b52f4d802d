//! The identity of processes that hold device memory, from `/proc`.
//!
//! It tells a user which process to stop, and it attributes memory to a lease.

use std::fs;
use std::path::{Path, PathBuf};

use hf_mem_core::device::Process;

use crate::accounts::UserNames;

/// The directories from which facts about the host are read. Tests set their own.
#[derive(Clone, Debug)]
pub struct HostRoots {
    /// `/proc`
    pub proc: PathBuf,
    /// `/sys`
    pub sys: PathBuf,
    /// `/etc`
    pub etc: PathBuf,
}

impl Default for HostRoots {
    fn default() -> Self {
        Self {
            proc: "/proc".into(),
            sys: "/sys".into(),
            etc: "/etc".into(),
        }
    }
}

impl HostRoots {
    /// Returns the roots under the directory in `HF_MEM_PROBE_HOST_ROOT`, or else the defaults.
    ///
    /// The variable is for tests and for a container that mounts the host's `/proc`, `/sys` and
    /// `/etc` elsewhere.
    pub fn from_environment() -> Self {
        std::env::var_os("HF_MEM_PROBE_HOST_ROOT")
            .filter(|root| !root.is_empty())
            .map_or_else(Self::default, |root| Self::under(Path::new(&root)))
    }

    /// Returns the roots `proc`, `sys` and `etc` under one directory.
    pub fn under(root: &Path) -> Self {
        Self {
            proc: root.join("proc"),
            sys: root.join("sys"),
            etc: root.join("etc"),
        }
    }
}

/// The link to the host's initial PID namespace.
///
/// Its inode is the same on every Linux (`PROC_PID_INIT_INO`).
const HOST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Whether a PID that the driver reports (a PID of the host) is the same process in `roots`.
///
/// In a container's own PID namespace the same PID can belong to another process or to none. The
/// reader then names no process rather than the wrong one. If `roots.proc` is not `/proc`, this
/// function trusts the configured directory.
pub fn pids_match(roots: &HostRoots) -> bool {
    if roots.proc != Path::new("/proc") {
        return true;
    }
    fs::read_link("/proc/self/ns/pid").map_or(true, |own| own == Path::new(HOST_PID_NAMESPACE))
}

/// Fills in what `/proc` shows of a process.
///
/// A field that `/proc` hides (another PID namespace, `ProtectProc`) stays `None`. `users` has the
/// names of users.
pub(crate) fn describe(process: &mut Process, proc: &Path, users: &UserNames) {
    let folder = proc.join(process.pid.to_string());

    process.name = read_lossy(&folder.join("comm"))
        .map(|name| name.trim_end().to_owned())
        .filter(|name| !name.is_empty());
    process.uid = read_lossy(&folder.join("status")).as_deref().and_then(uid);
    process.start_ticks = read_lossy(&folder.join("stat"))
        .as_deref()
        .and_then(start_ticks);
    process.cgroup = read_lossy(&folder.join("cgroup"))
        .as_deref()
        .and_then(cgroup);
    process.unit = process.cgroup.as_deref().and_then(unit);
    process.container = process.cgroup.as_deref().and_then(container);
    // Last: the lookup can wait, and the process can end meanwhile.
    process.user = process.uid.and_then(|uid| users.name(uid));
}

fn read_lossy(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The real uid in the text of `status`.
fn uid(status: &str) -> Option<u32> {
    status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// Field 22 of the text of `stat`.
///
/// The name in field 2 can contain spaces and parentheses, so counting starts after the last
/// closing parenthesis.
fn start_ticks(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

/// The cgroup v2 path, or else the path of v1's `name=systemd` hierarchy.
fn cgroup(text: &str) -> Option<String> {
    path_in_hierarchy(text, ":").or_else(|| path_in_hierarchy(text, "name=systemd:"))
}

fn path_in_hierarchy(text: &str, hierarchy: &str) -> Option<String> {
    text.lines()
        .find_map(|line| line.split_once(':')?.1.strip_prefix(hierarchy))
        .map(str::to_owned)
}

/// The innermost systemd service of a cgroup path, or else its innermost scope.
fn unit(cgroup: &str) -> Option<String> {
    innermost_unit(cgroup, ".service").or_else(|| innermost_unit(cgroup, ".scope"))
}

fn innermost_unit(cgroup: &str, suffix: &str) -> Option<String> {
    cgroup
        .rsplit('/')
        .find(|part| part.ends_with(suffix))
        .map(str::to_owned)
}

/// The container id in a cgroup path, shortened to the twelve digits that container tools print.
///
/// Docker, containerd, CRI-O and Podman all use 64 hexadecimal digits.
fn container(cgroup: &str) -> Option<String> {
    cgroup.rsplit('/').find_map(|part| {
        let id = part.strip_suffix(".scope").unwrap_or(part);
        let id = id.rsplit(['-', ':']).next()?;
        (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .then(|| id.get(..12).map(str::to_owned))?
    })
}

/// Returns the pod UID in a cgroup path of Kubernetes.
///
/// The path contains `pod<uid>`. With the systemd cgroup driver it contains
/// `kubepods-...-pod<uid>.slice`, where underscores replace the hyphens of the UID.
pub fn pod(cgroup: &str) -> Option<String> {
    cgroup.split('/').find_map(|part| {
        let uid = part.strip_suffix(".slice").unwrap_or(part);
        let uid = uid
            .rsplit_once("pod")
            .filter(|(before, _)| before.is_empty() || before.ends_with('-'))?
            .1;
        let uid = uid.replace('_', "-");

        let is_uid = uid.len() == 36
            && uid
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        is_uid.then_some(uid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_units_and_containers() {
        let id = "3f4e8a7bb9d0c1e2f3a4b5c6d7e8f90123456789abcdef0123456789abcdef01";
        let docker = format!("0::/system.slice/docker-{id}.scope\n");
        assert_eq!(
            container(&cgroup(&docker).unwrap()).as_deref(),
            Some("3f4e8a7bb9d0")
        );
        let kube = format!("12:cpu:/x\n1:name=systemd:/kubepods/besteffort/pod1/{id}\n");
        assert_eq!(
            container(&cgroup(&kube).unwrap()).as_deref(),
            Some("3f4e8a7bb9d0")
        );

        assert_eq!(
            unit("/system.slice/ollama.service").as_deref(),
            Some("ollama.service")
        );
        let user = "/user.slice/user-1000.slice/user@1000.service/app.slice/vllm.service";
        assert_eq!(unit(user).as_deref(), Some("vllm.service"));
        assert_eq!(container("/user.slice/session-2.scope"), None);

        for (path, podman) in [
            (format!("/machine.slice/libpod-{id}.scope/container"), true),
            (
                format!(
                    "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope"
                ),
                true,
            ),
            (
                format!(
                    "/system.slice/containerd.service/kubepods-besteffort-podx.slice:cri-containerd:{id}"
                ),
                true,
            ),
            (format!("/docker/{id}/vllm"), true),
            (format!("/lxc.payload.{}", &id[..20]), false),
        ] {
            assert_eq!(container(&path).is_some(), podman, "{path}");
        }
    }

    #[test]
    fn reads_pods() {
        let uid = "4f1e2d3c-0a1b-4c5d-8e9f-001122334455";
        let systemd = format!(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice/cri-containerd-{}.scope",
            uid.replace('-', "_"),
            "ab".repeat(32)
        );

        assert_eq!(pod(&systemd).as_deref(), Some(uid));
        assert_eq!(container(&systemd).as_deref(), Some("abababababab"));

        assert_eq!(
            pod(&format!(
                "/kubepods/besteffort/pod{uid}/{}",
                "ab".repeat(32)
            ))
            .as_deref(),
            Some(uid)
        );

        assert_eq!(pod("/system.slice/podman.service"), None);
        assert_eq!(pod("/machine.slice/libpod-abcdef.scope"), None);
    }

    #[test]
    fn reads_start_and_owner() {
        let stat = "4121 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 987654 20 21";
        assert_eq!(start_ticks(stat), Some(987_654));
        assert_eq!(uid("Name:\tx\nUid:\t1000\t1000\t1000\t1000\n"), Some(1000));
    }
}
