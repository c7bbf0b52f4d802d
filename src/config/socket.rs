//! `[socket]`: where the daemon listens and what one caller may cost it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::units::{Period, Size, SocketMode};

/// Where the daemon listens when nothing else is said.
pub const DEFAULT_PATH: &str = "/run/hf-mem-probe/api.sock";

/// The socket and its limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SocketConfig {
    /// Path of the Unix socket. Not used under socket activation.
    pub path: PathBuf,
    /// Group that may connect, by name or number.
    pub group: String,
    /// Permission bits of the socket.
    pub mode: SocketMode,
    /// Connections served at once. As many callers again are accepted and wait for their turn, up
    /// to `header_deadline`; whoever comes beyond them, or waits longer, is answered 503 `busy`.
    /// Everybody's count, root's too.
    pub connections: usize,
    /// Connections of one user at once. Root and the daemon's own user are not held to this one,
    /// and a sixteenth of `connections` on top is kept for them.
    pub connections_per_user: usize,
    /// Longest wait for a request's headers. Idle kept-alive connections are closed by it too.
    pub header_deadline: Period,
    /// Longest time that a request may take, its body included.
    pub handler_deadline: Period,
    /// Longest time that a caller may leave an answer unread.
    pub write_deadline: Period,
    /// Longest wait for requests in flight when the daemon stops.
    pub drain_deadline: Period,
    /// Largest request body.
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
            header_deadline: Period::seconds(30),
            handler_deadline: Period::seconds(60),
            write_deadline: Period::seconds(30),
            drain_deadline: Period::seconds(5),
            body_cap: Size::mib(4),
        }
    }
}
