//! What is left to spend on one model: time, bytes, and a pause that all its requests share.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::stats::HubStats;
use super::throttle::HubThrottle;
use crate::repository::settings::HubLimits;

/// The budget of one model.
#[derive(Debug)]
pub(super) struct Budget {
    started: Instant,
    deadline: Instant,
    /// What was waited for other readings, which is not the Hub's time.
    waited_nanos: AtomicU64,
    pub(super) attempt: Duration,
    bytes_left: AtomicU64,
    requests: AtomicU32,
    /// What it shares with other models.
    pub(super) manners: Arc<HubThrottle>,
    /// Until when the Hub asked everyone to wait: when one request is told so, all hold back.
    pause: Mutex<Option<Instant>>,
    /// Where every request's end is counted, of this model and of all others.
    pub(super) tally: Arc<HubStats>,
}

impl Budget {
    pub(super) fn new(limits: &HubLimits, manners: Arc<HubThrottle>, tally: Arc<HubStats>) -> Self {
        let started = Instant::now();
        Self {
            started,
            deadline: started + limits.total,
            waited_nanos: AtomicU64::new(0),
            attempt: limits.attempt,
            bytes_left: AtomicU64::new(limits.bytes),
            requests: AtomicU32::new(0),
            manners,
            pause: Mutex::new(None),
            tally,
        }
    }

    /// Time that was spent on the Hub.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed().saturating_sub(self.waited())
    }

    /// Does not count `time`, which went by in waiting for other readings while no request was
    /// under way.
    pub(super) fn extend(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.waited_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn waited(&self) -> Duration {
        Duration::from_nanos(self.waited_nanos.load(Ordering::Relaxed))
    }

    /// Time until everything must be there.
    pub(super) fn left(&self) -> Duration {
        self.deadline().saturating_duration_since(Instant::now())
    }

    /// Until when one attempt that begins now may go on.
    pub(super) fn attempt_deadline(&self) -> Instant {
        (Instant::now() + self.attempt).min(self.deadline())
    }

    /// Takes `bytes` off; false when there are not so many left.
    pub(super) fn spend(&self, bytes: u64) -> bool {
        self.bytes_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(bytes)
            })
            .is_ok()
    }

    /// When everything must be there.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline + self.waited()
    }

    /// Counts a request.
    pub(super) fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests made so far.
    pub(super) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Holds all requests back for `wait`.
    pub(super) fn hold(&self, wait: Duration) {
        let until = Instant::now() + wait;
        if let Ok(mut pause) = self.pause.lock() {
            *pause = Some(pause.map_or(until, |earlier| earlier.max(until)));
        }
    }

    /// Waits out a pause.
    pub(super) async fn pass(&self) {
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
    fn what_was_waited_for_other_readings_is_not_taken_off() {
        let limits = HubLimits {
            total: Duration::ZERO,
            ..HubLimits::default()
        };

        let budget = Budget::new(&limits, Arc::new(HubThrottle::new(1)), Arc::default());
        assert_eq!(budget.left(), Duration::ZERO);
        let day = Duration::from_secs(86_400);
        budget.extend(day);
        assert!(budget.left() > day / 2 && budget.attempt_deadline() > Instant::now());
        assert_eq!(budget.elapsed(), Duration::ZERO);
    }
}
