//! A host with a daemon, and commands that `run` starts on it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use hf_mem_probe::api::client::{Client, block_on};
use hf_mem_probe::api::lease::LeasesAnswer;
use tempfile::TempDir;

use super::leases_daemon::{Daemon, bare, model};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_hf-mem-probe");

/// A daemon with declared cards (by default one of 24 GiB) and a model.
///
/// The model's context of 256 Ki tokens takes 16 GiB.
pub(crate) struct Host {
    pub(crate) directory: TempDir,
    pub(crate) daemon: Daemon,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self::on("24GiB")
    }

    pub(crate) fn on(gpus: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        model::write(&directory.path().join("model"));
        let daemon = Daemon::start(Path::new(PROGRAM), directory.path(), &["--gpus", gpus]);
        Self { directory, daemon }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn run(&self, options: &[&str], command: &[&str]) -> Command {
        self.run_under(&[PROGRAM], options, command)
    }

    /// Returns a `run` with a command line that starts this program.
    pub(crate) fn run_under(&self, line: &[&str], options: &[&str], command: &[&str]) -> Command {
        let mut run = Command::new(line[0]);
        run.args(&line[1..])
            .arg("run")
            .arg("--model")
            .arg(self.path("model"))
            .args(["--engine", "reference", "--context", "262144"]);

        run.arg("--socket")
            .arg(self.daemon.socket())
            .args(options)
            .arg("--")
            .args(command);

        bare(&mut run)
            .env("HOME", self.directory.path())
            .stdin(Stdio::null());

        run
    }

    /// Starts a command that prints "on", its devices and its lease.
    ///
    /// It ends when its `gate` is written to.
    pub(crate) fn start(&self, options: &[&str], gate: &str) -> Running {
        self.start_under(&[PROGRAM], options, gate)
    }

    pub(crate) fn start_under(&self, line: &[&str], options: &[&str], gate: &str) -> Running {
        let path = self.path(gate);
        assert!(
            Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );

        let script = format!(
            "echo \"on $CUDA_VISIBLE_DEVICES $HF_MEM_PROBE_LEASE\"; read x < '{}'; exit 5",
            path.display()
        );
        let mut run = self.run_under(line, options, &["sh", "-c", &script]);
        let mut child = run
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();

        let out = BufReader::new(child.stdout.take().unwrap());
        Running {
            child,
            out,
            gate: path,
        }
    }

    pub(crate) fn leases(&self) -> LeasesAnswer {
        block_on(Client::new(self.daemon.socket()).leases())
            .unwrap()
            .unwrap()
    }

    /// Lists the leases until the condition is true.
    pub(crate) fn until(
        &self,
        what: &str,
        is_done: impl Fn(&LeasesAnswer) -> bool,
    ) -> LeasesAnswer {
        let began = Instant::now();
        loop {
            let leases = self.leases();
            if is_done(&leases) {
                return leases;
            }

            assert!(
                began.elapsed() < Duration::from_secs(60),
                "it never came to: {what}: {leases:?}"
            );
            std::thread::yield_now();
        }
    }
}

pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) out: BufReader<ChildStdout>,
    pub(crate) gate: PathBuf,
}

impl Running {
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Ends the command, and returns its exit code and the remarks on standard error.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        std::fs::write(&self.gate, "\n").unwrap();
        self.finish()
    }

    pub(crate) fn finish(&mut self) -> (Option<i32>, String) {
        let mut remarks = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut remarks)
            .unwrap();

        (self.child.wait().unwrap().code(), remarks)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After a failed test, the command ends with its supervisor. Else it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
