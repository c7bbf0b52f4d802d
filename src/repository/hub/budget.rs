//! The budget of one model: time, bytes, and a pause that all its requests share.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::request_slots::HubRequestSlots;
use super::stats::HubStats;
use crate::repository::settings::HubLimits;

/// The budget of one model.
#[derive(Debug)]
pub(super) struct Budget {
    started: Instant,
    deadline: Instant,
    /// Time spent waiting for other readings. It does not count against the Hub's time.
    waited_nanos: AtomicU64,
    pub(super) attempt: Duration,
    bytes_left: AtomicU64,
    requests: AtomicU32,
    /// The limits that all models share.
    pub(super) request_slots: Arc<HubRequestSlots>,
    /// End of the pause that the Hub asked for. One request receives it, and all wait.
    pause: Mutex<Option<Instant>>,
    /// Counts how every request ended, of this model and all others.
    pub(super) stats: Arc<HubStats>,
}

impl Budget {
    pub(super) fn new(
        limits: &HubLimits,
        request_slots: Arc<HubRequestSlots>,
        stats: Arc<HubStats>,
    ) -> Self {
        let started = Instant::now();
        Self {
            started,
            deadline: started + limits.total,
            waited_nanos: AtomicU64::new(0),
            attempt: limits.attempt,
            bytes_left: AtomicU64::new(limits.bytes),
            requests: AtomicU32::new(0),
            request_slots,
            pause: Mutex::new(None),
            stats,
        }
    }

    /// Returns the time spent on the Hub.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed().saturating_sub(self.waited())
    }

    /// Excludes `time` from the budget: the reading waited for other readings, with no request in
    /// flight.
    pub(super) fn exclude_wait(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.waited_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn waited(&self) -> Duration {
        Duration::from_nanos(self.waited_nanos.load(Ordering::Relaxed))
    }

    /// Returns the time left until the deadline.
    pub(super) fn left(&self) -> Duration {
        self.deadline().saturating_duration_since(Instant::now())
    }

    /// Returns the deadline of an attempt that begins now.
    pub(super) fn attempt_deadline(&self) -> Instant {
        (Instant::now() + self.attempt).min(self.deadline())
    }

    /// Takes `bytes` from the budget. Returns false if fewer are left.
    pub(super) fn spend_bytes(&self, bytes: u64) -> bool {
        self.bytes_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(bytes)
            })
            .is_ok()
    }

    /// Returns the deadline of all requests together.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline + self.waited()
    }

    /// Counts a request.
    pub(super) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of requests so far.
    pub(super) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Pauses all requests for `wait`.
    pub(super) fn pause_requests(&self, wait: Duration) {
        let until = Instant::now() + wait;
        if let Ok(mut pause) = self.pause.lock() {
            *pause = Some(pause.map_or(until, |earlier| earlier.max(until)));
        }
    }

    /// Waits until the pause ends.
    pub(super) async fn wait_for_pause(&self) {
        let until = self.pause.lock().ok().and_then(|pause| *pause);
        if let Some(until) = until {
            tokio::time::sleep_until(until.min(self.deadline())).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excluded_wait_extends_the_deadline() {
        let limits = HubLimits {
            total: Duration::ZERO,
            ..HubLimits::default()
        };

        let budget = Budget::new(&limits, Arc::new(HubRequestSlots::new(1)), Arc::default());
        assert_eq!(budget.left(), Duration::ZERO);
        let day = Duration::from_secs(86_400);
        budget.exclude_wait(day);
        assert!(budget.left() > day / 2 && budget.attempt_deadline() > Instant::now());
        assert_eq!(budget.elapsed(), Duration::ZERO);
    }
}
