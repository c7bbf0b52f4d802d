//! A reply on its way to the client. If the client does not receive it, its lease is released.

use hf_mem_core::report::{Answer, Problem};
use tokio::sync::mpsc;

use super::commands::BrokerNotice;

/// An answer, and the lease in it until the client receives it.
#[derive(Debug)]
pub(super) struct Reply {
    answer: Option<Result<Answer, Problem>>,
    undelivered: Option<(String, mpsc::UnboundedSender<BrokerNotice>)>,
}

impl Reply {
    /// An answer without a lease.
    pub(super) fn without_lease(answer: Result<Answer, Problem>) -> Self {
        Self {
            answer: Some(answer),
            undelivered: None,
        }
    }

    /// An answer with a lease.
    pub(super) fn with_lease(
        answer: Answer,
        lease_id: String,
        notices: mpsc::UnboundedSender<BrokerNotice>,
    ) -> Self {
        Self {
            answer: Some(Ok(answer)),
            undelivered: Some((lease_id, notices)),
        }
    }

    /// Returns the answer. From here on the client owns the lease.
    pub(super) fn receive(mut self) -> Option<Result<Answer, Problem>> {
        if let Some((lease_id, notices)) = self.undelivered.take() {
            let _broker_gone = notices.send(BrokerNotice::Received(lease_id));
        }
        self.answer.take()
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some((lease_id, notices)) = self.undelivered.take() {
            // If the broker has ended, the lease expires after the next start.
            let _broker_gone = notices.send(BrokerNotice::Undelivered(lease_id));
        }
    }
}
