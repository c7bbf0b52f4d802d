//! The [`Service`] trait: everything that the routes and the daemon's process need of the program.

use std::future::Future;

use bytes::Bytes;
use hf_mem_core::report::answer::Verdict;
use hf_mem_core::report::lease::LeaseAnswer;
use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::{Answer, Problem, Question, TogetherAnswer};
use tokio::sync::{broadcast, watch};

pub use crate::admission::user_limits::BodyReservation;
use crate::api::lease::{LeaseRequest, LeasesAnswer, RenewRequest};
use crate::api::peer::Caller;
use crate::api::status::{GpusAnswer, HealthAnswer, NvmlReleaseAnswer};
use crate::config::Config;
use crate::leases::event::Dated;
use crate::metrics::Metrics;

/// An answer, serialized once for all callers that get it.
#[derive(Clone, Debug)]
pub struct SerializedAnswer {
    verdict: Option<Verdict>,
    reason: Option<Reason>,
    json: Bytes,
}

impl SerializedAnswer {
    /// Serializes `answer`.
    pub fn new(answer: &Answer) -> Self {
        let reason = answer.known_reason();
        // Wire types have string keys and no fallible fields, so this cannot fail.
        let json = serde_json::to_vec(answer).unwrap_or_default();

        Self {
            verdict: answer.verdict,
            reason,
            json: json.into(),
        }
    }

    /// The answer's verdict.
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdict
    }

    /// The answer's reason, if it is one of the known words.
    pub fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// The answer as JSON.
    pub fn json(&self) -> &Bytes {
        &self.json
    }
}

/// The program behind the socket: the routes call it, and the daemon's process supervises it.
///
/// A caller can drop any future of a route at any await: at the handler's deadline, or when its
/// client disconnects. Run work that others also wait for in a task of its own.
pub trait Service: Send + Sync + 'static {
    /// Returns the cached answer to the request body `body`.
    ///
    /// Returns an answer only if all its inputs are unchanged and `caller` may see the model. With
    /// `None` the question must be planned.
    fn cached_answer(
        &self,
        caller: &Caller,
        body: &[u8],
    ) -> impl Future<Output = Result<Option<SerializedAnswer>, Problem>> + Send;

    /// Answers whether and how one model fits. "No" is an answer, not a problem.
    ///
    /// `body` is the request's body, the key for [`Service::cached_answer`]. It is `None` for a
    /// body that is too long for the cache.
    fn fits(
        &self,
        caller: Caller,
        question: Question,
        body: Option<Bytes>,
    ) -> impl Future<Output = Result<SerializedAnswer, Problem>> + Send;

    /// Answers whether several models fit at once.
    fn fits_together(
        &self,
        caller: Caller,
        questions: Vec<Question>,
    ) -> impl Future<Output = Result<TogetherAnswer, Problem>> + Send;

    /// Answers what a model needs, independent of free memory.
    fn estimate(
        &self,
        caller: Caller,
        question: Question,
    ) -> impl Future<Output = Result<Answer, Problem>> + Send;

    /// Returns the devices.
    ///
    /// With `fresh` it waits for a reading that begins now. Without it the reading is as recent as
    /// the configuration demands. Each watch stream calls it without `fresh` at each change, when
    /// the changed reading is already in memory.
    fn gpus(&self, fresh: bool) -> impl Future<Output = Result<GpusAnswer, Problem>> + Send;

    /// Returns a counter that changes whenever [`Service::gpus`] has something new to report.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Subscribes to lease events from now on; `None` if there are none to receive.
    fn lease_events(&self) -> Option<broadcast::Receiver<Dated>> {
        None
    }

    /// Returns the daemon's health.
    fn health(&self) -> HealthAnswer;

    /// Answers like [`Service::fits`] and grants a lease for the answer, in one step.
    ///
    /// `reservation` is the memory of the request's body. The service keeps it for as long as it
    /// keeps any part of the request.
    fn create_lease(
        &self,
        caller: Caller,
        request: LeaseRequest,
        reservation: BodyReservation,
    ) -> impl Future<Output = Result<Answer, Problem>> + Send;

    /// Lists all leases.
    fn leases(&self, caller: Caller) -> impl Future<Output = Result<LeasesAnswer, Problem>> + Send;

    /// Returns one lease.
    fn lease(
        &self,
        caller: Caller,
        id: String,
    ) -> impl Future<Output = Result<LeaseAnswer, Problem>> + Send;

    /// Renews a lease.
    fn renew_lease(
        &self,
        caller: Caller,
        id: String,
        request: RenewRequest,
    ) -> impl Future<Output = Result<LeaseAnswer, Problem>> + Send;

    /// Releases a lease and returns its last state.
    fn release_lease(
        &self,
        caller: Caller,
        id: String,
    ) -> impl Future<Output = Result<LeaseAnswer, Problem>> + Send;

    /// Releases the driver for `seconds`. The service decides whether `caller` may.
    fn release_nvml(
        &self,
        caller: Caller,
        seconds: u64,
    ) -> impl Future<Output = Result<NvmlReleaseAnswer, Problem>> + Send;

    /// Updates the gauges of `metrics` before the page is written.
    fn observe(&self, metrics: &Metrics);

    /// Checks that the sampler's thread and the ledger's owner both respond.
    ///
    /// The error names the part that is stuck, and the watchdog then lets the service manager
    /// restart the daemon. A failed reading must not be an error here; a thread that hangs must.
    fn liveness(&self) -> impl Future<Output = Result<(), String>> + Send;

    /// Applies a configuration that was read again. Returns the changed keys that need a restart.
    fn reload(&self, config: Config) -> impl Future<Output = Result<Vec<String>, Problem>> + Send;

    /// Persists what must survive a restart. Called once, after the last request has ended.
    fn stop(&self) -> impl Future<Output = ()> + Send;
}
