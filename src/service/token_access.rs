//! Which callers may use the daemon's Hub token.

use std::collections::HashSet;

use crate::api::peer::{Operators, Peer};
use crate::config::{AccessConfig, Accounts, UnknownAccount};

/// For whom the daemon's own Hub token may be used.
#[derive(Clone, Debug)]
pub(super) struct TokenAccess {
    operators: Operators,
    users: HashSet<u32>,
    groups: HashSet<u32>,
    accounts: Accounts,
}

impl TokenAccess {
    /// What `config` says, with names looked up in `accounts`.
    pub(super) fn new(
        config: &AccessConfig,
        accounts: Accounts,
        operators: Operators,
    ) -> Result<Self, UnknownAccount> {
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
            accounts,
        })
    }

    /// Whether the daemon's token may be used for `peer`: root, the daemon's own user, the users
    /// named in the configuration, and those who are in a named group, as primary group or by
    /// `/etc/group`.
    pub(super) fn may_use_daemon_token(&self, peer: Peer) -> bool {
        self.operators.include(peer.uid)
            || self.users.contains(&peer.uid)
            || self.groups.contains(&peer.gid)
            || self
                .groups
                .iter()
                .any(|gid| self.accounts.is_member(peer.uid, *gid))
    }

    /// The groups of `peer`: its primary one and those that `/etc/group` names it in.
    pub(super) fn groups_of(&self, peer: Peer) -> Vec<u32> {
        let mut groups = self.accounts.groups(peer.uid);
        groups.push(peer.gid);
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemons_token_is_for_root_itself_and_those_named() {
        let accounts = Accounts::parse(
            "ana:x:1000:1000::/:/bin/sh\nben:x:1001:1001::/:/bin/sh\n",
            "ml:x:200:ben\nrender:x:201:\n",
        );
        let config = AccessConfig {
            token_users: vec!["ana".into(), "4000".into()],
            token_groups: vec!["ml".into(), "201".into()],
        };

        let access = TokenAccess::new(&config, accounts.clone(), Operators::with(990)).unwrap();
        let may = |uid, gid| {
            access.may_use_daemon_token(Peer {
                uid,
                gid,
                pid: None,
            })
        };

        assert!(may(0, 0) && may(990, 990), "root and itself");
        assert!(may(1000, 1000) && may(4000, 4000), "named users");
        assert!(may(1001, 1001), "a member by /etc/group");
        assert!(may(1500, 201), "by primary group");
        assert!(!may(1500, 1500), "anyone else");

        let nobody = AccessConfig {
            token_users: vec!["zoe".into()],
            ..AccessConfig::default()
        };

        TokenAccess::new(&nobody, accounts, Operators::with(990)).unwrap_err();
    }
}
