//! The server's limits on what one caller can cost the daemon.

use std::time::Duration;

use crate::config::SocketConfig;

/// Limits of the server. Each is a key of `[socket]` unless its comment names another source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Connections served at once.
    pub connections: usize,
    /// Connections of one user at once. Root and the daemon's own user are exempt.
    pub connections_per_user: usize,
    /// The longest wait for a request's headers, idle time on a kept-alive connection included.
    pub header_deadline: Duration,
    /// The longest time for reading a body and answering it.
    pub handler_deadline: Duration,
    /// The longest time that an answer can stay unread.
    pub write_deadline: Duration,
    /// The longest wait for requests in flight at shutdown.
    pub drain_deadline: Duration,
    /// The largest body.
    pub body_bytes: usize,
    /// The longest time that a lease request can wait for memory (`leases.max_wait`).
    pub max_wait: Duration,
}

/// The largest head of a request: the request line and all headers. This program's own clients
/// send some hundred bytes.
pub const MAX_HEAD_BYTES: usize = 16 << 10;

/// The most headers of a request.
pub const MAX_HEADERS: usize = 64;

/// The longest JSON answer that a cache keeps. Longer answers are computed again. Answers about
/// one model on eight devices take some ten kilobytes.
pub const MAX_CACHED_ANSWER_BYTES: usize = 64 << 10;

impl ServerLimits {
    /// Returns the limits that `config` sets.
    pub fn new(config: &SocketConfig, max_wait: Duration) -> Self {
        Self {
            connections: config.connections,
            connections_per_user: config.connections_per_user,
            header_deadline: config.header_deadline,
            handler_deadline: config.handler_deadline,
            write_deadline: config.write_deadline,
            drain_deadline: config.drain_deadline,
            body_bytes: usize::try_from(config.body_cap.get().get()).unwrap_or(usize::MAX),
            max_wait,
        }
    }

    /// Connections that are reserved for root and the daemon's own user, on top of `connections`.
    pub fn reserved_connections(&self) -> usize {
        self.connections / 16
    }

    /// Bytes of large bodies that are held at once, over all connections.
    pub fn all_body_bytes(&self) -> usize {
        self.body_bytes.saturating_mul(32)
    }

    /// Watch streams at once: half of the connections, so that questions always get through.
    pub fn watchers(&self) -> usize {
        (self.connections / 2).max(1)
    }
}
