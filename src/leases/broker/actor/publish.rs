//! Publishing after each step: events, status, replies.

use std::collections::HashSet;

use super::super::handle::BrokerStatus;
use super::BrokerActor;
use crate::leases::broker::event_log::RequestId;
use crate::leases::clock::Timestamp;
use crate::leases::holder::ProcessIdentity;

impl BrokerActor {
    /// Collects the events since the last call: of the ledger after the command of `request_id`,
    /// and of the queue, which are each attributed to the request that waits.
    pub(super) fn collect_events(&mut self, request_id: Option<&RequestId>) {
        for event in self.ledger.drain_events() {
            self.events.collect(event, request_id);
        }

        for (event, request_id) in self.grants.drain_events() {
            self.events.collect(event, request_id.as_ref());
        }
    }

    /// Publishes events, status and replies, and plans the retry of failed writes. Forgets what no
    /// lease and no grant needs any more.
    pub(super) fn publish(&mut self) {
        self.collect_events(None);
        let any_event = self.events.publish(Timestamp::now());
        let ledger = self.ledger.ledger();
        if any_event {
            self.replies.forget_ended(ledger);
        }

        let needed: HashSet<ProcessIdentity> = ledger
            .live()
            .filter_map(|lease| lease.holder.process)
            .chain(self.grants.holders())
            .collect();
        self.holders.keep_only(&needed);

        let mut counters = self.ledger.counters();
        counters.waits_ended = self.events.waits_ended();

        let status = BrokerStatus {
            leased: self.readings.claims().clone(),
            leases: ledger.live().count(),
            waiting: self.grants.queue().len(),
            counters,
            behind: self.ledger.is_behind(),
            unreadable: self.ledger.unreadable(Timestamp::now()).cloned(),
        };

        self.replies.publish(status);
        self.events.plan_retry(self.ledger.is_behind());
    }
}
