//! Connections: how many there are, whose, and who waits for one to be served.
//!
//! Whoever is accepted sits in the hall; served at once are as many as [`Limits::connections`]. The others in the hall wait
//! for their turn. A part of the hall and some turns are kept for operators (root and the daemon's own user), who
//! get through when other users hold all there is.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::debug;

use crate::api::Problem;
use crate::api::limits::Limits;
use crate::api::peer::Operators;
use crate::api::problem::Reason;
use crate::api::shares::{Bounds, Full, Share, Shares};
use crate::metrics::{Metrics, Refusal};

/// The hall and the turns.
pub(super) struct Seats {
    shares: Shares,
    hall: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    kept_turns: Arc<Semaphore>,
    operators: Operators,
    metrics: Arc<Metrics>,
}

/// A place in the hall, before it is known who takes it.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
}

/// One connection's place; dropping it gives it back.
pub(super) struct Seat {
    _place: Place,
    _share: Share,
    turns: Arc<Semaphore>,
    kept_turns: Option<Arc<Semaphore>>,
    metrics: Arc<Metrics>,
}

impl Seats {
    pub(super) fn new(limits: &Limits, operators: Operators, metrics: Arc<Metrics>) -> Self {
        let (served, kept) = (limits.connections, limits.kept_connections());
        let hall = served.saturating_mul(2);
        Self {
            shares: Shares::new(Bounds { each: limits.connections_per_user, all: hall, reserve: kept }, operators),
            hall: Arc::new(Semaphore::new(hall.saturating_add(kept))),
            turns: Arc::new(Semaphore::new(served)),
            kept_turns: Arc::new(Semaphore::new(kept)),
            operators,
            metrics,
        }
    }

    /// A place for the next connection; waits while the hall is full.
    pub(super) async fn place(&self) -> Option<Place> {
        // The semaphore is never closed.
        Arc::clone(&self.hall).acquire_owned().await.ok().map(|permit| Place { _permit: permit })
    }

    /// `place` for `uid`, unless it holds the most already, or what is left is kept for operators.
    pub(super) fn take(&self, place: Place, uid: u32) -> Result<Seat, Full> {
        let share = self.shares.take(uid, 1).inspect_err(|full| {
            self.metrics.refused(match full {
                Full::Each => Refusal::UserConnections,
                Full::All => Refusal::Connections,
            });
        })?;
        self.metrics.connection_opened();
        Ok(Seat {
            _place: place,
            _share: share,
            turns: Arc::clone(&self.turns),
            kept_turns: self.operators.include(uid).then(|| Arc::clone(&self.kept_turns)),
            metrics: Arc::clone(&self.metrics),
        })
    }
}

impl Seat {
    /// Waits for the turn to be served, up to `deadline`; `None` when that has passed. The turn lasts until it is dropped.
    pub(super) async fn turn(&self, deadline: Duration) -> Option<OwnedSemaphorePermit> {
        if let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() {
            return Some(turn);
        }
        let kept = self.kept_turns.as_ref().and_then(|kept| Arc::clone(kept).try_acquire_owned().ok());
        if kept.is_some() {
            return kept;
        }
        tokio::time::timeout(deadline, Arc::clone(&self.turns).acquire_owned()).await.ok()?.ok()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.metrics.connection_closed();
    }
}

/// Tells a caller for whom there is no seat so, as far as that goes without waiting for it, and closes.
pub(super) fn turn_away(stream: &UnixStream, uid: u32, full: Full) {
    // Whoever does this does it often: the figure is for the operator, the line for whoever looks closer.
    debug!(uid, ?full, "a connection was refused");
    let problem = match full {
        Full::Each => Problem::new(Reason::Busy, "this user holds as many connections as one user may")
            .hint("close some, or raise socket.connections_per_user in the daemon's configuration"),
        Full::All => Problem::new(Reason::Busy, "all connections are held, and as many callers wait")
            .hint("try again, or raise socket.connections in the daemon's configuration"),
    };
    let body = serde_json::to_string(&problem).unwrap_or_default();
    let text = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        crate::api::routes::PROBLEM_JSON,
        body.len(),
    );
    // Closing a Unix socket over unread bytes resets it and would lose the answer, so what is there is read first.
    let mut sink = [0; 4096];
    while matches!(stream.try_read(&mut sink), Ok(count) if count > 0) {}
    let _gone_already = stream.try_write(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SocketConfig;

    fn seats(connections: usize, connections_per_user: usize) -> Seats {
        let limits = Limits::new(&SocketConfig::default(), Duration::ZERO);
        Seats::new(&Limits { connections, connections_per_user, ..limits }, Operators::with(990), Arc::default())
    }

    async fn seat(seats: &Seats, uid: u32) -> Result<Seat, Full> {
        seats.take(seats.place().await.unwrap(), uid)
    }

    #[tokio::test]
    async fn root_is_served_when_others_hold_all_and_nobody_else_is() {
        let seats = seats(16, 16);
        let mut held = Vec::new();
        for uid in [1000, 1001] {
            for _ in 0..16 {
                let seat = seat(&seats, uid).await.unwrap();
                let turn = seat.turn(Duration::ZERO).await;
                assert_eq!(turn.is_some(), uid == 1000, "the first are served, the others wait");
                held.push((seat, turn));
            }
        }
        assert_eq!(seat(&seats, 1002).await.err(), Some(Full::All), "what is left is kept");
        assert_eq!(seat(&seats, 1000).await.err(), Some(Full::Each));
        let root = seat(&seats, 0).await.unwrap();
        assert!(root.turn(Duration::ZERO).await.is_some());
        held.drain(..2);
        assert!(seat(&seats, 1002).await.unwrap().turn(Duration::from_secs(1)).await.is_some());
    }
}
