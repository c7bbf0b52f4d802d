//! `[placement]`: which of several ways that fit is recommended.

use serde::{Deserialize, Serialize};

use super::units::Size;

/// Policy and preference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlacementConfig {
    /// Which devices are filled first.
    pub policy: Policy,
    /// Devices that are preferred among equally good ones, first one first.
    pub prefer: Vec<String>,
    /// Kept back on every device, besides what its reading keeps back.
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
    /// The ones that are fullest and still hold it: keeps large gaps open.
    #[default]
    Pack,
    /// The ones with the most room: keeps neighbours apart.
    Spread,
}
