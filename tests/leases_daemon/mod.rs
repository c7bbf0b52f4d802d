//! The real daemon as a process on a simulated driver: the test starts it, kills it like `kill -9`,
//! and starts it again on the files that it left.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's own machinery")]
#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod cards;
pub(crate) mod model;
pub(crate) mod race;

use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running daemon, its folder and its arguments.
pub(crate) struct Daemon {
    program: PathBuf,
    directory: PathBuf,
    arguments: Vec<String>,
    child: Child,
}

impl Daemon {
    /// Starts `program daemon` in `directory` with more `arguments`, and waits until it is ready.
    pub(crate) fn start(program: &Path, directory: &Path, arguments: &[&str]) -> Self {
        Self::start_with(program, directory, arguments, "")
    }

    /// Does the same with more lines of configuration after those of `[devices]`.
    pub(crate) fn start_with(
        program: &Path,
        directory: &Path,
        arguments: &[&str],
        more: &str,
    ) -> Self {
        for folder in ["cache", "state"] {
            fs::create_dir_all(directory.join(folder)).unwrap();
        }

        let text = format!(
            "[socket]\npath = \"{0}/api.sock\"\ngroup = \"{1}\"\nconnections = 512\n[hub]\noffline = \
             true\ncache_directory = \"{0}/cache\"\n[leases]\nstate_directory = \"{0}/state\"\nuser_leases = \
             1000\n[devices]\nsample_interval = \"50ms\"\n{more}",
            directory.display(),
            rustix::process::getgid().as_raw(),
        );
        fs::write(directory.join("config.toml"), text).unwrap();

        let arguments: Vec<String> = arguments
            .iter()
            .map(|&argument| argument.to_owned())
            .collect();
        let child = spawn(program, directory, &arguments);

        Self {
            program: program.to_owned(),
            directory: directory.to_owned(),
            arguments,
            child,
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join("api.sock")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The log so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Kills it like `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM. Returns the exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }

    /// Starts it again after a kill or a stop.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(&self.program, &self.directory, &self.arguments);
    }
}

/// Removes everything from the environment of `command` that could change its behavior or output.
pub(crate) fn bare(command: &mut Command) -> &mut Command {
    command.env_clear();
    for name in ["PATH", "TMPDIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }

    command
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[allow(
    clippy::zombie_processes,
    reason = "the caller waits for it, or the test panics"
)]
fn spawn(program: &Path, directory: &Path, arguments: &[String]) -> Child {
    let notify = directory.join("notify.sock");
    if let Err(error) = fs::remove_file(&notify) {
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    let notices = UnixDatagram::bind(&notify).unwrap();
    notices
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();

    let log = File::options()
        .create(true)
        .append(true)
        .open(directory.join("log"))
        .unwrap();

    let mut command = Command::new(program);
    bare(&mut command)
        .arg("daemon")
        .arg("--config")
        .arg(directory.join("config.toml"))
        .args(arguments);

    command
        .env("NOTIFY_SOCKET", &notify)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);

    let mut child = command.spawn().unwrap();
    let mut notice = [0; 256];

    loop {
        match notices.recv(&mut notice) {
            Ok(length) if notice[..length].starts_with(b"READY=1") => return child,
            Ok(_) => {}
            // A process that was stopped and continued gets this from a socket with a timeout.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
                panic!("the daemon did not become ready: {error}\n{log}")
            }
        }
    }
}
