//! A daemon process on its own socket, which ends with its test.

use std::fs;
use std::io::Read as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::run::program;

/// A daemon process that has reported READY.
pub(crate) struct Daemon {
    pub(crate) directory: TempDir,
    pub(crate) child: Child,
}

impl Daemon {
    /// Starts the daemon with `arguments`, and waits for READY.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), arguments)
    }

    /// Starts the daemon in an existing directory.
    ///
    /// Its folder `host` replaces the host's files. Its file `more.toml` continues the
    /// configuration, in the section of the Hub.
    pub(crate) fn start_in(directory: TempDir, arguments: &[&str]) -> Self {
        Self::start_sampling(directory, "10ms", arguments)
    }

    /// Starts the daemon with a sampling interval.
    pub(crate) fn start_sampling(directory: TempDir, interval: &str, arguments: &[&str]) -> Self {
        let (mut child, notices) = spawn_sampling(directory.path(), interval, arguments);
        let mut notice = [0; 256];
        let ready = loop {
            match notices.recv(&mut notice) {
                Ok(length) if notice[..length].starts_with(b"READY=1") => break true,
                Ok(_) => {}
                // A stopped and continued process gets this error from a socket with a time limit.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break false,
            }
        };

        if !ready {
            child.kill().unwrap();
            child.wait().unwrap();
            let mut output = String::new();

            child
                .stderr
                .take()
                .unwrap()
                .read_to_string(&mut output)
                .unwrap();

            panic!("the daemon did not become ready: {output}");
        }

        Self { directory, child }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("api.sock")
    }

    /// Stops the daemon and returns its whole log.
    pub(crate) fn log(mut self) -> String {
        let mut log = self.child.stderr.take().unwrap();
        let reader = std::thread::spawn(move || {
            let mut output = String::new();
            log.read_to_string(&mut output).map(|_| output)
        });
        assert_eq!(self.stop(), Some(0));
        reader.join().unwrap().unwrap()
    }

    /// Sends SIGTERM and returns the exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }
}

pub(crate) fn spawn(directory: &Path, arguments: &[&str]) -> (Child, UnixDatagram) {
    spawn_sampling(directory, "10ms", arguments)
}

fn spawn_sampling(directory: &Path, interval: &str, arguments: &[&str]) -> (Child, UnixDatagram) {
    let notify = directory.join("notify.sock");
    let _ = fs::remove_file(&notify);
    let notices = UnixDatagram::bind(&notify).unwrap();
    notices
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let config = directory.join("config.toml");

    let text = format!(
        "[socket]\npath = \"{0}/api.sock\"\ngroup = \"{1}\"\n[devices]\nsample_interval = \"{2}\"\nmax_age = \"1h\"\n[leases]\n\
         state_directory = \"{0}/state\"\n[hub]\ncache_directory = \"{0}/cache\"\n",
        directory.display(),
        rustix::process::getgid().as_raw(),
        interval,
    );

    let more = fs::read_to_string(directory.join("more.toml")).unwrap_or_default();
    fs::write(&config, text + &more).unwrap();

    for folder in ["cache", "state"] {
        fs::create_dir_all(directory.join(folder)).unwrap();
    }

    let mut command = program();
    command
        .arg("daemon")
        .arg("--config")
        .arg(&config)
        .args(arguments)
        .env("NOTIFY_SOCKET", &notify);

    if more.starts_with("endpoint") {
        command.env_remove("HF_HUB_OFFLINE");
    }

    if directory.join("host").exists() {
        command.env("HF_MEM_PROBE_HOST_ROOT", directory.join("host"));
    }

    (command.stderr(Stdio::piped()).spawn().unwrap(), notices)
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // After `stop` the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
