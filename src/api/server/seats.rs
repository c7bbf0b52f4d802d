//! How many connections each user holds, so that one cannot lock the others out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::UnixStream;
use tracing::debug;

use crate::api::Problem;
use crate::api::problem::Reason;
use crate::metrics::Metrics;

/// The count by user.
pub(super) struct Seats {
    held: Arc<Mutex<HashMap<u32, usize>>>,
    most: usize,
    own_uid: u32,
    metrics: Arc<Metrics>,
}

/// One connection's place in the count; dropping it gives it back.
pub(super) struct Seat {
    held: Arc<Mutex<HashMap<u32, usize>>>,
    uid: u32,
    metrics: Arc<Metrics>,
}

impl Seats {
    pub(super) fn new(most: usize, own_uid: u32, metrics: Arc<Metrics>) -> Self {
        Self { held: Arc::default(), most, own_uid, metrics }
    }

    /// A seat for `uid`, unless it holds the most already. Root and the daemon's own user always get one.
    pub(super) fn take(&self, uid: u32) -> Option<Seat> {
        let mut held = lock(&self.held);
        let count = held.entry(uid).or_insert(0);
        if *count >= self.most && uid != 0 && uid != self.own_uid {
            self.metrics.refused("user_connections");
            return None;
        }
        *count = count.saturating_add(1);
        self.metrics.connection_opened();
        Some(Seat { held: Arc::clone(&self.held), uid, metrics: Arc::clone(&self.metrics) })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        if let Some(count) = held.get_mut(&self.uid) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                held.remove(&self.uid);
            }
        }
        self.metrics.connection_closed();
    }
}

/// The lock is held for a few instructions that cannot panic.
fn lock(held: &Mutex<HashMap<u32, usize>>) -> MutexGuard<'_, HashMap<u32, usize>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells a caller above its share so, as far as that goes without waiting for it, and closes.
pub(super) fn turn_away(stream: &UnixStream, uid: u32) {
    // Whoever does this does it often: the figure is for the operator, the line for whoever looks closer.
    debug!(uid, "a user holds the most connections that one user may; another was refused");
    let problem = Problem::new(Reason::Busy, "this user holds as many connections as one user may")
        .hint("close some, or raise socket.connections_per_user in the daemon's configuration");
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

    #[test]
    fn a_user_gets_its_share_and_gives_it_back() {
        let seats = Seats::new(2, 990, Arc::default());
        let first = seats.take(1000).unwrap();
        let _second = seats.take(1000).unwrap();
        assert!(seats.take(1000).is_none());
        assert!(seats.take(1001).is_some(), "another user is not held up");
        drop(first);
        assert!(seats.take(1000).is_some());
    }

    #[test]
    fn root_and_the_daemon_are_not_counted() {
        let seats = Seats::new(1, 990, Arc::default());
        let held: Vec<_> = [0, 0, 990, 990].iter().map(|uid| seats.take(*uid)).collect();
        assert!(held.iter().all(Option::is_some));
    }

    #[test]
    fn nothing_is_kept_of_users_who_left() {
        let seats = Seats::new(1, 990, Arc::default());
        drop(seats.take(1000));
        assert!(lock(&seats.held).is_empty());
    }
}
