//! The limits on connections.
//!
//! The daemon accepts up to a backlog of connections and serves [`ServerLimits::connections`] of
//! them at once. The others in the backlog wait to be served. Part of the backlog and some serve
//! permits are reserved for operators (root and the daemon's own user), so that they get through
//! when other users hold all the rest.

use std::sync::Arc;
use std::time::Duration;

use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::debug;

use crate::admission::server_limits::ServerLimits;
use crate::admission::user_limits::{LimitBounds, LimitExceeded, Reservation, UserLimits};
use crate::api::peer::Operators;
use crate::metrics::{Metrics, Refusal};

/// How often the daemon reads from a connection that it rejects: more than a socket buffer holds.
const MAX_READS: usize = 128;

/// The backlog and the serve permits.
pub(crate) struct ConnectionLimiter {
    users: UserLimits,
    backlog: Arc<Semaphore>,
    serve: Arc<Semaphore>,
    operator_serve: Arc<Semaphore>,
    operators: Operators,
    metrics: Arc<Metrics>,
}

/// A place in the backlog, before the user is known.
pub(crate) struct AcceptPermit {
    _permit: OwnedSemaphorePermit,
}

/// A connection of a known user. Dropping it releases its place.
pub(crate) struct ConnectionSlot {
    _permit: AcceptPermit,
    _reservation: Reservation,
    uid: u32,
    serve: Arc<Semaphore>,
    operator_serve: Option<Arc<Semaphore>>,
    metrics: Arc<Metrics>,
}

impl ConnectionLimiter {
    pub(crate) fn new(limits: &ServerLimits, operators: Operators, metrics: Arc<Metrics>) -> Self {
        let (served, reserved) = (limits.connections, limits.reserved_connections());
        let backlog = served.saturating_mul(2);

        Self {
            users: UserLimits::new(
                LimitBounds {
                    per_user: limits.connections_per_user,
                    total: backlog,
                    operator_reserve: reserved,
                },
                operators,
            ),
            backlog: Arc::new(Semaphore::new(backlog.saturating_add(reserved))),
            serve: Arc::new(Semaphore::new(served)),
            operator_serve: Arc::new(Semaphore::new(reserved)),
            operators,
            metrics,
        }
    }

    /// Waits for a place in the backlog for the next connection.
    pub(crate) async fn accept_permit(&self) -> Option<AcceptPermit> {
        // The semaphore is never closed.
        Arc::clone(&self.backlog)
            .acquire_owned()
            .await
            .ok()
            .map(|permit| AcceptPermit { _permit: permit })
    }

    /// Turns an accept permit into a slot of the user `uid`, unless a limit is exceeded.
    pub(crate) fn slot(
        &self,
        permit: AcceptPermit,
        uid: u32,
    ) -> Result<ConnectionSlot, LimitExceeded> {
        let reservation = self.users.reserve(uid, 1).inspect_err(|full| {
            self.metrics.refused(match full {
                LimitExceeded::User => Refusal::UserConnections,
                LimitExceeded::Global => Refusal::Connections,
            });
        })?;

        self.metrics.connection_opened();
        Ok(ConnectionSlot {
            _permit: permit,
            _reservation: reservation,
            uid,
            serve: Arc::clone(&self.serve),
            operator_serve: self
                .operators
                .include(uid)
                .then(|| Arc::clone(&self.operator_serve)),
            metrics: Arc::clone(&self.metrics),
        })
    }
}

impl ConnectionSlot {
    /// Waits up to `deadline` for a permit to serve `stream`. After that it rejects the client and
    /// returns `None`.
    pub(crate) async fn serve_permit(
        &self,
        stream: UnixStream,
        deadline: Duration,
    ) -> Option<(UnixStream, OwnedSemaphorePermit)> {
        if let Ok(permit) = Arc::clone(&self.serve).try_acquire_owned() {
            return Some((stream, permit));
        }

        let reserved = self
            .operator_serve
            .as_ref()
            .and_then(|reserved| Arc::clone(reserved).try_acquire_owned().ok());
        if let Some(permit) = reserved {
            return Some((stream, permit));
        }

        let waiting = tokio::time::timeout(deadline, Arc::clone(&self.serve).acquire_owned());
        if let Ok(Ok(permit)) = waiting.await {
            return Some((stream, permit));
        }

        self.metrics.refused(Refusal::Connections);
        reject(&stream, self.uid, LimitExceeded::Global);

        None
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.metrics.connection_closed();
    }
}

/// Writes a 503 answer to a client that is over a limit, without waiting for it.
pub(crate) fn reject(stream: &UnixStream, uid: u32, exceeded: LimitExceeded) {
    // Rejections come in masses: the metric counts them, and the line is for debugging.
    debug!(uid, full = ?exceeded, "connection rejected");
    let problem = match exceeded {
        LimitExceeded::User => Problem::new(
            Reason::Busy,
            "this user has reached the limit of connections per user",
        )
        .hint("close some, or raise socket.connections_per_user in the daemon's configuration"),
        LimitExceeded::Global => Problem::new(
            Reason::Busy,
            "all connections are in use, and none became free in time",
        )
        .hint("try again, or raise socket.connections in the daemon's configuration"),
    };

    let body = serde_json::to_string(&problem).unwrap_or_default();
    let text = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: {}\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        crate::api::PROBLEM_JSON,
        body.len(),
    );

    // Closing a Unix socket with unread bytes resets it and loses the answer, so read them first.
    // The number of reads is bounded, because a client can send without end.
    let mut sink = [0; 4096];
    let _unread = (0..MAX_READS)
        .take_while(|_| matches!(stream.try_read(&mut sink), Ok(count) if count > 0))
        .count();
    let _client_gone = stream.try_write(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::config::SocketConfig;

    fn limiter(connections: usize, connections_per_user: usize) -> ConnectionLimiter {
        let limits = ServerLimits::new(&SocketConfig::default(), Duration::ZERO);
        ConnectionLimiter::new(
            &ServerLimits {
                connections,
                connections_per_user,
                ..limits
            },
            Operators::with(990),
            Arc::default(),
        )
    }

    async fn open_slot(
        limiter: &ConnectionLimiter,
        uid: u32,
    ) -> Result<ConnectionSlot, LimitExceeded> {
        limiter.slot(limiter.accept_permit().await.unwrap(), uid)
    }

    /// Acquires the serve permit of `slot` if it is free now. Returns it with both ends of the
    /// socket.
    async fn serve(
        slot: &ConnectionSlot,
    ) -> Option<(UnixStream, (UnixStream, OwnedSemaphorePermit))> {
        let (caller, stream) = UnixStream::pair().unwrap();
        slot.serve_permit(stream, Duration::ZERO)
            .await
            .map(|served| (caller, served))
    }

    #[tokio::test]
    async fn operator_is_served_when_full() {
        let limiter = limiter(16, 16);
        let mut held = Vec::new();

        for uid in [1000, 1001] {
            for _ in 0..16 {
                let slot = open_slot(&limiter, uid).await.unwrap();
                let served = serve(&slot).await;
                assert_eq!(
                    served.is_some(),
                    uid == 1000,
                    "the first are served, the others wait"
                );
                held.push((slot, served));
            }
        }

        assert_eq!(
            open_slot(&limiter, 1002).await.err(),
            Some(LimitExceeded::Global),
            "the rest is reserved for operators"
        );

        assert_eq!(
            open_slot(&limiter, 1000).await.err(),
            Some(LimitExceeded::User)
        );
        let root = open_slot(&limiter, 0).await.unwrap();
        assert!(serve(&root).await.is_some());
        held.drain(..2);
        assert!(
            serve(&open_slot(&limiter, 1002).await.unwrap())
                .await
                .is_some()
        );
    }

    #[tokio::test]
    async fn rejected_client_gets_503() {
        let (mut caller, stream) = UnixStream::pair().unwrap();
        reject(&stream, 1000, LimitExceeded::User);
        drop(stream);
        let mut answer = String::new();
        caller.read_to_string(&mut answer).await.unwrap();

        assert!(
            answer.starts_with("HTTP/1.1 503")
                && answer.contains("the limit of connections per user"),
            "{answer}"
        );
    }

    #[tokio::test]
    async fn late_client_is_rejected_and_counted() {
        let limiter = limiter(1, 16);
        let first = open_slot(&limiter, 1000).await.unwrap();
        let _held = serve(&first).await.unwrap();
        let late = open_slot(&limiter, 1001).await.unwrap();
        let (mut caller, stream) = UnixStream::pair().unwrap();
        caller
            .write_all(b"GET /v1/health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .await
            .unwrap();
        assert!(late.serve_permit(stream, Duration::ZERO).await.is_none());
        let mut answer = String::new();
        caller.read_to_string(&mut answer).await.unwrap();

        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.contains("\"reason\":\"busy\""),
            "{answer}"
        );
        let metrics = limiter.metrics.classic_text();
        assert!(
            metrics.contains("connections_refused_total{why=\"connections\"} 1"),
            "{metrics}"
        );
    }
}
