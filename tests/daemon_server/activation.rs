//! The daemon as a process of its own, under socket activation: the first caller starts it, and a
//! signal stops it.
//!
//! `systemd-socket-activate` replaces systemd. It starts this test program with [`child`].

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hf_mem_probe::api::client::{Client, block_on};
use hf_mem_probe::daemon::{Options, boot};

use super::double::Double;

/// The test's own configuration instead of the machine's.
const CONFIG: &str = "HF_MEM_PROBE_TEST_CONFIG";

/// The daemon's side. It does nothing without a handed-over socket.
#[test]
#[ignore = "started by the test below"]
fn child() {
    if std::env::var_os("LISTEN_FDS").is_none() {
        return;
    }

    let options = Options {
        config_file: std::env::var_os(CONFIG).map(Into::into),
        ..Options::default()
    };

    let ended = boot(&options, async |_parts| Ok(Double::default())).unwrap();
    assert_eq!(ended.by, "SIGTERM");
}

/// Ends the process, also when an assertion of the test fails.
struct ChildGuard(Child);

impl Drop for ChildGuard {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _status = self.0.wait();
    }
}

fn activate(socket: &Path, notify: &Path) -> Option<ChildGuard> {
    let config = socket.with_file_name("config.toml");
    std::fs::write(&config, "").unwrap();

    let started = Command::new("systemd-socket-activate")
        .arg("-l")
        .arg(socket)
        .arg("-E")
        .arg(format!("NOTIFY_SOCKET={}", notify.display()))
        .arg("-E")
        .arg(format!("{CONFIG}={}", config.display()))
        .args(["-E", "WATCHDOG_USEC=400000"])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "activation::child"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();

    match started {
        Ok(child) => Some(ChildGuard(child)),
        Err(error) => {
            println!("skipped: systemd-socket-activate cannot be run: {error}");
            None
        }
    }
}

#[test]
fn first_caller_starts_the_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, notify) = (
        folder.path().join("api.sock"),
        folder.path().join("notify.sock"),
    );
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let Some(mut process) = activate(&socket, &notify) else {
        return;
    };

    // The file exists before a process listens on it.
    let health = loop {
        match block_on(Client::new(&socket).health()).unwrap() {
            Err(error) if error.daemon_is_absent() => {
                assert_eq!(
                    process.0.try_wait().unwrap(),
                    None,
                    "the tool ended: {error}"
                );
            }
            health => break health.unwrap(),
        }
    };

    assert_eq!(health.uptime_seconds, 3);
    let ready = notification(&manager, "READY=1");
    assert_eq!(
        ready,
        "READY=1\nSTATUS=answering on the socket unit's socket"
    );
    notification(&manager, "WATCHDOG=1");

    // The tool becomes the daemon by exec, so the pid stays the same.
    let pid = rustix::process::Pid::from_child(&process.0);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    assert!(notification(&manager, "RELOADING=1").contains("MONOTONIC_USEC="));
    notification(&manager, "READY=1");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    notification(&manager, "STOPPING=1");
    assert!(process.0.wait().unwrap().success());

    assert!(
        socket.exists(),
        "the daemon does not remove a handed-over socket"
    );
}

/// Returns the next message that starts with `name`.
fn notification(manager: &UnixDatagram, name: &str) -> String {
    let mut buffer = [0; 4096];
    loop {
        let length = match manager.recv(&mut buffer) {
            // A process that was stopped and continued gets this from a socket with a timeout.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            length => length.unwrap(),
        };

        let message = String::from_utf8_lossy(&buffer[..length])
            .trim_end()
            .to_owned();

        if message.starts_with(name) {
            return message;
        }
    }
}
