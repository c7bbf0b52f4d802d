//! An answer on its way to the asker: a lease that nobody takes delivery of is given back.

use hf_mem_core::report::{Answer, Problem};
use tokio::sync::mpsc;

use super::commands::BrokerNotice;

/// An answer, and the lease in it until it is taken.
#[derive(Debug)]
pub(super) struct PendingReply {
    answer: Option<Result<Answer, Problem>>,
    untaken: Option<(String, mpsc::UnboundedSender<BrokerNotice>)>,
}

impl PendingReply {
    /// An answer without a new lease.
    pub(super) fn plain(answer: Result<Answer, Problem>) -> Self {
        Self {
            answer: Some(answer),
            untaken: None,
        }
    }

    /// An answer with a lease.
    pub(super) fn with_lease(
        answer: Answer,
        lease: String,
        notes: mpsc::UnboundedSender<BrokerNotice>,
    ) -> Self {
        Self {
            answer: Some(Ok(answer)),
            untaken: Some((lease, notes)),
        }
    }

    /// The answer: from here on the lease is the asker's.
    pub(super) fn take(mut self) -> Option<Result<Answer, Problem>> {
        if let Some((lease, notes)) = self.untaken.take() {
            let _owner_is_gone = notes.send(BrokerNotice::Taken(lease));
        }
        self.answer.take()
    }
}

impl Drop for PendingReply {
    fn drop(&mut self) {
        if let Some((lease, notes)) = self.untaken.take() {
            // Where the owner is gone, so is the lease's life with it: it expires after the next
            // start.
            let _owner_is_gone = notes.send(BrokerNotice::Undelivered(lease));
        }
    }
}
