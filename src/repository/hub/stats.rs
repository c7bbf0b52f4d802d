//! How requests to Hubs have ended since the start, and which Hub does not answer: for figures and
//! for health.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::StatusCode;

/// How a request to a Hub, or to the store behind it, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HubOutcome {
    /// With what was asked for, or with where that is.
    Ok,
    /// Not modified since.
    NotModified,
    /// No such repository or file.
    NotFound,
    /// Gated, unauthorised or otherwise not given.
    Refused,
    /// Asked to wait.
    RateLimited,
    /// A status of 5xx.
    ServerError,
    /// No answer in time, or none at all.
    Unreachable,
}

impl HubOutcome {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Ok,
        Self::NotModified,
        Self::NotFound,
        Self::Refused,
        Self::RateLimited,
        Self::ServerError,
        Self::Unreachable,
    ];

    /// What an answer's status means.
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
    /// By endpoint, of which there are as many as the settings name.
    troubles: Mutex<BTreeMap<String, HubTrouble>>,
}

#[derive(Debug)]
struct HubTrouble {
    why: String,
    last: Instant,
}

impl HubStats {
    /// Requests that ended so.
    pub fn count(&self, outcome: HubOutcome) -> u64 {
        self.counts[outcome as usize].load(Ordering::Relaxed)
    }

    /// The endpoints that were given up on and have not answered since: which, why, and how long
    /// ago.
    pub fn troubles(&self) -> Vec<(String, String, Duration)> {
        let told = |(endpoint, trouble): (&String, &HubTrouble)| {
            (
                endpoint.clone(),
                trouble.why.clone(),
                trouble.last.elapsed(),
            )
        };

        self.held().iter().map(told).collect()
    }

    pub(super) fn ended(&self, outcome: HubOutcome) {
        self.counts[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// `endpoint` was asked again and again, and is given up on.
    pub(super) fn gave_up(&self, endpoint: &str, why: &str) {
        self.held().insert(
            endpoint.to_owned(),
            HubTrouble {
                why: why.to_owned(),
                last: Instant::now(),
            },
        );
    }

    /// `endpoint` answered, be it with a refusal.
    pub(super) fn answered(&self, endpoint: &str) {
        self.held().remove(endpoint);
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<String, HubTrouble>> {
        // Single insertions and removals: a panic elsewhere leaves nothing half done.
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_outcome() {
        let of = |status| HubOutcome::of(StatusCode::from_u16(status).expect("a status"));
        assert_eq!([200, 206, 302, 307].map(of), [HubOutcome::Ok; 4]);
        assert_eq!([401, 403, 418, 451].map(of), [HubOutcome::Refused; 4]);
        assert_eq!([404, 410].map(of), [HubOutcome::NotFound; 2]);
        assert_eq!([500, 503, 599].map(of), [HubOutcome::ServerError; 3]);

        assert_eq!(
            (of(304), of(429)),
            (HubOutcome::NotModified, HubOutcome::RateLimited)
        );
    }

    #[test]
    fn counts_go_to_their_own_outcome_and_trouble_ends_with_an_answer() {
        let tally = HubStats::default();
        for (times, outcome) in HubOutcome::ALL.into_iter().enumerate() {
            (0..times).for_each(|_| tally.ended(outcome));
        }

        assert_eq!(
            HubOutcome::ALL.map(|outcome| tally.count(outcome)),
            [0, 1, 2, 3, 4, 5, 6]
        );
        tally.gave_up("https://hub", "HTTP 503");
        tally.gave_up("https://mirror", "no connection");
        tally.answered("https://hub");
        let left = tally.troubles();
        assert_eq!(left.len(), 1);

        assert_eq!(
            (left[0].0.as_str(), left[0].1.as_str()),
            ("https://mirror", "no connection")
        );
    }
}
