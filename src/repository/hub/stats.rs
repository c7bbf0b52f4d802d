//! Counts how requests to Hubs ended, and which Hubs do not answer, for metrics and health.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use reqwest::StatusCode;

use crate::lock_ignoring_poison::lock_ignoring_poison;

/// How a request to a Hub, or to the store behind it, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HubOutcome {
    /// Success, or a redirect.
    Ok,
    /// Not modified since.
    NotModified,
    /// No such repository or file.
    NotFound,
    /// Gated, unauthorized or refused for another reason.
    Refused,
    /// The Hub asked to wait.
    RateLimited,
    /// A status of 5xx.
    ServerError,
    /// No response, or none in time.
    Unreachable,
}

impl HubOutcome {
    /// Every outcome.
    pub const ALL: [Self; 7] = [
        Self::Ok,
        Self::NotModified,
        Self::NotFound,
        Self::Refused,
        Self::RateLimited,
        Self::ServerError,
        Self::Unreachable,
    ];

    /// Returns the outcome that a status means.
    pub(super) fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            304 => Self::NotModified,
            404 | 410 => Self::NotFound,
            408 | 429 => Self::RateLimited,
            400..500 => Self::Refused,
            500.. => Self::ServerError,
            _ => Self::Ok,
        }
    }
}

/// Requests by outcome, and the Hubs that do not answer.
#[derive(Debug, Default)]
pub struct HubStats {
    counts: [AtomicU64; HubOutcome::ALL.len()],
    /// Keys are endpoints, so the settings bound their number.
    outages: Mutex<BTreeMap<String, HubOutage>>,
}

#[derive(Debug)]
struct HubOutage {
    why: String,
    last: Instant,
}

impl HubStats {
    /// Returns how many requests ended with `outcome`.
    pub fn count(&self, outcome: HubOutcome) -> u64 {
        self.counts[outcome as usize].load(Ordering::Relaxed)
    }

    /// Returns the Hubs that used up all attempts and have not answered since: endpoint, reason and
    /// time since the last failure.
    pub fn outages(&self) -> Vec<(String, String, Duration)> {
        self.lock()
            .iter()
            .map(|(endpoint, outage)| (endpoint.clone(), outage.why.clone(), outage.last.elapsed()))
            .collect()
    }

    pub(super) fn count_request(&self, outcome: HubOutcome) {
        self.counts[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Records that all attempts at `endpoint` failed.
    pub(super) fn record_outage(&self, endpoint: &str, why: &str) {
        self.lock().insert(
            endpoint.to_owned(),
            HubOutage {
                why: why.to_owned(),
                last: Instant::now(),
            },
        );
    }

    /// Records that `endpoint` answered, if only with a refusal.
    pub(super) fn record_answer(&self, endpoint: &str) {
        self.lock().remove(endpoint);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, HubOutage>> {
        // Single insertions and removals: a panic elsewhere leaves the map consistent.
        lock_ignoring_poison(&self.outages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_its_outcome() {
        fn outcome(status: u16) -> HubOutcome {
            HubOutcome::of(StatusCode::from_u16(status).expect("a status"))
        }

        assert_eq!([200, 206, 302, 307].map(outcome), [HubOutcome::Ok; 4]);
        assert_eq!([401, 403, 418, 451].map(outcome), [HubOutcome::Refused; 4]);
        assert_eq!([404, 410].map(outcome), [HubOutcome::NotFound; 2]);
        assert_eq!([500, 503, 599].map(outcome), [HubOutcome::ServerError; 3]);

        assert_eq!(
            (outcome(304), outcome(429)),
            (HubOutcome::NotModified, HubOutcome::RateLimited)
        );
    }

    #[test]
    fn counts_and_outages_are_separate() {
        let stats = HubStats::default();
        for (times, outcome) in HubOutcome::ALL.into_iter().enumerate() {
            (0..times).for_each(|_| stats.count_request(outcome));
        }

        assert_eq!(
            HubOutcome::ALL.map(|outcome| stats.count(outcome)),
            [0, 1, 2, 3, 4, 5, 6]
        );
        stats.record_outage("https://hub", "HTTP 503");
        stats.record_outage("https://mirror", "no connection");
        stats.record_answer("https://hub");
        let left = stats.outages();
        assert_eq!(left.len(), 1);

        assert_eq!(
            (left[0].0.as_str(), left[0].1.as_str()),
            ("https://mirror", "no connection")
        );
    }
}
