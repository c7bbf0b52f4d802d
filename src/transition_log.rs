//! What was told last of something that comes and goes: each turn is told once, and of one that
//! flaps no more than a reader of the log can bear.

use std::time::{Duration, Instant};

/// Turns that are told at once.
const AT_ONCE: u32 = 8;
/// How often one more is.
const ONE_EACH: Duration = Duration::from_secs(300);

/// What was told last of one thing, as the word for what is wrong with it. `None`: all is well, as
/// it is taken to be at the start.
#[derive(Clone, Debug, Default)]
pub(crate) struct TransitionLog {
    last: Option<Turned>,
    seen: Option<String>,
    /// Until when the budget is spent, at [`ONE_EACH`]: never further ahead than [`AT_ONCE`] of
    /// them.
    spent_until: Option<Instant>,
    left_out: u64,
}

#[derive(Clone, Debug)]
struct Turned {
    wrong: Option<String>,
    at: Instant,
}

/// A turn that is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transition {
    /// For how long it was as it was told before; `None` where nothing was.
    pub(crate) after: Option<Duration>,
    /// Turns since then that were not told, because there were too many; `None`: all were.
    pub(crate) left_out: Option<u64>,
}

impl TransitionLog {
    /// Takes note of what is wrong at `now`. What comes back is to be told.
    pub(crate) fn note(&mut self, wrong: Option<&str>, now: Instant) -> Option<Transition> {
        let turned = self.seen.as_deref() != wrong;
        if turned {
            self.seen = wrong.map(str::to_owned);
        }

        if self.wrong() == wrong {
            self.left_out = self.left_out.saturating_add(u64::from(turned));
            return None;
        }

        let until = self.spent_until.map_or(now, |until| until.max(now)) + ONE_EACH;
        if until.duration_since(now) > ONE_EACH * AT_ONCE {
            self.left_out = self.left_out.saturating_add(u64::from(turned));
            return None;
        }

        self.spent_until = Some(until);
        let before = self.last.replace(Turned {
            wrong: wrong.map(str::to_owned),
            at: now,
        });
        let after = before.map(|before| now.duration_since(before.at));
        let left_out = Some(std::mem::take(&mut self.left_out)).filter(|count| *count > 0);

        Some(Transition { after, left_out })
    }

    /// What was told last to be wrong.
    pub(crate) fn wrong(&self) -> Option<&str> {
        self.last.as_ref().and_then(|last| last.wrong.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_turn_is_told_once_and_another_wrong_is_a_turn_too() {
        let (start, mut told) = (Instant::now(), TransitionLog::default());
        let at = |seconds| start + Duration::from_secs(seconds);

        let turn = |after: Option<u64>| {
            Some(Transition {
                after: after.map(Duration::from_secs),
                left_out: None,
            })
        };

        assert_eq!(told.note(None, at(0)), None, "all is well at the start");
        assert_eq!(told.note(Some("lost"), at(5)), turn(None));
        assert_eq!(told.note(Some("lost"), at(6)), None);
        assert_eq!(told.note(Some("hung"), at(8)), turn(Some(3)));
        assert_eq!(told.note(None, at(18)), turn(Some(10)));
        assert_eq!(told.note(None, at(19)), None);
    }

    #[test]
    fn one_that_flaps_is_told_to_a_bound_and_in_the_end_as_it_is() {
        let (start, mut told) = (Instant::now(), TransitionLog::default());
        let turns = |told: &mut TransitionLog, from: u64, count: u64| {
            let flap = |second: u64| {
                told.note(
                    second.is_multiple_of(2).then_some("lost"),
                    start + Duration::from_secs(second),
                )
            };
            (from..from + count).filter_map(flap).collect::<Vec<_>>()
        };

        assert_eq!(turns(&mut told, 0, 200).len(), 8);
        assert_eq!(told.wrong(), None);

        assert_eq!(
            turns(&mut told, 350, 100).len(),
            1,
            "one more after a while"
        );

        let last = told
            .note(Some("hung"), start + Duration::from_secs(10_000))
            .unwrap();
        assert_eq!(last.left_out, Some(99));
        assert_eq!(told.wrong(), Some("hung"));
    }
}
