//! Other users: which of them can connect, with which uid, and how many connections one of them
//! gets.
//!
//! Only root can act as another user; for other users the tests print that they skip. The other
//! user runs this test program with [`child`].

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::{Problem, SCHEMA_VERSION};
use hf_mem_probe::admission::server_limits::ServerLimits;
use hf_mem_probe::api::client::{Client, block_on};

use super::double::{Running, default_limits, start};

/// The usual uid of `nobody`.
const OTHER_UID: u32 = 65_534;
const ROLE: &str = "HF_MEM_PROBE_TEST_ROLE";
const SOCKET: &str = "HF_MEM_PROBE_TEST_SOCKET";

/// The other user's side. It does nothing without a role.
#[test]
#[ignore = "started by the tests below"]
fn child() {
    let (Ok(role), Some(socket)) = (std::env::var(ROLE), std::env::var_os(SOCKET)) else {
        return;
    };

    let client = Client::new(PathBuf::from(socket));
    block_on(async {
        match role.as_str() {
            "allowed" => {
                let leases = client.leases().await.unwrap();
                assert_eq!(
                    (leases.schema_version, leases.leases[0].uid),
                    (SCHEMA_VERSION, OTHER_UID)
                );
            }
            "forbidden" => {
                let error = client.health().await.unwrap_err();
                assert!(!error.daemon_is_absent(), "{error}");
                let problem = Problem::from(error);
                assert_eq!(problem.reason, Reason::DaemonUnreachable);
                assert!(problem.hint.unwrap().contains("your user may not connect"));
            }
            "greedy" => {
                let mut held = Vec::new();
                for _ in 0..2 {
                    let mut lines = client.watch_gpus().await.unwrap();
                    lines.next().await.unwrap().unwrap().unwrap();
                    held.push(lines);
                }

                client.health().await.unwrap_err();
                held.pop();

                // The slot is free as soon as the daemon has seen the end of the stream.
                while client.health().await.is_err() {}
            }
            role => panic!("no role {role}"),
        }
    })
    .unwrap();
}

/// Starts a daemon whose socket has `mode`, in a folder that all users can enter. Returns `None` if
/// the test cannot act as another user.
fn reachable(limits: ServerLimits, mode: u32) -> Option<Running> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can act as another user");
        return None;
    }

    let daemon = start(limits);
    if !daemon.folder.path().ancestors().skip(1).all(all_can_enter) {
        println!("skipped: another user may not enter the folder of temporary files");
        return None;
    }

    std::fs::set_permissions(daemon.folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(daemon.socket(), std::fs::Permissions::from_mode(mode)).unwrap();

    Some(daemon)
}

fn all_can_enter(folder: &Path) -> bool {
    std::fs::metadata(folder).is_ok_and(|found| found.mode() & 0o001 != 0)
}

/// Runs the other user in `role` to its end. Returns `false` if that user cannot start this
/// program.
async fn other_user(daemon: &Running, role: &'static str) -> bool {
    let socket = daemon.socket();
    let output = tokio::task::spawn_blocking(move || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "users::child", "--nocapture"])
            .env(ROLE, role)
            .env(SOCKET, socket)
            .current_dir("/")
            .uid(OTHER_UID)
            .gid(OTHER_UID)
            .output()
    });

    match output.await.unwrap() {
        Ok(output) => {
            assert!(
                output.status.success(),
                "{role}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
            true
        }
        Err(error) => {
            println!("skipped: another user cannot run this test program: {error}");
            false
        }
    }
}

#[tokio::test]
async fn uid_comes_from_the_kernel() {
    let Some(daemon) = reachable(default_limits(), 0o666) else {
        return;
    };
    other_user(&daemon, "allowed").await;
    daemon.stop().await;
}

#[tokio::test]
async fn users_outside_the_group_are_rejected() {
    let Some(daemon) = reachable(default_limits(), 0o660) else {
        return;
    };
    other_user(&daemon, "forbidden").await;
    daemon.stop().await;
}

#[tokio::test]
async fn connections_per_user_are_limited() {
    let Some(daemon) = reachable(
        ServerLimits {
            connections: 16,
            connections_per_user: 2,
            ..default_limits()
        },
        0o666,
    ) else {
        return;
    };

    if other_user(&daemon, "greedy").await {
        let metrics = daemon.client().metrics().await.unwrap();
        assert!(
            metrics.contains("connections_refused_total{why=\"user_connections\"}"),
            "{metrics}"
        );
    }

    daemon.stop().await;
}
