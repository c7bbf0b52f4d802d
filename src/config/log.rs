//! `[log]`: what the daemon writes to its log.

use serde::{Deserialize, Serialize};

/// Filter and format of the log on stderr.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// The filter, in the syntax of `RUST_LOG`. A level alone applies to this program. Its
    /// libraries then log warnings only, unless the filter names them.
    pub filter: String,
    /// The format of a line.
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

/// The format of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For a person; without a timestamp under systemd, whose journal adds one.
    #[default]
    Text,
    /// A JSON object a line, with every field by its name.
    Json,
}
