//! The daemon as a process of its own: started by the first caller, with its socket and its line to
//! the service manager handed over as systemd does, and ended by a signal.
//!
//! `systemd-socket-activate` stands in for systemd. What it starts is this very test program,
//! running [`child`].

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hf_mem_probe::api::client::{Client, block_on};
use hf_mem_probe::daemon::{Options, boot};

use super::double::Double;

/// A configuration of the test's own, in place of the machine's.
const CONFIG: &str = "HF_MEM_PROBE_TEST_CONFIG";

/// The daemon's side; does nothing unless a socket was handed over.
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

/// Ends the process even when an assertion of the test fails.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _status = self.0.wait();
    }
}

fn activate(socket: &Path, notify: &Path) -> Option<Reaped> {
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
        Ok(child) => Some(Reaped(child)),
        Err(error) => {
            println!("skipped: systemd-socket-activate cannot be run: {error}");
            None
        }
    }
}

#[test]
fn the_first_caller_starts_it_and_sigterm_ends_it() {
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

    // The file is there before anybody listens at it.
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
    let ready = told(&manager, "READY=1");
    assert_eq!(
        ready,
        "READY=1\nSTATUS=answering on the socket unit's socket"
    );
    told(&manager, "WATCHDOG=1");

    // The tool has become the daemon by exec: one process, one id.
    let pid = rustix::process::Pid::from_child(&process.0);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    assert!(told(&manager, "RELOADING=1").contains("MONOTONIC_USEC="));
    told(&manager, "READY=1");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    told(&manager, "STOPPING=1");
    assert!(process.0.wait().unwrap().success());

    assert!(
        socket.exists(),
        "what was handed over is not ours to remove"
    );
}

/// The next message that starts with `name`.
fn told(manager: &UnixDatagram, name: &str) -> String {
    let mut buffer = [0; 4096];
    loop {
        let length = match manager.recv(&mut buffer) {
            // Who was stopped and goes on hears this of a socket with a time limit.
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
