//! Which callers may use the daemon's Hub token.

use std::collections::HashSet;

use crate::accounts::{AccountError, Accounts, Memberships};
use crate::api::peer::{Operators, Peer};
use crate::config::AccessConfig;

/// The users and groups that may use the daemon's Hub token.
#[derive(Debug)]
pub(super) struct TokenAccess {
    operators: Operators,
    users: HashSet<u32>,
    groups: HashSet<u32>,
    memberships: Memberships,
}

impl TokenAccess {
    /// Resolves the names in `config` with `accounts`.
    pub(super) fn new(
        config: &AccessConfig,
        accounts: Accounts,
        operators: Operators,
    ) -> Result<Self, AccountError> {
        let users = config
            .token_users
            .iter()
            .map(|name| accounts.uid(name))
            .collect::<Result<_, _>>()?;

        let groups = config
            .token_groups
            .iter()
            .map(|name| accounts.gid(name))
            .collect::<Result<_, _>>()?;

        Ok(Self {
            operators,
            users,
            groups,
            memberships: Memberships::new(accounts),
        })
    }

    /// Returns whether `peer` may use the daemon's token.
    ///
    /// These may: root, the daemon's own user, the configured users, and members of the configured
    /// groups. A group counts if it is the process's primary group or the name service lists it for
    /// the user.
    pub(super) async fn may_use_daemon_token(&self, peer: Peer) -> bool {
        if self.operators.include(peer.uid)
            || self.users.contains(&peer.uid)
            || self.groups.contains(&peer.gid)
        {
            return true;
        }

        if self.groups.is_empty() {
            return false;
        }

        let groups = self.memberships.groups(peer.uid).await;
        groups.is_some_and(|groups| groups.iter().any(|gid| self.groups.contains(gid)))
    }

    /// Returns the groups of `peer`: its primary one and those that the name service lists for the
    /// user. `None` while they are unknown.
    pub(super) async fn groups_of(&self, peer: Peer) -> Option<Vec<u32>> {
        let mut groups = self.memberships.groups(peer.uid).await?.to_vec();
        groups.push(peer.gid);
        Some(groups)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn token_is_limited_to_configured_accounts() {
        let accounts = Accounts::parse(
            "ana:x:1000:1000::/:/bin/sh\nben:x:1001:1001::/:/bin/sh\n",
            "ml:x:200:ben\nrender:x:201:\n",
        );
        let config = AccessConfig {
            token_users: vec!["ana".into(), "4000".into()],
            token_groups: vec!["ml".into(), "201".into()],
        };

        let access = TokenAccess::new(&config, accounts.clone(), Operators::with(990)).unwrap();
        for (uid, gid, expected, who) in [
            (0, 0, true, "root"),
            (990, 990, true, "the daemon's own user"),
            (1000, 1000, true, "a user by name"),
            (4000, 4000, true, "a user by number"),
            (1001, 1001, true, "a member of a group"),
            (1500, 201, true, "by primary group"),
            (1500, 1500, false, "any other user"),
        ] {
            let peer = Peer {
                uid,
                gid,
                pid: None,
            };
            assert_eq!(access.may_use_daemon_token(peer).await, expected, "{who}");
        }

        let unknown = AccessConfig {
            token_users: vec!["zoe".into()],
            ..AccessConfig::default()
        };

        TokenAccess::new(&unknown, accounts, Operators::with(990)).unwrap_err();
    }
}
