//! Everyone is told.

use std::collections::HashSet;

use super::super::handle::BrokerStatus;
use super::BrokerActor;
use crate::leases::broker::attributed_event::{AttributedEvent, RequestId};
use crate::leases::clock::Now;
use crate::leases::event::Event;
use crate::leases::holder::ProcessIdentity;
use crate::leases::lease::Lease;
use crate::leases::queue::Ticket;

impl BrokerActor {
    /// Takes up what has happened since this was last called: by the errand of `request_id`, or of
    /// itself. A wait that ended is its own request's matter whatever ended it.
    pub(super) fn gather(&mut self, request_id: Option<&RequestId>) {
        for event in self
            .keeper
            .drain_events()
            .into_iter()
            .chain(self.queue.drain_events())
        {
            let whose = match &event {
                Event::WaitEnded { ticket, .. } => {
                    self.waits_ended = self.waits_ended.saturating_add(1);
                    let waiting = self
                        .in_line
                        .get(&Ticket(*ticket))
                        .map(|case| &case.ask.request_id);
                    waiting.or(request_id)
                }
                _ => request_id,
            };

            self.happened.push(AttributedEvent::after(event, whose));
        }
    }

    /// Adds the grants of the last run that it did not come to tell of: it was killed after the
    /// lease was on disk. A client that asks again with its key gets that lease, and there would be
    /// no event of it.
    pub(super) fn tell_of_restored(&mut self) {
        self.gather(None);
        let ended: HashSet<&str> = self
            .happened
            .iter()
            .filter(|happened| matches!(happened.event, Event::Ended { .. }))
            .filter_map(|happened| happened.event.subject())
            .map(|subject| subject.lease.as_str())
            .collect();

        let ledger = self.keeper.ledger();
        let ended_now = ledger
            .ended()
            .filter(|lease| ended.contains(lease.id.as_str()));

        self.log.restore(ledger.live());
        let untold = self.log.untold(ledger.live().chain(ended_now));
        self.happened.splice(0..0, untold);
    }

    /// Tells everyone what happened, and forgets what nobody needs.
    pub(super) fn pass_on(&mut self) {
        self.gather(None);
        let all = std::mem::take(&mut self.happened);
        let happened = !all.is_empty();
        self.log.tell(all, Now::read());
        let ledger = self.keeper.ledger();
        if happened {
            self.given
                .retain(|id, _| ledger.get(id).is_some_and(Lease::is_live));
        }

        let cases = self
            .new
            .iter()
            .chain(self.at_reading.iter())
            .chain(self.in_line.values());

        let needed: HashSet<ProcessIdentity> = ledger
            .live()
            .filter_map(|lease| lease.holder.process)
            .chain(cases.filter_map(|case| case.holder.process))
            .collect();
        self.deaths.keep_only(&needed);
        let mut counters = self.keeper.counters();
        counters.waits_ended = self.waits_ended;

        let standing = BrokerStatus {
            leased: self.leased.clone(),
            leases: ledger.live().count(),
            waiting: self.queue.len(),
            counters,
            behind: self.keeper.is_behind(),
            blind: self.keeper.blind(Now::read()).cloned(),
        };

        self.standing.send_if_modified(|known| {
            let changed = *known != standing;
            if changed {
                *known = standing;
            }
            changed
        });

        self.deliveries.send();
    }
}
