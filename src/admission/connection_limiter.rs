//! Connections: how many there are, whose, and who waits for one to be served.
//!
//! Whoever is accepted sits in the hall; served at once are as many as [`Limits::connections`]. The
//! others in the hall wait for their turn. A part of the hall and some turns are kept for operators
//! (root and the daemon's own user), who get through when other users hold all there is.

use std::sync::Arc;
use std::time::Duration;

use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::debug;

use crate::admission::limits::Limits;
use crate::admission::user_limits::{LimitBounds, LimitExceeded, Reservation, UserLimits};
use crate::api::peer::Operators;
use crate::metrics::{Metrics, Refusal};

/// Reads of what a caller has sent that is turned away: more than a socket holds.
const MOST_READS: usize = 128;

/// The hall and the turns.
pub(crate) struct ConnectionLimiter {
    shares: UserLimits,
    hall: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    kept_turns: Arc<Semaphore>,
    operators: Operators,
    metrics: Arc<Metrics>,
}

/// A place in the hall, before it is known who takes it.
pub(crate) struct AcceptPermit {
    _permit: OwnedSemaphorePermit,
}

/// One connection's place; dropping it gives it back.
pub(crate) struct ConnectionSlot {
    _place: AcceptPermit,
    _share: Reservation,
    uid: u32,
    turns: Arc<Semaphore>,
    kept_turns: Option<Arc<Semaphore>>,
    metrics: Arc<Metrics>,
}

impl ConnectionLimiter {
    pub(crate) fn new(limits: &Limits, operators: Operators, metrics: Arc<Metrics>) -> Self {
        let (served, kept) = (limits.connections, limits.reserved_connections());
        let hall = served.saturating_mul(2);

        Self {
            shares: UserLimits::new(
                LimitBounds {
                    each: limits.connections_per_user,
                    all: hall,
                    reserve: kept,
                },
                operators,
            ),
            hall: Arc::new(Semaphore::new(hall.saturating_add(kept))),
            turns: Arc::new(Semaphore::new(served)),
            kept_turns: Arc::new(Semaphore::new(kept)),
            operators,
            metrics,
        }
    }

    /// A place for the next connection; waits while the hall is full.
    pub(crate) async fn place(&self) -> Option<AcceptPermit> {
        // The semaphore is never closed.
        Arc::clone(&self.hall)
            .acquire_owned()
            .await
            .ok()
            .map(|permit| AcceptPermit { _permit: permit })
    }

    /// `place` for `uid`, unless it holds the most already, or what is left is kept for operators.
    pub(crate) fn take(
        &self,
        place: AcceptPermit,
        uid: u32,
    ) -> Result<ConnectionSlot, LimitExceeded> {
        let share = self.shares.take(uid, 1).inspect_err(|full| {
            self.metrics.refused(match full {
                LimitExceeded::Each => Refusal::UserConnections,
                LimitExceeded::All => Refusal::Connections,
            });
        })?;

        self.metrics.connection_opened();
        Ok(ConnectionSlot {
            _place: place,
            _share: share,
            uid,
            turns: Arc::clone(&self.turns),
            kept_turns: self
                .operators
                .include(uid)
                .then(|| Arc::clone(&self.kept_turns)),
            metrics: Arc::clone(&self.metrics),
        })
    }
}

impl ConnectionSlot {
    /// Waits for the turn in which `stream` is served, up to `deadline`; when that has passed, the
    /// caller is told so and `None` comes back. The turn lasts until it is dropped.
    pub(crate) async fn turn(
        &self,
        stream: UnixStream,
        deadline: Duration,
    ) -> Option<(UnixStream, OwnedSemaphorePermit)> {
        if let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() {
            return Some((stream, turn));
        }

        let kept = self
            .kept_turns
            .as_ref()
            .and_then(|kept| Arc::clone(kept).try_acquire_owned().ok());
        if let Some(kept) = kept {
            return Some((stream, kept));
        }

        let waiting = tokio::time::timeout(deadline, Arc::clone(&self.turns).acquire_owned());
        if let Ok(Ok(turn)) = waiting.await {
            return Some((stream, turn));
        }

        self.metrics.refused(Refusal::Connections);
        turn_away(&stream, self.uid, LimitExceeded::All);

        None
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.metrics.connection_closed();
    }
}

/// Tells a caller for whom there is no seat or no turn so, as far as that goes without waiting for
/// it, and closes.
pub(crate) fn turn_away(stream: &UnixStream, uid: u32, full: LimitExceeded) {
    // Whoever does this does it often: the figure is for the operator, the line for whoever looks
    // closer.
    debug!(uid, ?full, "a connection was refused");
    let problem = match full {
        LimitExceeded::Each => Problem::new(
            Reason::Busy,
            "this user holds as many connections as one user may",
        )
        .hint("close some, or raise socket.connections_per_user in the daemon's configuration"),
        LimitExceeded::All => Problem::new(
            Reason::Busy,
            "all connections are held, and none came free for this caller",
        )
        .hint("try again, or raise socket.connections in the daemon's configuration"),
    };

    let body = serde_json::to_string(&problem).unwrap_or_default();
    let text = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        crate::api::PROBLEM_JSON,
        body.len(),
    );

    // Closing a Unix socket over unread bytes resets it and would lose the answer, so what is there
    // is read first; but whoever sends without end is not read without end.
    let mut sink = [0; 4096];
    let _unread = (0..MOST_READS)
        .take_while(|_| matches!(stream.try_read(&mut sink), Ok(count) if count > 0))
        .count();
    let _gone_already = stream.try_write(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::config::SocketConfig;

    fn seats(connections: usize, connections_per_user: usize) -> ConnectionLimiter {
        let limits = Limits::new(&SocketConfig::default(), Duration::ZERO);
        ConnectionLimiter::new(
            &Limits {
                connections,
                connections_per_user,
                ..limits
            },
            Operators::with(990),
            Arc::default(),
        )
    }

    async fn seat(seats: &ConnectionLimiter, uid: u32) -> Result<ConnectionSlot, LimitExceeded> {
        seats.take(seats.place().await.unwrap(), uid)
    }

    /// Whether `seat` has its turn at once; the turn, and the caller's end.
    async fn turn(
        seat: &ConnectionSlot,
    ) -> Option<(UnixStream, (UnixStream, OwnedSemaphorePermit))> {
        let (caller, stream) = UnixStream::pair().unwrap();
        seat.turn(stream, Duration::ZERO)
            .await
            .map(|turn| (caller, turn))
    }

    #[tokio::test]
    async fn root_is_served_when_others_hold_all_and_nobody_else_is() {
        let seats = seats(16, 16);
        let mut held = Vec::new();

        for uid in [1000, 1001] {
            for _ in 0..16 {
                let seat = seat(&seats, uid).await.unwrap();
                let turn = turn(&seat).await;
                assert_eq!(
                    turn.is_some(),
                    uid == 1000,
                    "the first are served, the others wait"
                );
                held.push((seat, turn));
            }
        }

        assert_eq!(
            seat(&seats, 1002).await.err(),
            Some(LimitExceeded::All),
            "what is left is kept"
        );

        assert_eq!(seat(&seats, 1000).await.err(), Some(LimitExceeded::Each));
        let root = seat(&seats, 0).await.unwrap();
        assert!(turn(&root).await.is_some());
        held.drain(..2);
        assert!(turn(&seat(&seats, 1002).await.unwrap()).await.is_some());
    }

    #[tokio::test]
    async fn whoever_has_no_seat_is_told_at_once() {
        let (mut caller, stream) = UnixStream::pair().unwrap();
        turn_away(&stream, 1000, LimitExceeded::Each);
        drop(stream);
        let mut told = String::new();
        caller.read_to_string(&mut told).await.unwrap();

        assert!(
            told.starts_with("HTTP/1.1 503")
                && told.contains("as many connections as one user may"),
            "{told}"
        );
    }

    #[tokio::test]
    async fn whoever_waits_too_long_for_a_turn_is_told_and_counted() {
        let seats = seats(1, 16);
        let first = seat(&seats, 1000).await.unwrap();
        let _held = turn(&first).await.unwrap();
        let late = seat(&seats, 1001).await.unwrap();
        let (mut caller, stream) = UnixStream::pair().unwrap();
        caller
            .write_all(b"GET /v1/health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .await
            .unwrap();
        assert!(late.turn(stream, Duration::ZERO).await.is_none());
        let mut told = String::new();
        caller.read_to_string(&mut told).await.unwrap();

        assert!(
            told.starts_with("HTTP/1.1 503") && told.contains("\"reason\":\"busy\""),
            "{told}"
        );
        let metrics = seats.metrics.classic_text();
        assert!(
            metrics.contains("connections_refused_total{why=\"connections\"} 1"),
            "{metrics}"
        );
    }
}
