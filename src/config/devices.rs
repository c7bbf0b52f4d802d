//! `[devices]`: which GPUs, and how often they are read.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::units::{Period, Size};

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
    pub sample_interval: Period,
    /// A reading older than this is called stale; no lease is granted on it.
    pub max_age: Period,
    /// Longest wait for one reading before the driver counts as hanging.
    pub read_deadline: Period,
    /// The driver is let go of when nobody has asked for this long; "0s" keeps it open.
    pub idle_release: Period,
    /// Kept back on a device with a display attached.
    pub display_margin: Size,
}

impl Default for DevicesConfig {
    fn default() -> Self {
        Self {
            nvml_library: "libnvidia-ml.so.1".into(),
            declared: None,
            sample_interval: Period::seconds(1),
            max_age: Period::seconds(5),
            read_deadline: Period::seconds(10),
            idle_release: Period::seconds(0),
            display_margin: Size::mib(512),
        }
    }
}
