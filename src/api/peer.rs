//! Who is asking: taken from the kernel at accept, judged for each request.

use std::fmt;

use serde::Serialize;

/// The process at the other end of a connection, as the kernel knows it (`SO_PEERCRED`: at the time
/// it connected).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Peer {
    /// Its user.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// Its process id, where the kernel tells (0 is what it says for a process outside our PID
    /// namespace).
    pub pid: Option<u32>,
}

impl Peer {
    /// From tokio's credentials.
    pub fn new(credentials: &tokio::net::unix::UCred) -> Self {
        let pid = credentials
            .pid()
            .and_then(|pid| u32::try_from(pid).ok())
            .filter(|pid| *pid != 0);

        Self {
            uid: credentials.uid(),
            gid: credentials.gid(),
            pid,
        }
    }
}

/// One request's asker.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The process that connected.
    pub peer: Peer,
    /// A Hub token that it brought along (`Authorization: Bearer ...`).
    pub token: Option<HubToken>,
    /// The id that answers and log lines carry.
    pub request_id: String,
}

/// A caller's Hub token. It cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct HubToken(String);

/// Longest token that is taken; those of the Hub are below 50 bytes, JWTs of others below 4 KiB.
const TOKEN_BYTES: usize = 4096;

impl HubToken {
    /// From the value of an `Authorization` header.
    pub fn from_authorization(value: &str) -> Option<Self> {
        let (scheme, token) = value.split_once(' ')?;
        let token = token.trim();
        let sound = !token.is_empty()
            && token.len() <= TOKEN_BYTES
            && token.bytes().all(|byte| byte.is_ascii_graphic());
        (scheme.eq_ignore_ascii_case("bearer") && sound).then(|| Self(token.to_owned()))
    }

    /// A token by its text.
    pub fn new(token: impl Into<String>) -> Self {
        Self(token.into())
    }

    /// The secret itself, for the one header that it belongs in.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for HubToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HubToken(***)")
    }
}

/// Root and the daemon's own user: whoever operates the daemon is let through when others hold all
/// there is, and may do what concerns everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operators {
    own_uid: u32,
}

impl Operators {
    /// Root and the user of this process.
    pub fn of_this_process() -> Self {
        Self {
            own_uid: rustix::process::geteuid().as_raw(),
        }
    }

    /// Root and `own_uid`, which a test chooses.
    #[cfg(test)]
    pub(crate) fn with(own_uid: u32) -> Self {
        Self { own_uid }
    }

    /// Whether `uid` is one of them.
    pub fn include(self, uid: u32) -> bool {
        uid == 0 || uid == self.own_uid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_but_never_shown() {
        let token = HubToken::from_authorization("Bearer hf_secret").unwrap();
        assert_eq!(token.reveal(), "hf_secret");

        let caller = Caller {
            peer: Peer {
                uid: 0,
                gid: 0,
                pid: None,
            },
            token: Some(token),
            request_id: String::new(),
        };

        assert!(!format!("{caller:?}").contains("secret"));
        for bad in [
            "hf_secret",
            "Basic abc",
            "Bearer ",
            "Bearer a b",
            "Bearer \u{e9}",
        ] {
            assert_eq!(HubToken::from_authorization(bad), None, "{bad}");
        }
    }
}
