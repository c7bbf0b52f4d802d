//! `[access]`: which users can use the daemon's own Hub token.

use serde::{Deserialize, Serialize};

/// The users for whom the daemon uses its Hub token, in addition to root and the daemon's own user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessConfig {
    /// Users by name or number.
    pub token_users: Vec<String>,
    /// Groups by name or number.
    pub token_groups: Vec<String>,
}
