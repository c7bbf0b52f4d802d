//! `[leases]`: how long and how much may be promised.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::units::{Period, Size};

/// Lengths, quotas and the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeasesConfig {
    /// TTL of a lease that names none.
    pub default_ttl: Period,
    /// Longest TTL that is granted.
    pub max_ttl: Period,
    /// Most bytes that one user may hold at once, over all devices; without it there is no such
    /// bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_bytes: Option<Size>,
    /// Most leases that one user may hold at once.
    pub user_leases: usize,
    /// Callers that may wait for memory at once.
    pub queue: usize,
    /// Longest that a caller may wait for memory.
    pub max_wait: Period,
    /// Folder in which leases survive a restart.
    pub state_directory: PathBuf,
    /// Bounds of single users, by name or number; what is left out of one is as for everybody.
    pub users: BTreeMap<String, UserQuota>,
}

/// What one user may hold at once, where that is not as for everybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserQuota {
    /// Most bytes, over all devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Size>,
    /// Most leases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leases: Option<usize>,
}

impl Default for LeasesConfig {
    fn default() -> Self {
        Self {
            default_ttl: Period::seconds(120),
            max_ttl: Period::seconds(3600),
            user_bytes: None,
            user_leases: 64,
            queue: 32,
            max_wait: Period::seconds(3600),
            state_directory: "/var/lib/hf-mem-probe".into(),
            users: BTreeMap::new(),
        }
    }
}
