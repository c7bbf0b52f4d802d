//! Runs the binary in a clean environment: no Hub, no home, and only a named daemon.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// The model in the repository.
pub(crate) const MODEL: &str = "tests/fixtures/Qwen3-8B";

/// Returns a command of the binary in the repository's root, in a clean environment.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hf-mem-probe"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env_clear();

    // No Hub listens at this address, so requests to it fail at once.
    command
        .env("HF_ENDPOINT", "http://127.0.0.1:9")
        .env("HF_HUB_OFFLINE", "1")
        .env("NO_COLOR", "1");
    command.env("HF_MEM_PROBE_SOCKET", "/nonexistent/api.sock");

    command
}

/// The result of a command line.
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Outcome {
    /// Parses standard output as exactly one JSON object.
    pub(crate) fn json(&self) -> Value {
        let value: Value = serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.out));
        assert!(value.is_object(), "{value}");
        value
    }
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Runs `line`, which is split at spaces.
pub(crate) fn run(line: &str) -> Outcome {
    program()
        .args(line.split_whitespace())
        .output()
        .unwrap()
        .into()
}

/// Runs `line` with a daemon at `socket`.
pub(crate) fn run_with_daemon(socket: &Path, line: &str) -> Outcome {
    program()
        .env("HF_MEM_PROBE_SOCKET", socket)
        .args(line.split_whitespace())
        .output()
        .unwrap()
        .into()
}
