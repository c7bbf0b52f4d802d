//! How long a command waits for the daemon: the one place that decides it.
//!
//! The time covers the whole exchange, from connecting to the last byte of the answer. A daemon
//! that is stopped, or that hangs, still has a socket that takes connections, so no shorter sign
//! tells it from one that is busy.

use std::time::Duration;

use super::arguments::ConnectionArguments;
use crate::api::client::Client;

/// What the daemon must do before it can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerEffort {
    /// Tell what it has at hand.
    AtHand,
    /// Wait for a new reading of the devices (`devices.read_deadline`, 10 s) or for the ledger's
    /// disk (10 s). The daemon reports which one is late, so the command must outwait it.
    ReadOrRecord,
    /// Read a model from the Hub and plan it (`socket.handler_deadline`, 60 s).
    Plan,
}

impl AnswerEffort {
    /// The time to wait where the command line says nothing.
    const fn default_timeout(self) -> Duration {
        match self {
            Self::AtHand => Duration::from_secs(5),
            Self::ReadOrRecord => Duration::from_secs(15),
            Self::Plan => Duration::from_secs(65),
        }
    }
}

impl ConnectionArguments {
    /// A client that waits as long as `--timeout` says, or else as long as `effort` may take.
    pub(super) fn client(&self, effort: AnswerEffort) -> Client {
        Client::new(&self.socket).deadline(self.timeout.unwrap_or(effort.default_timeout()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DevicesConfig, SocketConfig};

    #[test]
    fn defaults_outlast_the_daemons_own_deadlines() {
        assert_eq!(
            AnswerEffort::AtHand.default_timeout(),
            Duration::from_secs(5)
        );
        assert!(
            AnswerEffort::ReadOrRecord.default_timeout() > DevicesConfig::default().read_deadline
        );
        assert!(AnswerEffort::Plan.default_timeout() > SocketConfig::default().handler_deadline);
    }
}
