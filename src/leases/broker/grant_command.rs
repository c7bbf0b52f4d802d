//! What is asked of the office.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::Snapshot;
use hf_mem_core::report::lease::Holder;
use hf_mem_core::report::{Answer, Problem};

use super::attributed_event::RequestId;
use crate::admission::user_limits::BodyReservation;
use crate::api::peer::Peer;

/// The way from a reading, and the bytes that leases claim in it by UUID, to an answer. It is run
/// by the owner, more than once where the asker waits; it should compute and not wait.
pub type Plan = Box<dyn Fn(&Snapshot, &BTreeMap<String, Bytes>) -> Result<Answer, Problem> + Send>;

/// A question whose answer is to be held.
pub struct GrantCommand {
    /// Who asks.
    pub peer: Peer,
    /// With which request, for the log.
    pub request_id: RequestId,
    /// The time to live; the office's default when absent.
    pub ttl: Option<Duration>,
    /// Who is to hold it; the asking process when absent.
    pub holder: Option<Holder>,
    /// The asker's key: the same again gives the same lease.
    pub idempotency_key: Option<String>,
    /// How long to wait in line for memory; nothing: not at all.
    pub wait: Duration,
    /// Whether "tight" is a no.
    pub strict: bool,
    /// The model as it was named, for people.
    pub model: String,
    /// The engine, where one was named.
    pub engine: Option<String>,
    /// A digest of the whole question, by which a key used again is told from a key reused.
    pub digest: String,
    /// The devices it could be placed on, whatever is free now, by UUID or its beginning; `None`:
    /// any.
    pub candidates: Option<BTreeSet<String>>,
    /// The way to the answer.
    pub plan: Plan,
    /// What it takes up, where that is counted; given back with it.
    pub room: Option<BodyReservation>,
}

impl fmt::Debug for GrantCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrantAsk")
            .field("peer", &self.peer)
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}
