//! Answers on their way to their askers. A lease is given back once every answer that carried it
//! was lost: one that asks again with its key while the first answer is lost keeps it.

use std::collections::HashMap;

use hf_mem_core::report::Answer;
use tokio::sync::{mpsc, oneshot};

use crate::leases::broker::attributed_event::RequestId;
use crate::leases::broker::commands::BrokerNotice;
use crate::leases::broker::pending_reply::PendingReply;

/// Where answers go.
type Asker = oneshot::Sender<PendingReply>;

/// The answers that carry one lease.
#[derive(Debug)]
struct OfLease {
    under_way: usize,
    /// Whether one reached its asker.
    taken: bool,
    /// Whose answer carried it last.
    last_request: RequestId,
}

/// Answers on their way.
#[derive(Debug)]
pub(super) struct PendingReplies {
    notes: mpsc::UnboundedSender<BrokerNotice>,
    /// Sent once the standing shows what they say.
    outbox: Vec<(Asker, PendingReply)>,
    leases: HashMap<String, OfLease>,
}

impl PendingReplies {
    pub(super) fn new(notes: mpsc::UnboundedSender<BrokerNotice>) -> Self {
        Self {
            notes,
            outbox: Vec::new(),
            leases: HashMap::new(),
        }
    }

    /// An answer that promises nothing.
    pub(super) fn plain(&mut self, asker: Asker, delivery: PendingReply) {
        self.outbox.push((asker, delivery));
    }

    /// An answer that carries a lease; `new` where nobody was ever told of it.
    pub(super) fn lease(
        &mut self,
        (asker, request): (Asker, RequestId),
        answer: Answer,
        lease: String,
        new: bool,
    ) {
        let last_request = RequestId::clone(&request);
        let of_lease = self.leases.entry(lease.clone()).or_insert(OfLease {
            under_way: 0,
            taken: !new,
            last_request,
        });

        of_lease.last_request = request;
        of_lease.under_way = of_lease.under_way.saturating_add(1);

        self.outbox.push((
            asker,
            PendingReply::with_lease(answer, lease, self.notes.clone()),
        ));
    }

    /// Sends what is in the outbox. To one that hung up nothing is sent: the delivery's own end
    /// tells.
    pub(super) fn send(&mut self) {
        for (asker, delivery) in self.outbox.drain(..) {
            let _hung_up = asker.send(delivery);
        }
    }

    /// The request whose answer carried `lease` last, while one is on its way.
    pub(super) fn last_request(&self, lease: &str) -> Option<RequestId> {
        self.leases
            .get(lease)
            .map(|of_lease| RequestId::clone(&of_lease.last_request))
    }

    /// An answer was taken or lost; whether its lease is now nobody's.
    pub(super) fn ended(&mut self, lease: &str, taken: bool) -> bool {
        let Some(of_lease) = self.leases.get_mut(lease) else {
            return false;
        };

        of_lease.taken |= taken;
        of_lease.under_way = of_lease.under_way.saturating_sub(1);

        if of_lease.under_way > 0 {
            return false;
        }

        let lost = !of_lease.taken;
        self.leases.remove(lease);

        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_nobodys_only_when_all_its_answers_were_lost() {
        let (notes, _kept) = mpsc::unbounded_channel();
        let mut deliveries = PendingReplies::new(notes);
        let asker = || (oneshot::channel().0, RequestId::from("r"));
        deliveries.lease(asker(), Answer::default(), "a".to_owned(), true);
        deliveries.lease(asker(), Answer::default(), "a".to_owned(), false);

        assert!(
            !deliveries.ended("a", false),
            "another answer is on its way"
        );
        assert!(!deliveries.ended("a", true));
        assert!(!deliveries.ended("a", false), "not known any more");
        deliveries.lease(asker(), Answer::default(), "a".to_owned(), false);
        assert!(!deliveries.ended("a", false), "somebody has it from before");
        deliveries.lease(asker(), Answer::default(), "b".to_owned(), true);
        deliveries.lease(asker(), Answer::default(), "b".to_owned(), false);
        assert!(!deliveries.ended("b", false));
        assert!(deliveries.ended("b", false), "both were lost");
    }
}
