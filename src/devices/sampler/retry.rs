//! The delays between attempts to open the driver.

use std::time::{Duration, Instant};

use super::SamplerOptions;
use crate::devices::error::DevicesError;
use crate::devices::nvml::Fingerprint;

/// The first delay between attempts to open a driver that fails as a whole.
///
/// An attempt is one failing `nvmlInit`, and attempts are made only while clients send requests.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(100);
/// The longest of these delays.
///
/// It is well below two seconds, so the sampler sees the end of a fault within two seconds.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(1);
/// The time for which an error that files can fix is retried at the delays above.
///
/// Only an installation, a loaded module or a reboot fixes such an error. Later attempts are
/// [`SLOW_RETRY_INTERVAL`] apart. A change of the module or of a library's file causes an attempt
/// at once; the sampler checks these files every [`MAX_RETRY_DELAY`].
const FREQUENT_RETRY_PERIOD: Duration = Duration::from_secs(60);
/// The interval of the later attempts.
const SLOW_RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// The first delay before the library is reopened for a GPU that is lost.
///
/// Reopening disturbs the healthy GPUs.
const MIN_REOPEN_DELAY: Duration = Duration::from_secs(2);
/// The longest of these delays.
const MAX_REOPEN_DELAY: Duration = Duration::from_secs(60);

/// An exponential backoff between two reopenings of the library.
pub(super) struct ReopenBackoff {
    delay: Duration,
    pub(super) until: Instant,
}

impl ReopenBackoff {
    pub(super) fn after(previous: Option<&Self>) -> Self {
        let delay = previous.map_or(MIN_REOPEN_DELAY, |previous| {
            previous.delay.saturating_mul(2).min(MAX_REOPEN_DELAY)
        });

        Self {
            delay,
            until: Instant::now() + delay,
        }
    }
}

/// An error that affects the whole driver.
pub(super) struct DriverFailure {
    pub(super) error: DevicesError,
    since: Instant,
    attempted: Instant,
    delay: Duration,
    /// The time of the next check.
    pub(super) next_check: Instant,
    /// The fingerprint of the driver at the last attempt.
    fingerprint: Fingerprint,
}

impl DriverFailure {
    pub(super) fn after(
        previous: Option<&Self>,
        error: DevicesError,
        options: &SamplerOptions,
    ) -> Self {
        let attempted = Instant::now();
        let delay = previous.map_or(MIN_RETRY_DELAY, |previous| {
            previous.delay.saturating_mul(2).min(MAX_RETRY_DELAY)
        });
        let since = previous.map_or(attempted, |previous| previous.since);
        let fingerprint = Fingerprint::of_search_paths(&options.nvml);

        Self {
            error,
            since,
            attempted,
            delay,
            next_check: attempted + delay,
            fingerprint,
        }
    }

    /// Whether a new attempt is due at `now`.
    pub(super) fn is_due(&mut self, options: &SamplerOptions, now: Instant) -> bool {
        if now < self.next_check {
            return false;
        }

        let needs_changed_files = matches!(
            self.error,
            DevicesError::Library { .. }
                | DevicesError::DriverNotLoaded
                | DevicesError::VersionMismatch
        );
        if !needs_changed_files
            || now.duration_since(self.since) < FREQUENT_RETRY_PERIOD
            || now.duration_since(self.attempted) >= SLOW_RETRY_INTERVAL
            || self.fingerprint != Fingerprint::of_search_paths(&options.nvml)
        {
            return true;
        }

        self.next_check = now + MAX_RETRY_DELAY;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::holders::HostRoots;
    use crate::devices::nvml::NvmlOptions;

    #[test]
    fn unchanged_files_delay_retry() {
        let folder = tempfile::tempdir().unwrap();
        let nvml = NvmlOptions {
            roots: HostRoots::under(folder.path()),
            ..NvmlOptions::default()
        };

        let options = SamplerOptions {
            nvml,
            ..SamplerOptions::default()
        };

        let old_failure = |error: DevicesError| {
            let now = Instant::now();
            let since = now.checked_sub(Duration::from_secs(600)).unwrap();
            let attempted = now.checked_sub(Duration::from_secs(5)).unwrap();

            DriverFailure {
                since,
                attempted,
                next_check: now,
                ..DriverFailure::after(None, error, &options)
            }
        };

        let mut failure = old_failure(DevicesError::VersionMismatch);
        let first_check = failure.next_check;
        assert!(!failure.is_due(&options, first_check));

        assert_eq!(
            failure.next_check,
            first_check + MAX_RETRY_DELAY,
            "the files are checked again later"
        );

        std::fs::create_dir_all(folder.path().join("proc/driver/nvidia")).unwrap();
        std::fs::write(
            folder.path().join("proc/driver/nvidia/version"),
            "NVRM version: 610.10",
        )
        .unwrap();

        assert!(
            failure.is_due(&options, first_check + MAX_RETRY_DELAY),
            "another module is loaded"
        );

        let mut denied = old_failure(DevicesError::NoPermission { call: "nvmlInit" });
        assert!(
            denied.is_due(&options, denied.next_check),
            "no file shows a change of permissions"
        );
    }

    #[test]
    fn retry_delay_grows_to_limit() {
        let options = SamplerOptions::default();
        let mut failure = DriverFailure::after(None, DevicesError::VersionMismatch, &options);
        let since = failure.since;
        assert!(!failure.is_due(&options, failure.attempted));

        for _ in 0..8 {
            failure = DriverFailure::after(Some(&failure), DevicesError::VersionMismatch, &options);
        }

        assert_eq!((failure.delay, failure.since), (MAX_RETRY_DELAY, since));
        assert_eq!(failure.next_check, failure.attempted + MAX_RETRY_DELAY);

        // The duration of the attempts does not matter.
        failure.next_check = since + MAX_RETRY_DELAY;
        assert!(failure.is_due(&options, since + MAX_RETRY_DELAY));
    }
}
