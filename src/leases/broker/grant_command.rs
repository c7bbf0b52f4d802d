//! The command to grant a lease.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::Snapshot;
use hf_mem_core::report::lease::Holder;
use hf_mem_core::report::{Answer, Problem};

use super::event_log::RequestId;
use crate::admission::user_limits::BodyReservation;
use crate::api::peer::Peer;

/// Computes an answer from a reading and the bytes that leases claim in it, by device UUID.
///
/// The broker runs it on its own thread, and more than once if the client waits. A plan should
/// compute and not wait.
pub type Plan = Box<dyn Fn(&Snapshot, &BTreeMap<String, Bytes>) -> Result<Answer, Problem> + Send>;

/// A question, and how to lease the memory of its answer.
pub struct GrantCommand {
    /// The client.
    pub peer: Peer,
    /// The request's id, for the log.
    pub request_id: RequestId,
    /// The time to live; the broker's default if absent.
    pub ttl: Option<Duration>,
    /// The holder of the lease; the requesting process if absent.
    pub holder: Option<Holder>,
    /// The client's key: repeating it returns the same lease.
    pub idempotency_key: Option<String>,
    /// How long to wait in the queue for memory; zero: not at all.
    pub wait: Duration,
    /// Whether "tight" is a no.
    pub strict: bool,
    /// The model as the client named it, for people.
    pub model: String,
    /// The engine, if the client named one.
    pub engine: Option<String>,
    /// A digest of the whole question. It distinguishes a repeated key from a reused one.
    pub digest: String,
    /// The devices that the model could be placed on, whatever is free now: UUIDs or their
    /// prefixes. `None`: any device.
    pub candidates: Option<BTreeSet<String>>,
    /// The way to the answer.
    pub plan: Plan,
    /// The memory that the command occupies, if it is counted; released with the command.
    pub room: Option<BodyReservation>,
}

impl fmt::Debug for GrantCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrantCommand")
            .field("peer", &self.peer)
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}
