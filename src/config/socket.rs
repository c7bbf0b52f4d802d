//! `[socket]`: where the daemon listens, and the limits on one caller.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::units::{self, Size, SocketMode};

/// The socket's default path.
pub const DEFAULT_PATH: &str = "/run/hf-mem-probe/api.sock";

/// The socket and its limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SocketConfig {
    /// Path of the Unix socket. Not used under socket activation.
    pub path: PathBuf,
    /// The group whose members can connect, by name or number.
    pub group: String,
    /// Permission bits of the socket.
    pub mode: SocketMode,
    /// Connections served at once. As many more are accepted and wait for a slot, up to
    /// `header_deadline`. Callers beyond them, or that wait longer, get 503 `busy`. All users
    /// count, root too.
    pub connections: usize,
    /// Connections of one user at once. Root and the daemon's own user are exempt, and have a
    /// reserve of their own: a sixteenth of `connections`, on top of it.
    pub connections_per_user: usize,
    /// The longest wait for a request's headers. It also closes idle kept-alive connections.
    #[serde(with = "units::duration")]
    pub header_deadline: Duration,
    /// The longest time for one request, its body included.
    #[serde(with = "units::duration")]
    pub handler_deadline: Duration,
    /// The longest time that a caller can leave an answer unread.
    #[serde(with = "units::duration")]
    pub write_deadline: Duration,
    /// The longest wait for requests in flight when the daemon stops.
    #[serde(with = "units::duration")]
    pub drain_deadline: Duration,
    /// The largest request body.
    pub body_cap: Size,
}

impl Default for SocketConfig {
    fn default() -> Self {
        Self {
            path: DEFAULT_PATH.into(),
            group: "hf-mem-probe".to_owned(),
            mode: SocketMode(0o660),
            connections: 128,
            connections_per_user: 64,
            header_deadline: Duration::from_secs(30),
            handler_deadline: Duration::from_secs(60),
            write_deadline: Duration::from_secs(30),
            drain_deadline: Duration::from_secs(5),
            body_cap: Size::mib(4),
        }
    }
}
