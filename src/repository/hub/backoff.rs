//! Retry delays: what the server asks for, else exponential backoff with jitter.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

/// The first delay of the backoff.
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// Jitter grows no further for waits longer than this, whatever number a server sends.
const MAX_SPREAD: Duration = Duration::from_secs(3600);
/// The longest delay of the backoff.
const MAX_DELAY: Duration = Duration::from_secs(8);

/// Returns the wait that the server asks for.
/// That is `Retry-After` in seconds or as a date, else the `t` of an exhausted `RateLimit`
/// (draft-ietf-httpapi-ratelimit-headers): `"api";r=0;t=55`.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    if let Some(after) = header_text(headers, RETRY_AFTER.as_str()) {
        let seconds = after.parse().ok().map(Duration::from_secs);
        let until_date = || {
            let date = httpdate::parse_http_date(after).ok()?;
            Some(date.duration_since(now).unwrap_or_default())
        };

        if let Some(wait) = seconds.or_else(until_date) {
            return Some(wait);
        }
    }

    let limit = header_text(headers, "ratelimit")?;
    (parameter(limit, "r")? == 0)
        .then(|| parameter(limit, "t").map(Duration::from_secs))
        .flatten()
}

fn header_text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .map(str::trim)
}

/// Returns the number of a parameter such as `t` in `"api";r=0;t=55`.
fn parameter(header: &str, key: &str) -> Option<u64> {
    header.split([';', ',']).find_map(|part| {
        part.trim()
            .strip_prefix(key)?
            .strip_prefix('=')?
            .parse()
            .ok()
    })
}

/// Returns the wait before the next attempt: the longer of the server's wait and the backoff, plus
/// up to a tenth of the server's wait.
///
/// The extra tenth spreads the hosts of a fleet that all received the same wait.
pub(super) fn retry_delay(server_wait: Option<Duration>, attempt: u32, jitter: u64) -> Duration {
    let backoff = backoff_delay(attempt, jitter);
    server_wait.map_or(backoff, |server_wait| {
        let more = f64::from(u32::try_from(jitter % 1024).unwrap_or(0)) / 10_240.0;
        server_wait
            .max(backoff)
            .saturating_add(server_wait.min(MAX_SPREAD).mul_f64(more))
    })
}

/// Returns the wait before the next attempt after `attempt`, which counts from 1.
/// The wait doubles with every attempt. `jitter` picks a value between half of it and all of it.
pub(super) fn backoff_delay(attempt: u32, jitter: u64) -> Duration {
    let whole = FIRST_DELAY
        .saturating_mul(1 << attempt.saturating_sub(1).min(16))
        .min(MAX_DELAY);
    let half = whole / 2;
    half + half.mul_f64(f64::from(u32::try_from(jitter % 1024).unwrap_or(0)) / 1024.0)
}

/// Returns the jitter for [`backoff_delay`], different in each process and call. Hosts of a fleet
/// that restart together must not send requests together.
pub(super) fn jitter() -> u64 {
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
    fn retry_after_reads_each_form() {
        let now = humantime::parse_rfc3339("2026-10-21T07:27:00Z").expect("a time");
        let wait = |name, value| retry_after(&headers(name, value), now);
        assert_eq!(wait("retry-after", "17"), Some(Duration::from_secs(17)));

        assert_eq!(
            wait("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT"),
            Some(Duration::from_secs(60))
        );
        assert_eq!(
            wait("retry-after", "Wed, 21 Oct 2026 07:20:00 GMT"),
            Some(Duration::ZERO)
        );

        assert_eq!(
            wait("ratelimit", "\"api\";r=0;t=55"),
            Some(Duration::from_secs(55))
        );
        assert_eq!(wait("ratelimit", "\"api\";r=10;t=55"), None);

        for nonsense in ["soon", "-1", "Wed, 99 Foo 2026 x GMT", ""] {
            assert_eq!(wait("retry-after", nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn server_wait_is_kept_and_spread() {
        let server_wait = Some(Duration::from_secs(60));
        assert_eq!(retry_delay(server_wait, 1, 0), Duration::from_secs(60));
        assert!((61..=66).contains(&retry_delay(server_wait, 1, 512).as_secs()));

        assert!(
            retry_delay(Some(Duration::ZERO), 1, 0) >= FIRST_DELAY / 2,
            "a wait of zero still backs off"
        );
        assert_eq!(retry_delay(None, 2, 7), backoff_delay(2, 7));

        assert!(
            retry_delay(Some(Duration::MAX), 1, 0) >= Duration::from_secs(60),
            "no number is too large"
        );
    }

    #[test]
    fn delays_grow_up_to_a_maximum() {
        assert_eq!(backoff_delay(1, 0), Duration::from_millis(125));
        assert!(backoff_delay(1, 1023) <= FIRST_DELAY);
        assert!(backoff_delay(3, 0) >= Duration::from_millis(500));
        assert!(backoff_delay(u32::MAX, u64::MAX) <= MAX_DELAY);
    }
}
