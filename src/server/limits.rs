//! What one caller may cost the daemon.

use std::ops::RangeInclusive;
use std::time::Duration;

use hf_mem_core::report::Problem;
use hf_mem_core::report::bounded::MAX_PARTS;
use hf_mem_core::report::problem::Reason;

use crate::config::SocketConfig;

/// Limits of the server; each is a key of `[socket]` except where said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections served at once.
    pub connections: usize,
    /// Connections of one user at once, but for root and the daemon's own.
    pub connections_per_user: usize,
    /// Longest wait for a request's headers, idle time on a kept-alive connection included.
    pub header_deadline: Duration,
    /// Longest time for reading a body and answering it.
    pub handler_deadline: Duration,
    /// Longest time that an answer may stay unread.
    pub write_deadline: Duration,
    /// Longest wait for requests in flight at the end.
    pub drain_deadline: Duration,
    /// Largest body.
    pub body_bytes: usize,
    /// Longest that a lease request may wait for memory (`leases.max_wait`).
    pub max_wait: Duration,
}

/// Largest head of a request: the request line and all headers. Ours come to some hundred bytes.
pub const HEAD_BYTES: usize = 16 << 10;

/// Most headers of a request.
pub const HEADERS: usize = 64;

/// Longest id in a path or a request-id header.
pub const ID_BYTES: usize = 64;

/// Longest name of a branch, tag or commit.
pub const REVISION_BYTES: u64 = 255;

/// Longest path of a file in its repository.
pub const FILE_BYTES: u64 = 1024;

/// Longest name of a lease's holder: every line of the journal about the lease has it.
pub const HOLDER_BYTES: u64 = 128;

/// Longest idempotency key.
pub const KEY_BYTES: u64 = 512;

/// For how many seconds the driver may be released: long enough for a reset or a change of MIG. An
/// operator who needs longer stops the daemon.
pub const RELEASE_SECONDS: RangeInclusive<u64> = 1..=3600;

/// Most questions that are answered together: each is planned against all devices.
pub const QUESTIONS: usize = 64;

/// Most parts of all questions that are answered together.
pub const ALL_PARTS: usize = 4 * MAX_PARTS;

/// Longest answer, as JSON, that is kept to be given again; a longer one is worked out anew. Those
/// on one model on eight devices have some ten kilobytes.
pub const KEPT_ANSWER_BYTES: usize = 64 << 10;

/// Refuses a control character in `text`, the value of `field`: it goes on to the terminals, logs
/// and files of others.
pub fn without_controls(field: &str, text: &str) -> Result<(), Problem> {
    match text.chars().find(|letter| letter.is_control()) {
        None => Ok(()),
        Some(letter) => {
            let detail = format!(
                "`{field}` holds the control character {}",
                letter.escape_unicode()
            );
            Err(Problem::new(Reason::Usage, detail)
                .hint("names and keys are letters, digits, spaces and marks"))
        }
    }
}

impl Limits {
    /// The limits that `config` sets.
    pub fn new(config: &SocketConfig, max_wait: Duration) -> Self {
        Self {
            connections: config.connections,
            connections_per_user: config.connections_per_user,
            header_deadline: config.header_deadline.get(),
            handler_deadline: config.handler_deadline.get(),
            write_deadline: config.write_deadline.get(),
            drain_deadline: config.drain_deadline.get(),
            body_bytes: usize::try_from(config.body_cap.get().get()).unwrap_or(usize::MAX),
            max_wait,
        }
    }

    /// Connections beside those that are kept for root and the daemon's own user.
    pub fn kept_connections(&self) -> usize {
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
