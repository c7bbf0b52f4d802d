//! Rate-limited logging of state transitions: each transition is logged once, and the log of a
//! state that flaps stays readable.

use std::time::{Duration, Instant};

/// How many transitions are logged at once.
const BURST: u32 = 8;
/// The interval after which one more transition is logged.
const REFILL_INTERVAL: Duration = Duration::from_secs(300);

/// The transitions of one thing, whose state is the word for its fault. `None` means no fault, as
/// assumed at the start.
#[derive(Clone, Debug, Default)]
pub(crate) struct TransitionLog {
    /// The last transition that was logged.
    logged: Option<LoggedState>,
    /// The last state that was seen.
    seen: Option<String>,
    /// Until when the budget is spent, at one transition per [`REFILL_INTERVAL`]. It is never more
    /// than [`BURST`] intervals ahead.
    spent_until: Option<Instant>,
    omitted: u64,
}

#[derive(Clone, Debug)]
struct LoggedState {
    fault: Option<String>,
    at: Instant,
}

/// A transition to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transition {
    /// How long the previously logged state lasted; `None` if none was logged.
    pub(crate) after: Option<Duration>,
    /// How many transitions since then were not logged because there were too many; `None`: none.
    pub(crate) left_out: Option<u64>,
}

impl TransitionLog {
    /// Records the fault at `now`. Returns the transition if it is to be logged.
    pub(crate) fn record(&mut self, fault: Option<&str>, now: Instant) -> Option<Transition> {
        let changed = self.seen.as_deref() != fault;
        if changed {
            self.seen = fault.map(str::to_owned);
        }

        if self.fault() == fault {
            self.omitted = self.omitted.saturating_add(u64::from(changed));
            return None;
        }

        let until = self.spent_until.map_or(now, |until| until.max(now)) + REFILL_INTERVAL;
        if until.duration_since(now) > REFILL_INTERVAL * BURST {
            self.omitted = self.omitted.saturating_add(u64::from(changed));
            return None;
        }

        self.spent_until = Some(until);
        let before = self.logged.replace(LoggedState {
            fault: fault.map(str::to_owned),
            at: now,
        });
        let after = before.map(|before| now.duration_since(before.at));
        let omitted = Some(std::mem::take(&mut self.omitted)).filter(|count| *count > 0);

        Some(Transition {
            after,
            left_out: omitted,
        })
    }

    /// The fault as last logged.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.logged
            .as_ref()
            .and_then(|state| state.fault.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_transition_is_logged_once() {
        let (start, mut log) = (Instant::now(), TransitionLog::default());
        let at = |seconds| start + Duration::from_secs(seconds);

        let logged_after = |after: Option<u64>| {
            Some(Transition {
                after: after.map(Duration::from_secs),
                left_out: None,
            })
        };

        assert_eq!(log.record(None, at(0)), None, "no fault at the start");
        assert_eq!(log.record(Some("lost"), at(5)), logged_after(None));
        assert_eq!(log.record(Some("lost"), at(6)), None);
        assert_eq!(log.record(Some("hung"), at(8)), logged_after(Some(3)));
        assert_eq!(log.record(None, at(18)), logged_after(Some(10)));
        assert_eq!(log.record(None, at(19)), None);
    }

    #[test]
    fn flapping_state_is_logged_to_bound() {
        let (start, mut log) = (Instant::now(), TransitionLog::default());
        let count_logged = |log: &mut TransitionLog, from: u64, count: u64| {
            let flap = |second: u64| {
                log.record(
                    second.is_multiple_of(2).then_some("lost"),
                    start + Duration::from_secs(second),
                )
            };
            (from..from + count).filter_map(flap).collect::<Vec<_>>()
        };

        assert_eq!(count_logged(&mut log, 0, 200).len(), 8);
        assert_eq!(log.fault(), None);

        assert_eq!(
            count_logged(&mut log, 350, 100).len(),
            1,
            "one more after a while"
        );

        let last = log
            .record(Some("hung"), start + Duration::from_secs(10_000))
            .unwrap();
        assert_eq!(last.left_out, Some(99));
        assert_eq!(log.fault(), Some("hung"));
    }
}
