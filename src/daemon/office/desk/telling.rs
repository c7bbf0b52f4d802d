//! Everyone is told.

use std::collections::HashSet;

use super::super::handle::Standing;
use super::Desk;
use crate::leases::event::Event;
use crate::leases::holder::ProcessIdentity;
use crate::leases::lease::Lease;
use crate::leases::moment::Now;

impl Desk {
    /// Tells everyone what happened, and forgets what nobody needs.
    pub(super) fn pass_on(&mut self) {
        let mut events = self.keeper.drain_events();
        let line = self.queue.drain_events();
        let ended = line.iter().filter(|event| matches!(event, Event::WaitEnded { .. })).count();
        self.waits_ended = self.waits_ended.saturating_add(u64::try_from(ended).unwrap_or(u64::MAX));
        events.extend(line);
        let happened = !events.is_empty();
        self.log.tell(events, Now::read());
        let ledger = self.keeper.ledger();
        if happened {
            self.given.retain(|id, _| ledger.get(id).is_some_and(Lease::is_live));
        }
        let cases = self.new.iter().chain(self.at_reading.iter()).chain(self.in_line.values());
        let needed: HashSet<ProcessIdentity> = ledger
            .live()
            .filter_map(|lease| lease.holder.process)
            .chain(cases.filter_map(|case| case.holder.process))
            .collect();
        self.deaths.keep_only(&needed);
        let mut counters = self.keeper.counters();
        counters.waits_ended = self.waits_ended;
        let standing = Standing {
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
