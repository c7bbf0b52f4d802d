//! Time limits for the daemon's answers.
//!
//! A limit covers the whole exchange, from connecting to the last byte of the answer. The socket of
//! a stopped or hanging daemon still accepts connections, so only the time limit tells it from a
//! busy one.

use std::time::Duration;

use super::arguments::ConnectionArguments;
use crate::api::client::Client;

/// The work that the daemon does before it can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerEffort {
    /// Return state that is in memory.
    InMemory,
    /// Wait for a new device reading (`devices.read_deadline`, 10 s) or for the ledger's disk
    /// (10 s). The daemon reports which one timed out, so the command waits longer than that.
    ReadOrRecord,
    /// Read a model from the Hub and plan it (`socket.handler_deadline`, 60 s).
    Plan,
}

impl AnswerEffort {
    /// Returns the time limit without `--timeout`.
    const fn default_timeout(self) -> Duration {
        match self {
            Self::InMemory => Duration::from_secs(5),
            Self::ReadOrRecord => Duration::from_secs(15),
            Self::Plan => Duration::from_secs(65),
        }
    }
}

impl ConnectionArguments {
    /// Returns a client with the time limit of `--timeout`, or else that of `effort`.
    pub(super) fn client(&self, effort: AnswerEffort) -> Client {
        Client::new(&self.socket).deadline(self.timeout.unwrap_or(effort.default_timeout()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DevicesConfig, SocketConfig};

    #[test]
    fn default_timeouts_exceed_daemon_deadlines() {
        assert_eq!(
            AnswerEffort::InMemory.default_timeout(),
            Duration::from_secs(5)
        );
        assert!(
            AnswerEffort::ReadOrRecord.default_timeout() > DevicesConfig::default().read_deadline
        );
        assert!(AnswerEffort::Plan.default_timeout() > SocketConfig::default().handler_deadline);
    }
}
