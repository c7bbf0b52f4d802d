//! `[log]`: what the daemon tells the journal.

use serde::{Deserialize, Serialize};

/// Filter and format of the log on stderr.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// What is logged, in the words of `RUST_LOG`. A level alone is this program's; of the
    /// libraries in it only warnings are logged, unless they are named.
    pub filter: String,
    /// How a line looks.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            filter: "info".to_owned(),
            format: LogFormat::default(),
        }
    }
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For a person; without a timestamp under systemd, whose journal adds one.
    #[default]
    Text,
    /// One JSON object a line, every field by its name.
    Json,
}
