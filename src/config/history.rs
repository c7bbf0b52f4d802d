//! `[history]`: how the daemon records who held memory, and when.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::units::{self, Size};

/// How often the daemon reads devices for the journal alone, and how much it keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HistoryConfig {
    /// How often the daemon reads the devices while no request does; zero means never.
    #[serde(with = "units::duration")]
    pub interval: Duration,
    /// The least time for which lines are kept, if `max_bytes` allows it.
    #[serde(with = "units::duration")]
    pub keep: Duration,
    /// The most bytes of the journal's files together.
    pub max_bytes: Size,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(30),
            keep: Duration::from_secs(24 * 3600),
            max_bytes: Size::mib(8),
        }
    }
}
