//! Errors of a configuration, with the file and the line.

use std::io;
use std::path::PathBuf;

use hf_mem_core::report::problem::{Problem, Reason};

/// Why a configuration is rejected. Each of these ends the process with exit code 78.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is larger than any configuration.
    #[error("{} is larger than {cap_bytes} bytes: not a configuration of this program", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The largest file that is read.
        cap_bytes: u64,
    },
    /// Invalid TOML, an unknown key, or a value of the wrong type.
    #[error("{}:{line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The error, with the key.
        message: String,
    },
    /// A value that cannot work.
    #[error("{}{}: {key}: {why}", path.display(), line.map_or_else(String::new, |line| format!(":{line}")))]
    InvalidValue {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1, that sets the key. `None` if the file does not set it.
        line: Option<usize>,
        /// The key with its section: `socket.connections`.
        key: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

impl From<ConfigError> for Problem {
    fn from(error: ConfigError) -> Self {
        Self::new(Reason::BadConfiguration, error.to_string()).hint(
            "see config.example.toml for every key and its default (packages install it in \
             /usr/share/doc/hf-mem-probe); check a file with `hf-mem-probe check-config FILE`",
        )
    }
}
