//! The daemon's configuration: one TOML file, one struct for each section, each next to its
//! defaults.
//!
//! Reading it goes in two steps, the same for `daemon` and `check-config`: [`Config::parse`] turns
//! text into values and refuses what it does not know or what cannot work, [`Config::warnings`]
//! says what is legal but unwise. `config.example.toml` holds every key with its default.

mod access;
mod accounts;
mod changes;
mod check;
mod devices;
mod engines;
mod error;
mod history;
mod hub;
mod leases;
mod load;
mod log;
mod placement;
mod socket;
mod units;

use serde::{Deserialize, Serialize};

pub use access::AccessConfig;
pub use accounts::{Accounts, UnknownAccount};
pub use check::Warning;
pub use devices::DevicesConfig;
pub use engines::EnginesConfig;
pub use error::ConfigError;
pub use history::HistoryConfig;
pub use hub::HubConfig;
pub use leases::{LeasesConfig, UserQuota};
pub use load::load;
pub use log::{LogConfig, LogFormat};
pub use placement::{PlacementConfig, Policy};
pub use socket::{DEFAULT_PATH, SocketConfig};
pub use units::{Period, Size, SocketMode};

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the daemon listens.
    pub socket: SocketConfig,
    /// Which GPUs, and how often they are read.
    pub devices: DevicesConfig,
    /// Where models' metadata comes from.
    pub hub: HubConfig,
    /// For whom the daemon's Hub token is used.
    pub access: AccessConfig,
    /// How long and how much may be promised.
    pub leases: LeasesConfig,
    /// What is recorded of who held memory when.
    pub history: HistoryConfig,
    /// Which of several ways is recommended.
    pub placement: PlacementConfig,
    /// Which engine is meant, and corrections to their profiles.
    pub engines: EnginesConfig,
    /// What the daemon logs.
    pub log: LogConfig,
}
