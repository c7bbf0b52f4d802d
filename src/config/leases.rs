//! `[leases]`: how long leases last, and how much one user can hold.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::units::{self, Size};

/// TTLs, quotas and the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeasesConfig {
    /// TTL of a lease whose request names none.
    #[serde(with = "units::duration")]
    pub default_ttl: Duration,
    /// The longest TTL that is granted.
    #[serde(with = "units::duration")]
    pub max_ttl: Duration,
    /// The most bytes that one user can hold at once, over all devices. Unlimited without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_bytes: Option<Size>,
    /// The most leases that one user can hold at once.
    pub user_leases: usize,
    /// The most callers that can wait for memory at once.
    pub queue: usize,
    /// The longest time that a caller can wait for memory.
    #[serde(with = "units::duration")]
    pub max_wait: Duration,
    /// The folder in which leases survive a restart.
    pub state_directory: PathBuf,
    /// Quotas of single users, by name or number. A field left out is as for all users.
    pub users: BTreeMap<String, UserQuota>,
}

/// The quota of one user, if it differs from the quota of all users.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserQuota {
    /// The most bytes, over all devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Size>,
    /// The most leases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leases: Option<usize>,
}

impl Default for LeasesConfig {
    fn default() -> Self {
        Self {
            default_ttl: Duration::from_secs(120),
            max_ttl: Duration::from_secs(3600),
            user_bytes: None,
            user_leases: 64,
            queue: 32,
            max_wait: Duration::from_secs(3600),
            state_directory: "/var/lib/hf-mem-probe".into(),
            users: BTreeMap::new(),
        }
    }
}
