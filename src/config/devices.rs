//! `[devices]`: which GPUs the daemon serves, and how often it reads them.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::units::{self, Size};

/// The devices and the sampler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DevicesConfig {
    /// Path or soname of the driver's library.
    pub nvml_library: PathBuf,
    /// Declared devices instead of this host's: `8xH100-80GB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub declared: Option<String>,
    /// Time between two readings.
    #[serde(with = "units::duration")]
    pub sample_interval: Duration,
    /// An older reading is stale, and the daemon grants no lease on it.
    #[serde(with = "units::duration")]
    pub max_age: Duration,
    /// The longest wait for one reading before the driver counts as hung.
    #[serde(with = "units::duration")]
    pub read_deadline: Duration,
    /// The daemon releases the driver after this time without requests; "0s" keeps it open.
    #[serde(with = "units::duration")]
    pub idle_release: Duration,
    /// Reserved on a device with a display attached.
    pub display_margin: Size,
}

impl Default for DevicesConfig {
    fn default() -> Self {
        Self {
            nvml_library: "libnvidia-ml.so.1".into(),
            declared: None,
            sample_interval: Duration::from_secs(1),
            max_age: Duration::from_secs(5),
            read_deadline: Duration::from_secs(10),
            idle_release: Duration::from_secs(300),
            display_margin: Size::mib(512),
        }
    }
}
