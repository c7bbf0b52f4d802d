//! Who a process is, from `/proc`: enough to tell a person what to stop and a lease whose memory it
//! sees.

use std::fs;
use std::path::{Path, PathBuf};

use hf_mem_core::device::Process;

use crate::accounts::UserNames;

/// The parts of the file system that facts about the host are read from; tests set their own.
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
    /// Under the directory that `HF_MEM_PROBE_HOST_ROOT` names, where it is set: for a container
    /// that has the host's `/proc`, `/sys` and `/etc` mounted somewhere, and for tests.
    pub fn from_environment() -> Self {
        std::env::var_os("HF_MEM_PROBE_HOST_ROOT")
            .filter(|root| !root.is_empty())
            .map_or_else(Self::default, |root| Self::under(Path::new(&root)))
    }

    /// All of them under one directory.
    pub fn under(root: &Path) -> Self {
        Self {
            proc: root.join("proc"),
            sys: root.join("sys"),
            etc: root.join("etc"),
        }
    }
}

/// The inode of the host's own PID namespace, the same on every Linux (`PROC_PID_INIT_INO`).
const HOSTS_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Whether the number of a process, as the driver gives it (the host's), means the process of that
/// number in `roots`.
///
/// In a container's own PID namespace it may mean another one, or nobody; then nobody is named,
/// rather than the wrong one. Where the files are somewhere else than in `/proc`, whoever put them
/// there answers for them.
pub fn namesakes(roots: &HostRoots) -> bool {
    if roots.proc != Path::new("/proc") {
        return true;
    }
    fs::read_link("/proc/self/ns/pid").map_or(true, |own| own == Path::new(HOSTS_PID_NAMESPACE))
}

/// Fills in what `/proc` shows of a process; what it hides (another PID namespace, `ProtectProc`)
/// stays `None`. `users` has the names of users.
pub(crate) fn describe(process: &mut Process, proc: &Path, users: &UserNames) {
    let own = proc.join(process.pid.to_string());
    let read = |name: &str| {
        fs::read(own.join(name))
            .ok()
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };

    process.name = read("comm")
        .map(|name| name.trim_end().to_owned())
        .filter(|name| !name.is_empty());
    process.uid = read("status").as_deref().and_then(uid);
    process.user = process.uid.and_then(|uid| users.name(uid));
    process.start_ticks = read("stat").as_deref().and_then(start_ticks);
    process.cgroup = read("cgroup").as_deref().and_then(cgroup);
    process.unit = process.cgroup.as_deref().and_then(unit);
    process.container = process.cgroup.as_deref().and_then(container);
}

/// The real uid of `status`.
fn uid(status: &str) -> Option<u32> {
    status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// Field 22 of `stat`; the name in field 2 may hold spaces and parentheses, so counting starts
/// after the last of them.
fn start_ticks(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

/// The cgroup v2 path, else the one of v1's `name=systemd`.
fn cgroup(text: &str) -> Option<String> {
    let path = |of: &str| {
        text.lines()
            .find_map(|line| line.split_once(':')?.1.strip_prefix(of))
            .map(str::to_owned)
    };
    path(":").or_else(|| path("name=systemd:"))
}

/// The innermost systemd service of a cgroup path, else its scope.
fn unit(cgroup: &str) -> Option<String> {
    let last = |ending: &str| {
        cgroup
            .rsplit('/')
            .find(|part| part.ends_with(ending))
            .map(str::to_owned)
    };

    last(".service").or_else(|| last(".scope"))
}

/// The container id in a cgroup path (Docker, containerd, CRI-O and Podman all use 64 hexadecimal
/// digits), shortened to twelve as their tools print it.
fn container(cgroup: &str) -> Option<String> {
    cgroup.rsplit('/').find_map(|part| {
        let id = part.strip_suffix(".scope").unwrap_or(part);
        let id = id.rsplit(['-', ':']).next()?;
        (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .then(|| id.get(..12).map(str::to_owned))?
    })
}

/// The pod UID in a cgroup path of Kubernetes: `pod<uid>`, or with systemd's driver
/// `kubepods-...-pod<uid>.slice`, whose hyphens are underscores.
pub fn pod(cgroup: &str) -> Option<String> {
    cgroup.split('/').find_map(|part| {
        let uid = part.strip_suffix(".slice").unwrap_or(part);
        let uid = uid
            .rsplit_once("pod")
            .filter(|(before, _)| before.is_empty() || before.ends_with('-'))?
            .1;
        let uid = uid.replace('_', "-");

        let sound = uid.len() == 36
            && uid
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        sound.then_some(uid)
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
