//! `[history]`: what the daemon records of who held memory when.

use serde::{Deserialize, Serialize};

use super::units::{Period, Size};

/// How often devices are read for the record alone, and how much of it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HistoryConfig {
    /// How often devices are read where no request reads them; zero: never.
    pub interval: Period,
    /// How long lines are kept at least, as far as `max_bytes` allows.
    pub keep: Period,
    /// The most bytes of the journal's files together.
    pub max_bytes: Size,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self {
            interval: Period::seconds(30),
            keep: Period::seconds(24 * 3600),
            max_bytes: Size::mib(8),
        }
    }
}
