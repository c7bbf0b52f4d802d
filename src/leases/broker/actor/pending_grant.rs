//! One asker at the desk, and what can be decided for it.

use hf_mem_core::report::{Answer, Problem};
use tokio::sync::oneshot;

use crate::leases::broker::grant_command::GrantCommand;
use crate::leases::broker::pending_reply::PendingReply;
use crate::leases::clock::Boottime;
use crate::leases::lease::{Holder, Lease};

/// One asker.
pub(super) struct PendingGrant {
    pub(super) ask: GrantCommand,
    /// When it came: its place among those who have to stand in line.
    pub(super) came: Boottime,
    pub(super) holder: Holder,
    pub(super) reply: oneshot::Sender<PendingReply>,
    /// What it would be told if its wait ended now.
    pub(super) answer: Option<Answer>,
}

impl PendingGrant {
    pub(super) fn tell(self, answer: Result<Answer, Problem>) {
        // One that hung up needs no answer.
        let _hung_up = self.reply.send(PendingReply::plain(answer));
    }
}

/// What to do with a case.
pub(super) enum Decision {
    /// It is answered.
    Answer(Box<Result<Answer, Problem>>),
    /// It is answered by this lease, which is new (`true`) or was given to the same key before.
    Lease(Box<Answer>, Box<Lease>, bool),
    /// Not now.
    NotNow(Box<Answer>),
}
