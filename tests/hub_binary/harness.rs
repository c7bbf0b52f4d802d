//! A user with a separate home who runs the binary, and a daemon of that user.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::fake_hub::FakeHub;

/// The result of a command line.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Outcome {
    /// Returns standard output, which must be exactly one JSON object.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns the same without the time of the device reading.
    pub(crate) fn timeless(&self) -> String {
        let mut answer = self.json();
        if answer["sampled_at"].is_string() {
            answer["sampled_at"] = Value::Null;
        }
        answer.to_string()
    }
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        let to_text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self {
            code: output.status.code().unwrap_or(-1),
            out: to_text(output.stdout),
            err: to_text(output.stderr),
        }
    }
}

/// A user with a home and environment variables.
#[derive(Debug)]
pub(crate) struct User {
    pub(crate) home: TempDir,
    variables: Vec<(String, String)>,
}

impl User {
    /// Creates a user whose Hub is at `endpoint`.
    pub(crate) fn of(endpoint: &str) -> Self {
        let home = tempfile::tempdir().expect("a home");
        let user = Self {
            variables: Vec::new(),
            home,
        };

        user.with("HF_ENDPOINT", endpoint)
            .with("HF_MEM_PROBE_HUB_BUDGET", "20s")
    }

    pub(crate) fn with(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.into(), value.as_ref().into()));
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Returns the binary's command, without the machine's environment.
    pub(crate) fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hf-mem-probe"));
        command
            .current_dir(self.home.path())
            .env_clear()
            .env("HOME", self.home.path())
            .env("NO_COLOR", "1");

        command.env("HF_MEM_PROBE_SOCKET", "/nonexistent/api.sock");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));

        command
    }

    /// Runs `line`, split at spaces, while this test's runtime serves the Hubs.
    pub(crate) async fn run(&self, line: &str) -> Outcome {
        let mut command = self.program();
        command.args(line.split_whitespace());
        finish(command).await
    }

    /// Runs `line` against the daemon at `socket`, as another user if `uid` is set.
    pub(crate) async fn ask(&self, socket: &Path, uid: Option<u32>, line: &str) -> Outcome {
        let mut command = self.program();
        command
            .env("HF_MEM_PROBE_SOCKET", socket)
            .args(line.split_whitespace());

        if let Some(uid) = uid {
            command.uid(uid).gid(uid).current_dir("/");
        }

        finish(command).await
    }
}

async fn finish(mut command: Command) -> Outcome {
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .expect("joined");
    output.expect("the binary runs").into()
}

/// A daemon that is ready.
#[derive(Debug)]
pub(crate) struct Daemon {
    pub(crate) folder: TempDir,
    child: Child,
}

impl Daemon {
    /// Starts a daemon for `user`. `hub` extends its `[hub]` table, `more` follows the table, and
    /// `variables` are its own.
    pub(crate) async fn start(
        user: &User,
        hub: &str,
        more: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path_of = |name: &str| folder.path().join(name);
        for name in ["cache", "state"] {
            fs::create_dir(path_of(name)).expect("made");
        }

        let text = format!(
            "[socket]\npath = \"{0}/api.sock\"\ngroup = \"{1}\"\nmode = \"0666\"\n[leases]\nstate_directory = \"{0}/state\"\n[hub]\n\
             cache_directory = \"{0}/cache\"\nretry_budget = \"5s\"\n{hub}\n{more}",
            folder.path().display(),
            rustix::process::getgid().as_raw(),
        );
        fs::write(path_of("config.toml"), text).expect("written");
        let notices = UnixDatagram::bind(path_of("notify.sock")).expect("bound");
        notices
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("set");
        let log = fs::File::create(path_of("log")).expect("a log");
        let mut command = user.program();
        command
            .args(["daemon", "--gpus", "8xH100-80GB", "--config"])
            .arg(path_of("config.toml"));

        command
            .env("NOTIFY_SOCKET", path_of("notify.sock"))
            .env("RUST_LOG", "trace")
            .envs(variables.iter().copied());
        let child = command
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .expect("started");

        let daemon = Self { folder, child };
        let ready = tokio::task::spawn_blocking(move || {
            let mut notice = [0; 256];
            loop {
                match notices.recv(&mut notice) {
                    Ok(length) if notice[..length].starts_with(b"READY=1") => return true,
                    Ok(_) => {}
                    // A stopped and continued process receives this from a socket with a timeout.
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(_) => return false,
                }
            }
        });

        assert!(ready.await.expect("joined"), "not ready: {}", daemon.log());
        daemon
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("api.sock")
    }

    /// Sends SIGTERM. Returns how long the daemon took to exit, and its exit code.
    pub(crate) async fn stop(&mut self) -> (Duration, Option<i32>) {
        let started = std::time::Instant::now();
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("told");
        let limit = Duration::from_secs(60);
        while started.elapsed() < limit {
            if let Some(status) = self.child.try_wait().expect("waited") {
                return (started.elapsed(), status.code());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }

        (started.elapsed(), None)
    }

    /// Returns its log so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `work` and counts the requests that `hub` received meanwhile.
pub(crate) async fn requests_of<T>(hub: &FakeHub, work: impl Future<Output = T>) -> (T, usize) {
    let before = hub.requests().len();
    let done = work.await;
    (done, hub.requests().len() - before)
}
