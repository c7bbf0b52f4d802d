//! `[access]`: for whom the daemon's own Hub token is used.

use serde::{Deserialize, Serialize};

/// Who may have the daemon's Hub token used for them, besides root and the daemon's own user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessConfig {
    /// Users by name or number.
    pub token_users: Vec<String>,
    /// Groups by name or number.
    pub token_groups: Vec<String>,
}
