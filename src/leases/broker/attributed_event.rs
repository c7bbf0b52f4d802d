//! What happened, and whose request made it happen.

use std::sync::Arc;

use hf_mem_core::report::lease::EndReason;

use crate::leases::event::Event;

/// The id of a request, as its answer's `x-request-id` has it.
pub type RequestId = Arc<str>;

/// An event, and the request that caused it, where one did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AttributedEvent {
    pub(super) event: Event,
    pub(super) request_id: Option<RequestId>,
}

impl AttributedEvent {
    /// `event`, found after the errand of `request_id` was done: what time or a death brought
    /// meanwhile is not its doing.
    pub(super) fn after(event: Event, request_id: Option<&RequestId>) -> Self {
        let by_request = match &event {
            Event::Granted(_)
            | Event::Renewed(_)
            | Event::Waiting { .. }
            | Event::WaitEnded { .. } => true,
            Event::Ended { reason, .. } => *reason == EndReason::ByOwner,
            Event::Settling(_)
            | Event::Settled(_)
            | Event::Extended(_)
            | Event::Overdrawn { .. }
            | Event::Recovered { .. }
            | Event::Warning { .. } => false,
        };

        Self {
            event,
            request_id: request_id.filter(|_| by_request).cloned(),
        }
    }
}

impl From<Event> for AttributedEvent {
    fn from(event: Event) -> Self {
        Self {
            event,
            request_id: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leases::event::Subject;

    #[test]
    fn what_time_or_a_death_brings_is_no_requests_doing() {
        let subject = || Subject {
            lease: "1".to_owned(),
            uid: 1,
            pid: None,
            name: None,
            model: "m".to_owned(),
            granted_bytes: std::collections::BTreeMap::new(),
            visible_bytes: std::collections::BTreeMap::new(),
        };

        let request = RequestId::from("r");
        let whose = |event| AttributedEvent::after(event, Some(&request)).request_id;

        let ended = |reason| Event::Ended {
            lease: subject(),
            reason,
        };

        for event in [
            Event::Granted(subject()),
            Event::Renewed(subject()),
            ended(EndReason::ByOwner),
            Event::Waiting {
                ticket: 1,
                uid: 1,
                position: 1,
            },
            Event::WaitEnded {
                ticket: 1,
                timed_out: true,
            },
        ] {
            assert_eq!(whose(event.clone()).as_deref(), Some("r"), "{event:?}");
        }

        for event in [
            Event::Settled(subject()),
            ended(EndReason::TtlPassed),
            ended(EndReason::HolderDied),
            Event::Recovered {
                device: "GPU-a".to_owned(),
            },
        ] {
            assert_eq!(whose(event.clone()), None, "{event:?}");
        }

        assert_eq!(
            AttributedEvent::after(Event::Granted(subject()), None).request_id,
            None
        );
    }
}
