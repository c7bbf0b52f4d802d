//! What happened, and whose request made it happen.

use std::sync::Arc;

use crate::leases::event::Event;
use crate::leases::lease::EndReason;

/// The id of a request, as its answer's `x-request-id` has it.
pub type RequestId = Arc<str>;

/// An event, and the request that caused it, where one did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Happened {
    pub(super) event: Event,
    pub(super) request_id: Option<RequestId>,
}

impl Happened {
    /// `event`, found after the errand of `request_id` was done: what time or a death brought meanwhile is not its doing.
    pub(super) fn after(event: Event, request_id: Option<&RequestId>) -> Self {
        let by_request = match &event {
            Event::Granted(_) | Event::Renewed(_) | Event::Waiting { .. } | Event::WaitEnded { .. } => true,
            Event::Ended { reason, .. } => *reason == EndReason::ByOwner,
            Event::Settling(_)
            | Event::Settled(_)
            | Event::Extended(_)
            | Event::Overdrawn { .. }
            | Event::Recovered { .. }
            | Event::Warning { .. } => false,
        };
        Self { event, request_id: request_id.filter(|_| by_request).cloned() }
    }
}

impl From<Event> for Happened {
    fn from(event: Event) -> Self {
        Self { event, request_id: None }
    }
}
