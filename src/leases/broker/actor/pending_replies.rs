//! Replies that are not delivered yet, and the published status.
//!
//! A reply is sent only once the published status includes what it says. A lease is released when
//! every reply that carried it was lost. A client that repeats its idempotency key while the first
//! reply is lost keeps the lease.

use std::collections::HashMap;

use hf_mem_core::report::Answer;
use tokio::sync::{mpsc, oneshot, watch};

use crate::admission::server_limits::MAX_CACHED_ANSWER_BYTES;
use crate::leases::broker::commands::BrokerNotice;
use crate::leases::broker::event_log::RequestId;
use crate::leases::broker::handle::BrokerStatus;
use crate::leases::broker::reply::Reply;
use crate::leases::lease::Lease;
use crate::leases::ledger::Ledger;

/// The receiver of a reply.
type ReplyTo = oneshot::Sender<Reply>;

/// The undelivered replies that carry one lease.
#[derive(Debug)]
struct LeaseReplies {
    undelivered: usize,
    /// Whether a client has received one.
    received: bool,
    /// The request of the latest reply.
    last_request: RequestId,
}

/// A reply that carries a lease.
pub(super) struct LeaseReply {
    pub(super) reply_to: ReplyTo,
    pub(super) request_id: RequestId,
    pub(super) answer: Answer,
    pub(super) lease_id: String,
    /// Whether no reply has carried the lease before.
    pub(super) is_new: bool,
}

/// The replies that are not delivered yet.
#[derive(Debug)]
pub(super) struct PendingReplies {
    notices: mpsc::UnboundedSender<BrokerNotice>,
    status: watch::Sender<BrokerStatus>,
    /// Replies to send after the next status.
    outbox: Vec<(ReplyTo, Reply)>,
    leases: HashMap<String, LeaseReplies>,
    /// The answers of leases with an idempotency key, as JSON, by lease id: the key gets the same
    /// answer again.
    keyed_answers: HashMap<String, Box<[u8]>>,
}

impl PendingReplies {
    pub(super) fn new(
        notices: mpsc::UnboundedSender<BrokerNotice>,
        status: watch::Sender<BrokerStatus>,
    ) -> Self {
        Self {
            notices,
            status,
            outbox: Vec::new(),
            leases: HashMap::new(),
            keyed_answers: HashMap::new(),
        }
    }

    /// Adds a reply without a lease.
    pub(super) fn push(&mut self, reply_to: ReplyTo, reply: Reply) {
        self.outbox.push((reply_to, reply));
    }

    /// Adds a reply that carries a lease.
    pub(super) fn push_lease(&mut self, reply: LeaseReply) {
        let LeaseReply {
            reply_to,
            request_id,
            answer,
            lease_id,
            is_new,
        } = reply;

        let replies = self
            .leases
            .entry(lease_id.clone())
            .or_insert_with(|| LeaseReplies {
                undelivered: 0,
                received: !is_new,
                last_request: RequestId::clone(&request_id),
            });

        replies.last_request = request_id;
        replies.undelivered = replies.undelivered.saturating_add(1);

        let reply = Reply::with_lease(answer, lease_id, self.notices.clone());
        self.outbox.push((reply_to, reply));
    }

    /// Publishes `status` if it differs from the last one, then sends the replies.
    pub(super) fn publish(&mut self, status: BrokerStatus) {
        self.status.send_if_modified(|published| {
            let changed = *published != status;
            if changed {
                *published = status;
            }
            changed
        });

        for (reply_to, reply) in self.outbox.drain(..) {
            // If the client has disconnected, dropping the reply notifies the broker.
            let _client_gone = reply_to.send(reply);
        }
    }

    /// The request of the latest reply with the lease, while one is undelivered.
    pub(super) fn last_request(&self, lease_id: &str) -> Option<RequestId> {
        self.leases
            .get(lease_id)
            .map(|replies| RequestId::clone(&replies.last_request))
    }

    /// Takes note that a reply was received or lost. Returns whether the lease must be released,
    /// because all its replies were lost.
    pub(super) fn on_outcome(&mut self, lease_id: &str, received: bool) -> bool {
        let Some(replies) = self.leases.get_mut(lease_id) else {
            return false;
        };

        replies.received |= received;
        replies.undelivered = replies.undelivered.saturating_sub(1);

        if replies.undelivered > 0 {
            return false;
        }

        let lost = !replies.received;
        self.leases.remove(lease_id);

        lost
    }

    /// Remembers the answer of a lease with an idempotency key, unless it is long.
    pub(super) fn remember_answer(&mut self, lease: &Lease, answer: &Answer) {
        if lease.idempotency_key.is_none() || self.keyed_answers.contains_key(&lease.id) {
            return;
        }

        // As text, because the bound is in bytes of text.
        if let Ok(text) = serde_json::to_vec(answer)
            && text.len() <= MAX_CACHED_ANSWER_BYTES
        {
            self.keyed_answers.insert(lease.id.clone(), text.into());
        }
    }

    /// The answer that the lease's idempotency key got before, if it is remembered.
    pub(super) fn remembered_answer(&self, lease_id: &str) -> Option<Answer> {
        let text = self.keyed_answers.get(lease_id)?;
        serde_json::from_slice(text).ok()
    }

    /// Forgets the answers of leases that have ended.
    pub(super) fn forget_ended(&mut self, ledger: &Ledger) {
        self.keyed_answers
            .retain(|id, _| ledger.get(id).is_some_and(Lease::is_live));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(replies: &mut PendingReplies, lease_id: &str, is_new: bool) {
        replies.push_lease(LeaseReply {
            reply_to: oneshot::channel().0,
            request_id: RequestId::from("r"),
            answer: Answer::default(),
            lease_id: lease_id.to_owned(),
            is_new,
        });
    }

    #[test]
    fn lost_replies_release_lease() {
        let (notices, _receiver) = mpsc::unbounded_channel();
        let (status, _) = watch::channel(BrokerStatus::default());
        let mut replies = PendingReplies::new(notices, status);
        push(&mut replies, "a", true);
        push(&mut replies, "a", false);

        assert!(
            !replies.on_outcome("a", false),
            "another reply is undelivered"
        );
        assert!(!replies.on_outcome("a", true));
        assert!(!replies.on_outcome("a", false), "no reply is left");
        push(&mut replies, "a", false);
        assert!(
            !replies.on_outcome("a", false),
            "a client has it from before"
        );
        push(&mut replies, "b", true);
        push(&mut replies, "b", false);
        assert!(!replies.on_outcome("b", false));
        assert!(replies.on_outcome("b", false), "both were lost");
    }
}
