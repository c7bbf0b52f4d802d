//! Limits how much of one user's leases the journal and the log record. A user who takes and
//! releases leases in a loop must not displace what others look for after an out-of-memory.
//!
//! The limiter records every lease that stays alive, if later, and sooner once its memory is seen.
//! Beyond a user's budget it leaves out three things: leases that came and went before their memory
//! was seen, waits, and memory that comes and goes under leases. It reports how many events it left
//! out. It leaves out renewals first and without a report, because they change nothing that is
//! known. Lines about moved memory have a budget of the same size; the next line includes what
//! moved meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::{AttributedEvent, RequestId};
use crate::leases::clock::Boottime;
use crate::leases::event::{Event, Subject};

/// Burst: events of one user that are recorded at once. Twice the number of leases that the
/// built-in quota lets a user hold.
const BURST: u32 = 128;
/// Refill interval: one more event per this time.
const REFILL_INTERVAL: Duration = Duration::from_secs(1);
/// Minimum time between two reports about one user's omitted events.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);
/// The account for memory of unknown users; no user has this number.
const UNKNOWN_UID: u32 = u32::MAX;
/// The most users, and omitted waits, that the limiter remembers.
const MAX_REMEMBERED: usize = 1024;

/// One user's budget.
#[derive(Debug)]
struct Account {
    /// The time until which the budget is spent, at one event per [`REFILL_INTERVAL`]. It is never
    /// more than [`BURST`] intervals ahead.
    spent_until: Boottime,
    /// The same for lines about memory.
    memory_until: Boottime,
    omitted: u64,
    reported_at: Option<Boottime>,
}

/// A live lease that is not recorded yet.
#[derive(Debug)]
struct PostponedGrant {
    lease: Subject,
    request_id: Option<RequestId>,
}

/// The budgets of all users and devices.
#[derive(Debug, Default)]
pub(super) struct EventRateLimiter {
    users: HashMap<u32, Account>,
    /// Live leases that are not recorded yet, in the order of their grants.
    postponed: Vec<PostponedGrant>,
    /// Users of waits that were not recorded, by ticket.
    omitted_waits: BTreeMap<u64, u32>,
    /// Per device: the time until which its budget for overdrawn lines is spent.
    overdrawn: BTreeMap<String, Boottime>,
}

impl EventRateLimiter {
    /// Whether to record an event now.
    pub(super) fn admit(&mut self, attributed: &AttributedEvent, now: Boottime) -> bool {
        match &attributed.event {
            Event::Granted(lease) => {
                // A postponed lease of the same user is recorded first.
                let first = !self
                    .postponed
                    .iter()
                    .any(|other| other.lease.uid == lease.uid);
                let admitted = first && self.spend(lease.uid, BURST, now);
                if !admitted {
                    self.postponed.push(PostponedGrant {
                        lease: lease.clone(),
                        request_id: attributed.request_id.clone(),
                    });
                }
                admitted
            }
            Event::Renewed(lease) => {
                let known = !self
                    .postponed
                    .iter()
                    .any(|other| other.lease.lease == lease.lease);
                known && self.spend(lease.uid, BURST / 2, now)
            }
            // This line includes all that a postponed grant's line would say, so it takes
            // precedence over other lines of its user.
            Event::Settling(lease) | Event::Settled(lease) | Event::Extended(lease) => {
                let is_postponed = self
                    .postponed
                    .iter()
                    .any(|other| other.lease.lease == lease.lease);
                let admitted =
                    self.spend(lease.uid, if is_postponed { 2 * BURST } else { BURST }, now);
                if admitted {
                    self.take_postponed(&lease.lease);
                } else if !is_postponed {
                    self.omit(lease.uid, 1, now);
                }
                admitted
            }
            Event::Ended { lease, .. } => {
                let unseen = self.take_postponed(&lease.lease);
                if unseen {
                    self.omit(lease.uid, 2, now);
                }
                !unseen
            }
            Event::Waiting { ticket, uid, .. } => {
                let admitted = self.spend(*uid, BURST, now);
                if !admitted {
                    self.omit(*uid, 1, now);
                    self.omitted_waits.insert(*ticket, *uid);
                    // A wait that ends with a lease has no event; the oldest are such waits.
                    if self.omitted_waits.len() > MAX_REMEMBERED {
                        self.omitted_waits.pop_first();
                    }
                }

                admitted
            }
            Event::WaitEnded { ticket, .. } => match self.omitted_waits.remove(ticket) {
                Some(uid) => {
                    self.omit(uid, 1, now);
                    false
                }
                None => true,
            },
            // The budget is the device's, whichever process takes and releases the memory.
            Event::Overdrawn { device, .. } | Event::Recovered { device } => spend(
                self.overdrawn.entry(device.clone()).or_insert(now),
                BURST,
                now,
            ),
            Event::Warning { .. } => true,
        }
    }

    /// Whether to record a line about this user's memory now.
    pub(super) fn admit_memory(&mut self, uid: Option<u32>, now: Boottime) -> bool {
        spend(
            &mut self.account(uid.unwrap_or(UNKNOWN_UID), now).memory_until,
            BURST,
            now,
        )
    }

    /// Takes the postponed grants that may be recorded by now, and the reports about omitted
    /// events.
    pub(super) fn take_due(&mut self, now: Boottime) -> Vec<AttributedEvent> {
        let mut due = Vec::new();
        for postponed in std::mem::take(&mut self.postponed) {
            if self.spend(postponed.lease.uid, BURST, now) {
                let PostponedGrant { lease, request_id } = postponed;
                due.push(AttributedEvent {
                    event: Event::Granted(lease),
                    request_id,
                });
            } else {
                self.postponed.push(postponed);
            }
        }

        for (uid, account) in &mut self.users {
            let reported_lately = account
                .reported_at
                .is_some_and(|reported_at| now.since(reported_at) < REPORT_INTERVAL);
            if account.omitted > 0 && !reported_lately {
                let message = format!(
                    "uid {uid} takes and releases leases too fast to record: {} events were \
                     omitted",
                    account.omitted
                );
                (account.omitted, account.reported_at) = (0, Some(now));
                due.push(Event::Warning { message }.into());
            }
        }

        due
    }

    /// Removes a lease from the postponed ones. Returns whether it was one of them.
    fn take_postponed(&mut self, lease: &str) -> bool {
        let index = self
            .postponed
            .iter()
            .position(|other| other.lease.lease == lease);
        index.map(|index| self.postponed.remove(index)).is_some()
    }

    fn spend(&mut self, uid: u32, burst: u32, now: Boottime) -> bool {
        spend(&mut self.account(uid, now).spent_until, burst, now)
    }

    fn omit(&mut self, uid: u32, events: u64, now: Boottime) {
        let account = self.account(uid, now);
        account.omitted = account.omitted.saturating_add(events);
    }

    fn account(&mut self, uid: u32, now: Boottime) -> &mut Account {
        if self.users.len() >= MAX_REMEMBERED && !self.users.contains_key(&uid) {
            self.users.retain(|_, account| {
                account.spent_until.max(account.memory_until) > now || account.omitted > 0
            });
        }

        let fresh = Account {
            spent_until: now,
            memory_until: now,
            omitted: 0,
            reported_at: None,
        };

        self.users.entry(uid).or_insert(fresh)
    }
}

/// Spends one event of a budget of `burst`. Returns whether the budget had one left.
fn spend(spent_until: &mut Boottime, burst: u32, now: Boottime) -> bool {
    let until = (*spent_until).max(now).after(REFILL_INTERVAL);
    let within = until.since(now) <= REFILL_INTERVAL * burst;
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

    /// Grants and releases leases of one user. Returns how many lines that made.
    fn churn(
        limiter: &mut EventRateLimiter,
        uid: u32,
        leases: std::ops::Range<u64>,
        now: Boottime,
    ) -> usize {
        let events = leases.flat_map(|number| [granted(uid, number), ended(uid, number)]);
        events.filter(|event| limiter.admit(event, now)).count()
    }

    #[test]
    fn churning_user_is_recorded_to_bound() {
        let mut limiter = EventRateLimiter::default();
        assert_eq!(
            churn(&mut limiter, 1, 0..1000, at(0)),
            256,
            "a grant that is recorded is recorded to its end"
        );

        assert_eq!(
            churn(&mut limiter, 2, 0..1, at(0)),
            2,
            "another user has its own budget"
        );
        let reports = limiter.take_due(at(0));
        assert!(
            matches!(reports.as_slice(), [AttributedEvent { event: Event::Warning { message }, .. }]
            if message.contains("uid 1 ") && message.contains("1744 events")),
            "{reports:?}"
        );

        // Each second allows one more event, and each minute one report.
        assert_eq!(churn(&mut limiter, 1, 1000..2000, at(10)), 20);
        assert!(limiter.take_due(at(10)).is_empty());
        assert_eq!(limiter.take_due(at(61)).len(), 1);

        assert_eq!(
            churn(&mut limiter, 1, 2000..3000, at(10_000)),
            256,
            "never more at once"
        );
    }

    #[test]
    fn live_lease_is_recorded_later() {
        let mut limiter = EventRateLimiter::default();
        churn(&mut limiter, 1, 0..500, at(0));

        for number in 500..503 {
            assert!(!limiter.admit(&granted(1, number), at(0)));
        }

        assert!(!limiter.admit(&Event::Renewed(subject(1, 501)).into(), at(0)));
        assert!(
            limiter.admit(&Event::Settling(subject(1, 501)).into(), at(0)),
            "its memory is seen: it is recorded at once"
        );
        assert!(!limiter.take_due(at(0)).contains(&granted(1, 500)));
        assert_eq!(limiter.take_due(at(2)), [granted(1, 500)]);
        assert_eq!(limiter.take_due(at(5)), [granted(1, 502)]);

        for number in 500..503 {
            assert!(
                limiter.admit(&ended(1, number), at(5)),
                "the end of a recorded lease is recorded"
            );
        }

        assert!(
            limiter.admit(&ended(1, 9_999), at(5)),
            "a lease of an earlier run"
        );
    }

    #[test]
    fn live_lease_precedes_later_churn() {
        let mut limiter = EventRateLimiter::default();
        churn(&mut limiter, 1, 0..500, at(0));
        assert!(!limiter.admit(&granted(1, 500), at(0)));

        let recorded = (1..10).any(|second| {
            churn(
                &mut limiter,
                1,
                1000 * second..1000 * second + 2,
                at(second),
            );
            limiter.take_due(at(second)).contains(&granted(1, 500))
        });
        assert!(recorded, "churn does not hide a live lease");
    }

    #[test]
    fn renewals_leave_budget_for_grants() {
        let mut limiter = EventRateLimiter::default();
        assert!(limiter.admit(&granted(1, 0), at(0)));
        let renewals =
            (0..500).filter(|_| limiter.admit(&Event::Renewed(subject(1, 0)).into(), at(0)));
        assert_eq!(renewals.count(), 63);
        assert!(
            limiter.take_due(at(0)).is_empty(),
            "omitted renewals are not reported"
        );
        assert_eq!(churn(&mut limiter, 1, 1..100, at(0)), 128);
    }

    #[test]
    fn waits_and_users_are_bounded() {
        let mut limiter = EventRateLimiter::default();
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
            .filter(|ticket| limiter.admit(&waiting(*ticket), at(0)))
            .count();
        assert_eq!(written, 128);
        assert!(limiter.admit(&left(0), at(0)) && !limiter.admit(&left(4_999), at(0)));
        assert!(limiter.omitted_waits.len() <= MAX_REMEMBERED);

        for uid in 0..5_000 {
            churn(&mut limiter, uid, 0..1, at(u64::from(uid) * 10));
        }

        assert!(limiter.users.len() <= MAX_REMEMBERED);
    }
}
