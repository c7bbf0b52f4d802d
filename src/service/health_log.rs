//! Parts of the daemon that are not well any more, or well again, told to the log: each turn once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::health::PartTrouble;
use crate::api::status::DaemonPart;
use crate::transition_log::{Transition, TransitionLog};

/// What was told of each part.
#[derive(Debug, Default)]
pub(super) struct HealthLog {
    /// Whether anything was told to be wrong that has not turned since.
    any_wrong: AtomicBool,
    told: Mutex<[TransitionLog; DaemonPart::ALL.len()]>,
}

impl HealthLog {
    /// Whether there is a turn for the better to be looked for.
    pub(super) fn any_wrong(&self) -> bool {
        self.any_wrong.load(Ordering::Relaxed)
    }

    /// Tells what has turned by `now`.
    pub(super) fn tell(&self, parts: &[(DaemonPart, Option<PartTrouble>)], now: Instant) {
        let mut any_wrong = false;
        for (part, trouble) in parts {
            let cause = trouble.as_ref().map(|trouble| trouble.cause.as_str());
            let turn = {
                // Each is valid by itself at every moment. Nothing is held while the log is
                // written.
                let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                let told = &mut told[*part as usize];
                let turn = told.record(cause, now);
                any_wrong |= told.fault().is_some();
                turn
            };

            let Some(Transition { after, left_out }) = turn else {
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
                    "a part of the daemon is well again"
                );
            }
        }

        self.any_wrong.store(any_wrong, Ordering::Relaxed);
    }
}
