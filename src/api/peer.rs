//! The caller of a request: its process, as the kernel reports it, and its Hub token.

use std::fmt;

use serde::Serialize;

/// The process at the other end of a connection, as it was when it connected (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Peer {
    /// Its user.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// Its process id; `None` for a process outside this PID namespace: the kernel then reports
    /// 0.
    pub pid: Option<u32>,
}

impl Peer {
    /// Converts tokio's credentials.
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

/// The caller of one request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The process that connected.
    pub peer: Peer,
    /// The Hub token that it sent (`Authorization: Bearer ...`).
    pub token: Option<HubToken>,
    /// The id of the request, in its response and its log lines.
    pub request_id: String,
}

/// A caller's Hub token. It has no printed form.
#[derive(Clone, PartialEq, Eq)]
pub struct HubToken(String);

/// The longest accepted token. Tokens of the Hub are below 50 bytes, JWTs of other services below
/// 4 KiB.
const MAX_TOKEN_BYTES: usize = 4096;

impl HubToken {
    /// Parses the value of an `Authorization` header.
    pub fn from_authorization(value: &str) -> Option<Self> {
        let (scheme, token) = value.split_once(' ')?;
        let token = token.trim();
        let is_valid = !token.is_empty()
            && token.len() <= MAX_TOKEN_BYTES
            && token.bytes().all(|byte| byte.is_ascii_graphic());
        (scheme.eq_ignore_ascii_case("bearer") && is_valid).then(|| Self(token.to_owned()))
    }

    /// Creates a token from its text.
    pub fn new(token: impl Into<String>) -> Self {
        Self(token.into())
    }

    /// Returns the secret itself. Use it only for the `Authorization` header.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for HubToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HubToken(***)")
    }
}

/// The users who operate the daemon: root and the daemon's own user. They have a reserve of every
/// limited resource, and can use operations that affect all users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operators {
    own_uid: u32,
}

impl Operators {
    /// Returns root and the user of this process.
    pub fn of_this_process() -> Self {
        Self {
            own_uid: rustix::process::geteuid().as_raw(),
        }
    }

    /// Returns root and `own_uid`, for tests.
    #[cfg(test)]
    pub(crate) fn with(own_uid: u32) -> Self {
        Self { own_uid }
    }

    /// Returns whether `uid` is an operator.
    pub fn include(self, uid: u32) -> bool {
        uid == 0 || uid == self.own_uid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_has_no_printed_form() {
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
