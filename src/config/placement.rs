//! `[placement]`: which of several placements that fit is recommended.

use serde::{Deserialize, Serialize};

use super::units::Size;

/// Policy and preference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlacementConfig {
    /// Which devices are filled first.
    pub policy: Policy,
    /// Devices to prefer among equally good ones, in this order.
    pub prefer: Vec<String>,
    /// Reserved on every device, in addition to the margin of its reading.
    pub margin: Size,
}

impl Default for PlacementConfig {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            prefer: Vec::new(),
            margin: Size::mib(0),
        }
    }
}

/// Which devices are filled first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The fullest devices on which the model still fits: keeps large gaps free.
    #[default]
    Pack,
    /// The devices with the most free memory: keeps neighbors apart.
    Spread,
}
