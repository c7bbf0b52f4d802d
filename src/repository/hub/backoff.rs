//! How long to wait before trying again: what the server asks for, else longer each time with some
//! chance in it.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

/// The first wait of our own.
const FIRST: Duration = Duration::from_millis(250);
/// Beyond this a longer wait is not spread any further, whatever number a server sends.
const LONGEST_SPREAD: Duration = Duration::from_secs(3600);
/// The longest wait of our own.
const LONGEST: Duration = Duration::from_secs(8);

/// What the server asks for: `Retry-After` in seconds or as a date, else the `t` of an exhausted
/// `RateLimit` (draft-ietf-httpapi-ratelimit-headers): `"api";r=0;t=55`.
pub(super) fn asked(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::trim)
    };

    if let Some(after) = text(RETRY_AFTER.as_str()) {
        let seconds = after.parse().ok().map(Duration::from_secs);
        let until_date = || {
            let date = httpdate::parse_http_date(after).ok()?;
            Some(date.duration_since(now).unwrap_or_default())
        };

        if let Some(wait) = seconds.or_else(until_date) {
            return Some(wait);
        }
    }

    let limit = text("ratelimit")?;
    let parameter = |key: &str| {
        limit.split([';', ',']).find_map(|part| {
            part.trim()
                .strip_prefix(key)?
                .strip_prefix('=')?
                .parse::<u64>()
                .ok()
        })
    };

    (parameter("r")? == 0)
        .then(|| parameter("t").map(Duration::from_secs))
        .flatten()
}

/// The wait before the next attempt: what the server asks for and up to a tenth more, so that a
/// fleet that was told the same does not come back together; else [`own`].
pub(super) fn pause(asked: Option<Duration>, attempt: u32, chance: u64) -> Duration {
    let own = own(attempt, chance);
    asked.map_or(own, |asked| {
        let more = f64::from(u32::try_from(chance % 1024).unwrap_or(0)) / 10_240.0;
        asked
            .max(own)
            .saturating_add(asked.min(LONGEST_SPREAD).mul_f64(more))
    })
}

/// The wait before attempt `attempt` (counted from 1 for the second): doubling, between half and
/// all of it by `chance`.
pub(super) fn own(attempt: u32, chance: u64) -> Duration {
    let whole = FIRST
        .saturating_mul(1 << attempt.saturating_sub(1).min(16))
        .min(LONGEST);
    let half = whole / 2;
    half + half.mul_f64(f64::from(u32::try_from(chance % 1024).unwrap_or(0)) / 1024.0)
}

/// Chance for [`own`], different in each process and call: fleets that restart together must not
/// ask together.
pub(super) fn chance() -> u64 {
    RandomState::new().hash_one(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().expect("a header"));
        headers
    }

    #[test]
    fn every_form_of_asking() {
        let now = humantime::parse_rfc3339("2026-10-21T07:27:00Z").expect("a time");
        let asks = |name, value| asked(&headers(name, value), now);
        assert_eq!(asks("retry-after", "17"), Some(Duration::from_secs(17)));

        assert_eq!(
            asks("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT"),
            Some(Duration::from_secs(60))
        );
        assert_eq!(
            asks("retry-after", "Wed, 21 Oct 2026 07:20:00 GMT"),
            Some(Duration::ZERO)
        );

        assert_eq!(
            asks("ratelimit", "\"api\";r=0;t=55"),
            Some(Duration::from_secs(55))
        );
        assert_eq!(asks("ratelimit", "\"api\";r=10;t=55"), None);

        for nonsense in ["soon", "-1", "Wed, 99 Foo 2026 x GMT", ""] {
            assert_eq!(asks("retry-after", nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn what_is_asked_for_is_never_cut_and_spread_a_little() {
        let asked = Some(Duration::from_secs(60));
        assert_eq!(pause(asked, 1, 0), Duration::from_secs(60));
        assert!((61..=66).contains(&pause(asked, 1, 512).as_secs()));

        assert!(
            pause(Some(Duration::ZERO), 1, 0) >= FIRST / 2,
            "none at all is no wait"
        );
        assert_eq!(pause(None, 2, 7), own(2, 7));

        assert!(
            pause(Some(Duration::MAX), 1, 0) >= Duration::from_secs(60),
            "and no number is too large"
        );
    }

    #[test]
    fn our_own_waits_grow_and_are_bounded() {
        assert_eq!(own(1, 0), Duration::from_millis(125));
        assert!(own(1, 1023) <= FIRST);
        assert!(own(3, 0) >= Duration::from_millis(500));
        assert!(own(u32::MAX, u64::MAX) <= LONGEST);
    }
}
