//! Logs when a part of the daemon degrades or recovers, once for each change.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::health::PartTrouble;
use crate::api::status::DaemonPart;
use crate::lock_ignoring_poison::lock_ignoring_poison;
use crate::transition_log::{Transition, TransitionLog};

/// The last logged state of each part.
#[derive(Debug, Default)]
pub(super) struct HealthLog {
    any_degraded: AtomicBool,
    parts: Mutex<[TransitionLog; DaemonPart::ALL.len()]>,
}

impl HealthLog {
    /// Returns whether a part was logged as degraded and not yet as recovered.
    pub(super) fn any_degraded(&self) -> bool {
        self.any_degraded.load(Ordering::Relaxed)
    }

    /// Logs the parts that have changed by `now`.
    pub(super) fn record(&self, parts: &[(DaemonPart, Option<PartTrouble>)], now: Instant) {
        let mut any_degraded = false;
        for (part, trouble) in parts {
            let cause = trouble.as_ref().map(|trouble| trouble.cause.as_str());
            let transition = {
                // Each log is valid by itself at every moment. The lock is released before the log
                // line is written.
                let mut logs = lock_ignoring_poison(&self.parts);
                let log = &mut logs[*part as usize];
                let transition = log.record(cause, now);
                any_degraded |= log.fault().is_some();
                transition
            };

            let Some(Transition { after, left_out }) = transition else {
                continue;
            };

            let part = part.word();
            if let Some(PartTrouble { cause, why }) = trouble {
                tracing::warn!(
                    part,
                    cause,
                    why,
                    left_out,
                    "a part of the daemon is degraded"
                );
            } else {
                let after_seconds = after.map(|after| after.as_secs());
                tracing::info!(
                    part,
                    after_seconds,
                    left_out,
                    "a part of the daemon has recovered"
                );
            }
        }

        self.any_degraded.store(any_degraded, Ordering::Relaxed);
    }
}
