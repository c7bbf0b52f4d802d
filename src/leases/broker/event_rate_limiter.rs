//! How much of one user's coming and going is written down: whoever takes and gives back leases in
//! a loop must not wash out what others look for after an out-of-memory.
//!
//! A lease that lives is written down in any case, if later, and sooner when its memory is seen.
//! What is left out are leases that came and went unseen, waits, and memory that comes and goes
//! under leases, each beyond the budget; how many is said. Renewals, which change nothing of what
//! is known, are left out in silence and before the rest. Memory that moves is written down as
//! often, and what moved meanwhile is in the next line.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::attributed_event::{AttributedEvent, RequestId};
use crate::leases::clock::Boottime;
use crate::leases::event::{Event, Subject};

/// Events of one user that are written down at once. Twice as many as it may hold leases, as the
/// built-in quota has it.
const AT_ONCE: u32 = 128;
/// How often one more is.
const ONE_EACH: Duration = Duration::from_secs(1);
/// How often it is said of one user what was left out.
const TOLD_EACH: Duration = Duration::from_secs(60);
/// Whose memory it is that nobody is known to hold; no user has this number.
const UNKNOWN_UID: u32 = u32::MAX;
/// The most users, and waits left out, that are kept in mind.
const MOST_KEPT: usize = 1024;

/// One user's.
#[derive(Debug)]
struct Account {
    /// Until when the budget is spent, at [`ONE_EACH`]: never further ahead than [`AT_ONCE`] of
    /// them.
    spent_until: Boottime,
    /// The same for lines about memory.
    memory_until: Boottime,
    left_out: u64,
    told_at: Option<Boottime>,
}

/// A lease that is alive and not yet written down.
#[derive(Debug)]
struct PendingEntry {
    lease: Subject,
    request_id: Option<RequestId>,
}

/// Everybody's.
#[derive(Debug, Default)]
pub(super) struct EventRateLimiter {
    users: HashMap<u32, Account>,
    /// Leases that are alive and not yet written down, in order.
    put_off: Vec<PendingEntry>,
    /// Who waits without that being written down, by ticket.
    waits: BTreeMap<u64, u32>,
    /// Until when the budget of a device is spent for lines on promises that others took.
    overdrawn: BTreeMap<String, Boottime>,
}

impl EventRateLimiter {
    /// Whether an event is written down now.
    pub(super) fn admits(&mut self, happened: &AttributedEvent, now: Boottime) -> bool {
        match &happened.event {
            Event::Granted(lease) => {
                // One that lives and waits to be written down comes before.
                let first = !self
                    .put_off
                    .iter()
                    .any(|other| other.lease.uid == lease.uid);
                let admitted = first && self.spend(lease.uid, AT_ONCE, now);
                if !admitted {
                    self.put_off.push(PendingEntry {
                        lease: lease.clone(),
                        request_id: happened.request_id.clone(),
                    });
                }
                admitted
            }
            Event::Renewed(lease) => {
                let known = !self
                    .put_off
                    .iter()
                    .any(|other| other.lease.lease == lease.lease);
                known && self.spend(lease.uid, AT_ONCE / 2, now)
            }
            // Memory was seen: this line says all that the one before would have, and comes before
            // other lines of its user.
            Event::Settling(lease) | Event::Settled(lease) | Event::Extended(lease) => {
                let waits = self
                    .put_off
                    .iter()
                    .any(|other| other.lease.lease == lease.lease);
                let admitted =
                    self.spend(lease.uid, if waits { 2 * AT_ONCE } else { AT_ONCE }, now);
                if admitted {
                    self.is_put_off(&lease.lease);
                } else if !waits {
                    self.leave_out(lease.uid, 1, now);
                }
                admitted
            }
            Event::Ended { lease, .. } => {
                let unseen = self.is_put_off(&lease.lease);
                if unseen {
                    self.leave_out(lease.uid, 2, now);
                }
                !unseen
            }
            Event::Waiting { ticket, uid, .. } => {
                let admitted = self.spend(*uid, AT_ONCE, now);
                if !admitted {
                    self.leave_out(*uid, 1, now);
                    self.waits.insert(*ticket, *uid);
                    // One that was served ends without a word; the oldest are those.
                    if self.waits.len() > MOST_KEPT {
                        self.waits.pop_first();
                    }
                }

                admitted
            }
            Event::WaitEnded { ticket, .. } => match self.waits.remove(ticket) {
                Some(uid) => {
                    self.leave_out(uid, 1, now);
                    false
                }
                None => true,
            },
            // Of each device, whoever takes it and gives it back.
            Event::Overdrawn { device, .. } | Event::Recovered { device } => spend(
                self.overdrawn.entry(device.clone()).or_insert(now),
                AT_ONCE,
                now,
            ),
            Event::Warning { .. } => true,
        }
    }

    /// Whether a line about memory that this user holds is written down now.
    pub(super) fn admits_memory(&mut self, uid: Option<u32>, now: Boottime) -> bool {
        spend(
            &mut self.account(uid.unwrap_or(UNKNOWN_UID), now).memory_until,
            AT_ONCE,
            now,
        )
    }

    /// What was put off and may be written down by now, and what is to be said of what was left
    /// out.
    pub(super) fn due(&mut self, now: Boottime) -> Vec<AttributedEvent> {
        let mut due = Vec::new();
        for put_off in std::mem::take(&mut self.put_off) {
            if self.spend(put_off.lease.uid, AT_ONCE, now) {
                let PendingEntry { lease, request_id } = put_off;
                due.push(AttributedEvent {
                    event: Event::Granted(lease),
                    request_id,
                });
            } else {
                self.put_off.push(put_off);
            }
        }

        for (uid, account) in &mut self.users {
            let told = account
                .told_at
                .is_some_and(|told| now.since(told) < TOLD_EACH);
            if account.left_out > 0 && !told {
                let message = format!(
                    "uid {uid} takes and gives back leases faster than is written down: {} events were left out",
                    account.left_out
                );
                (account.left_out, account.told_at) = (0, Some(now));
                due.push(Event::Warning { message }.into());
            }
        }

        due
    }

    /// Whether a lease was waiting to be written down; it is no more.
    fn is_put_off(&mut self, lease: &str) -> bool {
        let place = self
            .put_off
            .iter()
            .position(|other| other.lease.lease == lease);
        place.map(|place| self.put_off.remove(place)).is_some()
    }

    fn spend(&mut self, uid: u32, most: u32, now: Boottime) -> bool {
        spend(&mut self.account(uid, now).spent_until, most, now)
    }

    fn leave_out(&mut self, uid: u32, events: u64, now: Boottime) {
        let account = self.account(uid, now);
        account.left_out = account.left_out.saturating_add(events);
    }

    fn account(&mut self, uid: u32, now: Boottime) -> &mut Account {
        if self.users.len() >= MOST_KEPT && !self.users.contains_key(&uid) {
            self.users.retain(|_, account| {
                account.spent_until.max(account.memory_until) > now || account.left_out > 0
            });
        }

        let fresh = Account {
            spent_until: now,
            memory_until: now,
            left_out: 0,
            told_at: None,
        };

        self.users.entry(uid).or_insert(fresh)
    }
}

/// Takes one of `most` that may be spent at once, where there is one.
fn spend(spent_until: &mut Boottime, most: u32, now: Boottime) -> bool {
    let until = (*spent_until).max(now).after(ONE_EACH);
    let within = until.since(now) <= ONE_EACH * most;
    if within {
        *spent_until = until;
    }
    within
}

#[cfg(test)]
mod tests {
    use super::*;
    use hf_mem_core::report::lease::EndReason;

    fn at(seconds: u64) -> Boottime {
        Boottime::from_millis(1_000_000 + seconds * 1000)
    }

    fn subject(uid: u32, number: u64) -> Subject {
        Subject {
            lease: format!("{uid}-{number}"),
            uid,
            pid: None,
            name: None,
            model: "m".to_owned(),
            granted_bytes: BTreeMap::new(),
            visible_bytes: BTreeMap::new(),
        }
    }

    fn granted(uid: u32, number: u64) -> AttributedEvent {
        Event::Granted(subject(uid, number)).into()
    }

    fn ended(uid: u32, number: u64) -> AttributedEvent {
        Event::Ended {
            lease: subject(uid, number),
            reason: EndReason::ByOwner,
        }
        .into()
    }

    /// So many leases of one user, each given back at once; how many lines that made.
    fn churn(
        budget: &mut EventRateLimiter,
        uid: u32,
        leases: std::ops::Range<u64>,
        now: Boottime,
    ) -> usize {
        let events = leases.flat_map(|number| [granted(uid, number), ended(uid, number)]);
        events.filter(|event| budget.admits(event, now)).count()
    }

    #[test]
    fn one_who_takes_and_gives_back_in_a_loop_is_written_down_to_a_bound_and_others_are_not_touched()
     {
        let mut budget = EventRateLimiter::default();
        assert_eq!(
            churn(&mut budget, 1, 0..1000, at(0)),
            256,
            "each that is written is written to its end"
        );

        assert_eq!(churn(&mut budget, 2, 0..1, at(0)), 2);
        let told = budget.due(at(0));
        assert!(
            matches!(told.as_slice(), [AttributedEvent { event: Event::Warning { message }, .. }]
            if message.contains("uid 1 ") && message.contains("1744 events")),
            "{told:?}"
        );

        // One more each second, and one word each minute.
        assert_eq!(churn(&mut budget, 1, 1000..2000, at(10)), 20);
        assert!(budget.due(at(10)).is_empty());
        assert_eq!(budget.due(at(61)).len(), 1);

        assert_eq!(
            churn(&mut budget, 1, 2000..3000, at(10_000)),
            256,
            "never more at once"
        );
    }

    #[test]
    fn a_lease_that_lives_is_written_down_later_or_when_its_memory_is_seen() {
        let mut budget = EventRateLimiter::default();
        churn(&mut budget, 1, 0..500, at(0));

        for number in 500..503 {
            assert!(!budget.admits(&granted(1, number), at(0)));
        }

        assert!(!budget.admits(&Event::Renewed(subject(1, 501)).into(), at(0)));
        assert!(
            budget.admits(&Event::Settling(subject(1, 501)).into(), at(0)),
            "memory is seen"
        );
        assert!(!budget.due(at(0)).contains(&granted(1, 500)));
        assert_eq!(budget.due(at(2)), [granted(1, 500)]);
        assert_eq!(budget.due(at(5)), [granted(1, 502)]);

        for number in 500..503 {
            assert!(
                budget.admits(&ended(1, number), at(5)),
                "what is known to begin is known to end"
            );
        }

        assert!(budget.admits(&ended(1, 9_999), at(5)), "of an earlier run");
    }

    #[test]
    fn a_lease_that_lives_is_written_down_before_those_that_come_and_go_after_it() {
        let mut budget = EventRateLimiter::default();
        churn(&mut budget, 1, 0..500, at(0));
        assert!(!budget.admits(&granted(1, 500), at(0)));

        let written = (1..10).any(|second| {
            churn(&mut budget, 1, 1000 * second..1000 * second + 2, at(second));
            budget.due(at(second)).contains(&granted(1, 500))
        });
        assert!(written, "whoever churns hides nothing");
    }

    #[test]
    fn renewals_leave_room_for_what_matters_and_are_not_told_of() {
        let mut budget = EventRateLimiter::default();
        assert!(budget.admits(&granted(1, 0), at(0)));
        let renewals =
            (0..500).filter(|_| budget.admits(&Event::Renewed(subject(1, 0)).into(), at(0)));
        assert_eq!(renewals.count(), 63);
        assert!(budget.due(at(0)).is_empty());
        assert_eq!(churn(&mut budget, 1, 1..100, at(0)), 128);
    }

    #[test]
    fn waits_are_bounded_too_and_nothing_is_kept_for_ever() {
        let mut budget = EventRateLimiter::default();
        let waiting = |ticket| {
            AttributedEvent::from(Event::Waiting {
                ticket,
                uid: 1,
                position: 1,
            })
        };

        let left = |ticket| {
            AttributedEvent::from(Event::WaitEnded {
                ticket,
                timed_out: false,
            })
        };

        let written = (0..5_000)
            .filter(|ticket| budget.admits(&waiting(*ticket), at(0)))
            .count();
        assert_eq!(written, 128);
        assert!(budget.admits(&left(0), at(0)) && !budget.admits(&left(4_999), at(0)));
        assert!(budget.waits.len() <= MOST_KEPT);

        for uid in 0..5_000 {
            churn(&mut budget, uid, 0..1, at(u64::from(uid) * 10));
        }

        assert!(budget.users.len() <= MOST_KEPT);
    }
}
