//! One asker at the desk, and what can be decided for it.

use hf_mem_core::report::{Answer, Problem};
use tokio::sync::oneshot;

use crate::leases::broker::grant_command::GrantAsk;
use crate::leases::broker::pending_reply::Delivery;
use crate::leases::lease::{Holder, Lease};
use crate::leases::moment::Boottime;

/// One asker.
pub(super) struct Case {
    pub(super) ask: GrantAsk,
    /// When it came: its place among those who have to stand in line.
    pub(super) came: Boottime,
    pub(super) holder: Holder,
    pub(super) reply: oneshot::Sender<Delivery>,
    /// What it would be told if its wait ended now.
    pub(super) answer: Option<Answer>,
}

impl Case {
    pub(super) fn tell(self, answer: Result<Answer, Problem>) {
        // One that hung up needs no answer.
        let _hung_up = self.reply.send(Delivery::plain(answer));
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
