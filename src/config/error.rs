//! What is wrong with a configuration, and where.

use std::io;
use std::path::PathBuf;

use hf_mem_core::report::problem::{Problem, Reason};

/// Why a configuration is refused. All of them end the process with 78.
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
        /// The most that is read.
        cap_bytes: u64,
    },
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("{}:{line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, naming the key.
        message: String,
    },
    /// A value that cannot work.
    #[error("{}{}: {key}: {why}", path.display(), line.map_or_else(String::new, |line| format!(":{line}")))]
    Impossible {
        /// The file.
        path: PathBuf,
        /// The line, from 1, where the file sets the key.
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
            "config.example.toml holds every key with its default (the packages put it in \
                   /usr/share/doc/hf-mem-probe); `hf-mem-probe check-config FILE` tries a file",
        )
    }
}
