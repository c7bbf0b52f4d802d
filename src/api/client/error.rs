//! Why a call to the daemon has no answer.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No process listens on the socket.
    #[error("no daemon answers at {}: {source}", socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection was accepted, but no answer arrived in time.
    #[error(
        "the daemon at {} did not answer within {}",
        socket.display(), humantime::format_duration(*deadline)
    )]
    TimedOut {
        /// The socket.
        socket: PathBuf,
        /// The deadline.
        deadline: Duration,
    },
    /// The daemon was killed or restarted before it answered.
    #[error("the daemon at {} went away before it answered: {why}", socket.display())]
    Disconnected {
        /// The socket.
        socket: PathBuf,
        /// How the client noticed it.
        why: String,
    },
    /// The response is not one of this program.
    #[error("the process that listens on {} sent an invalid response: {why}", socket.display())]
    InvalidResponse {
        /// The socket.
        socket: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The daemon answered with a problem.
    #[error("{0}")]
    Problem(Box<Problem>),
}

impl ClientError {
    /// Returns whether the daemon was there and is stopping or has stopped: the next daemon can
    /// answer the same request.
    pub fn daemon_is_leaving(&self) -> bool {
        match self {
            Self::Disconnected { .. } => true,
            // The daemon was killed before it accepted the connection.
            Self::Unreachable { source, .. } => {
                matches!(
                    source.kind(),
                    io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
                )
            }
            Self::Problem(problem) => problem.reason == Reason::DaemonStopping,
            _ => false,
        }
    }

    /// Returns whether no daemon runs there at all, so that the caller can answer without one.
    pub fn daemon_is_absent(&self) -> bool {
        let Self::Unreachable { source, .. } = self else {
            return false;
        };

        matches!(
            source.kind(),
            io::ErrorKind::NotFound
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::NotADirectory
        )
    }

    /// Returns the problem of a call that only the daemon can answer: its hint does not suggest to
    /// answer without one.
    pub fn into_daemon_problem(self) -> Problem {
        let hint = match &self {
            Self::Problem(problem) => return problem.as_ref().clone(),
            Self::Unreachable { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                "your user may not connect: add it to the socket's group (`hf-mem-probe` unless \
                 configured otherwise), and log in again"
            }
            Self::Unreachable { .. } => {
                "start it with `systemctl start hf-mem-probe.socket` or `hf-mem-probe daemon`, \
                 or name its socket with --socket"
            }
            Self::Disconnected { .. } => {
                "try again; `journalctl -u hf-mem-probe` says why it ended"
            }
            Self::TimedOut { .. } => {
                "it may be stopped or busy: see `systemctl status hf-mem-probe`; \
                 --timeout sets how long to wait"
            }
            Self::InvalidResponse { .. } => {
                "another program or another version may listen there; check --socket"
            }
        };

        Problem::new(Reason::DaemonUnreachable, self.to_string()).hint(hint)
    }
}

impl From<ClientError> for Problem {
    fn from(error: ClientError) -> Self {
        let without_daemon = match &error {
            ClientError::Unreachable { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                "; or ask without it, and without the leases that it knows (--local)"
            }
            ClientError::Unreachable { .. } | ClientError::TimedOut { .. } => {
                "; or ask without it (--local)"
            }
            ClientError::Disconnected { .. }
            | ClientError::InvalidResponse { .. }
            | ClientError::Problem(_) => "",
        };

        let mut problem = error.into_daemon_problem();
        if let Some(hint) = &mut problem.hint {
            hint.push_str(without_daemon);
        }

        problem
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable(kind: io::ErrorKind) -> ClientError {
        ClientError::Unreachable {
            socket: "/x".into(),
            source: kind.into(),
        }
    }

    #[test]
    fn absent_daemon_differs_from_forbidden() {
        assert!(unreachable(io::ErrorKind::NotFound).daemon_is_absent());
        assert!(unreachable(io::ErrorKind::ConnectionRefused).daemon_is_absent());
        assert!(!unreachable(io::ErrorKind::PermissionDenied).daemon_is_absent());
        let problem = Problem::from(unreachable(io::ErrorKind::PermissionDenied));
        assert_eq!(problem.reason, Reason::DaemonUnreachable);
        assert!(problem.hint.unwrap().contains("group"));
    }
}
