//! The daemon's configuration: one TOML file, one struct for each section, each with its defaults.
//!
//! [`load`] reads a file, for `daemon` and `check-config` alike. [`Config::parse`] turns the text
//! into values and rejects unknown keys and values that cannot work. [`Config::warnings`] lists
//! settings that are valid but unwise. `config.example.toml` documents every key and its default.

mod access;
mod changes;
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
mod validate;
mod warnings;

use serde::{Deserialize, Serialize};

pub use access::AccessConfig;
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
pub use units::{Size, SocketMode};
pub use warnings::Warning;

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The socket, and the limits on one caller.
    pub socket: SocketConfig,
    /// Which GPUs the daemon serves, and how often it reads them.
    pub devices: DevicesConfig,
    /// The source of models' metadata.
    pub hub: HubConfig,
    /// Which users can use the daemon's Hub token.
    pub access: AccessConfig,
    /// How long leases last, and how much one user can hold.
    pub leases: LeasesConfig,
    /// How the daemon records who held memory, and when.
    pub history: HistoryConfig,
    /// Which of several placements is recommended.
    pub placement: PlacementConfig,
    /// The default engine, and corrections to engine profiles.
    pub engines: EnginesConfig,
    /// What the daemon logs.
    pub log: LogConfig,
}
