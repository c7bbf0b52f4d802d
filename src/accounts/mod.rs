//! Users and groups of this host, looked up through the name service switch (nsswitch.conf(5)).
//!
//! The switch finds local accounts and accounts of a directory service (LDAP, SSSD). A lookup can
//! block on the network, so each runs on a thread of its own with a deadline. A lookup that fails
//! or times out leaves the account unknown, and an unknown account gets no permission.

mod lookup;
mod memberships;
mod name_service;
mod user_names;

use std::sync::Arc;
use std::time::Duration;

use hf_mem_core::report::problem::Reason;

pub(crate) use memberships::Memberships;
pub(crate) use user_names::UserNames;

use lookup::{Purpose, look_up};
use name_service::{NameService, SystemNames};

/// The longest wait for one lookup at start, and when the configuration is read again. Well below
/// the unit's `TimeoutStartSec=`.
const START_DEADLINE: Duration = Duration::from_secs(5);

/// The accounts of this host.
#[derive(Clone, Debug)]
pub struct Accounts {
    names: Arc<dyn NameService>,
}

/// A kind of account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountKind {
    /// A user.
    User,
    /// A group.
    Group,
}

impl AccountKind {
    const fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
        }
    }

    /// The database of getent(1) that lists such accounts.
    const fn database(self) -> &'static str {
        match self {
            Self::User => "passwd",
            Self::Group => "group",
        }
    }
}

/// Why a name has no number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// The name service has no such account.
    #[error(
        "there is no {} '{name}' on this host (`getent {} {name}`)",
        kind.word(), kind.database()
    )]
    NotFound {
        /// The kind of account.
        kind: AccountKind,
        /// The name.
        name: String,
    },
    /// The name service did not answer.
    #[error(
        "cannot look up the {} '{name}': {why}; use its number instead of its name",
        kind.word()
    )]
    LookupFailed {
        /// The kind of account.
        kind: AccountKind,
        /// The name.
        name: String,
        /// Why there is no answer.
        why: String,
    },
}

impl AccountError {
    /// Returns the reason of a problem that this error causes. A name service that does not answer
    /// is no error of the configuration, and systemd starts the daemon again.
    pub(crate) const fn reason(&self) -> Reason {
        match self {
            Self::NotFound { .. } => Reason::BadConfiguration,
            Self::LookupFailed { .. } => Reason::Internal,
        }
    }
}

impl Default for Accounts {
    fn default() -> Self {
        Self::of_this_host()
    }
}

impl Accounts {
    /// The accounts that the name service switch knows.
    pub fn of_this_host() -> Self {
        Self {
            names: Arc::new(SystemNames),
        }
    }

    /// The accounts of the two files' texts.
    #[cfg(test)]
    pub(crate) fn parse(passwd: &str, group: &str) -> Self {
        Self {
            names: Arc::new(name_service::ListedNames::new(passwd, group)),
        }
    }

    /// Returns the uid of the user `name`, which can also be a number.
    ///
    /// It waits for the name service. Never call it on the runtime of a daemon that answers.
    pub fn uid(&self, name: &str) -> Result<u32, AccountError> {
        self.number(AccountKind::User, name)
    }

    /// Returns the gid of the group `name`, which can also be a number. It waits like
    /// [`Accounts::uid`].
    pub fn gid(&self, name: &str) -> Result<u32, AccountError> {
        self.number(AccountKind::Group, name)
    }

    fn number(&self, kind: AccountKind, name: &str) -> Result<u32, AccountError> {
        if let Ok(number) = name.parse() {
            return Ok(number);
        }

        let (names, wanted) = (Arc::clone(&self.names), name.to_owned());
        let found = look_up(Purpose::Configuration, START_DEADLINE, move || match kind {
            AccountKind::User => names.uid(&wanted),
            AccountKind::Group => names.gid(&wanted),
        });

        match found {
            Ok(Some(number)) => Ok(number),
            Ok(None) => Err(AccountError::NotFound {
                kind,
                name: name.to_owned(),
            }),
            Err(error) => Err(AccountError::LookupFailed {
                kind,
                name: name.to_owned(),
                why: error.to_string(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_resolve_by_name_or_number() {
        let accounts = Accounts::parse(
            "root:x:0:0:root:/root:/bin/bash\nana:x:1000:1000::/home/ana:/bin/sh\nbroken\n",
            "root:x:0:\nhf-mem-probe:x:300:\n",
        );

        assert_eq!(accounts.uid("ana"), Ok(1000));
        assert_eq!(accounts.uid("4242"), Ok(4242));
        assert_eq!(accounts.gid("hf-mem-probe"), Ok(300));
        assert_eq!(
            accounts.uid("zoe").unwrap_err().to_string(),
            "there is no user 'zoe' on this host (`getent passwd zoe`)"
        );
    }

    #[test]
    fn host_accounts_include_root() {
        let accounts = Accounts::of_this_host();
        assert_eq!(accounts.uid("root"), Ok(0));
        assert_eq!(accounts.gid("root"), Ok(0));
        let missing = accounts.gid("no such group").unwrap_err();
        assert!(
            matches!(missing, AccountError::NotFound { .. }),
            "{missing}"
        );
    }

    #[test]
    fn failed_lookup_names_account_and_cause() {
        let accounts = Accounts {
            names: Arc::new(name_service::FailingNames),
        };

        assert_eq!(
            accounts.gid("ml").unwrap_err().to_string(),
            "cannot look up the group 'ml': the name service failed: EIO: I/O error; \
             use its number instead of its name"
        );
    }
}
