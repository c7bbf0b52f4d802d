//! What the routes need of the program: the one seam between HTTP and the path of a question.

use std::future::Future;

use bytes::Bytes;
use hf_mem_core::report::answer::Verdict;
use hf_mem_core::report::lease::LeaseAnswer;
use hf_mem_core::report::problem::Reason;
use tokio::sync::{broadcast, watch};

pub use crate::admission::user_limits::BodyReservation;
use hf_mem_core::report::TogetherAnswer;
use hf_mem_core::report::{Answer, Problem, Question};

use crate::api::lease::{LeaseRequest, LeasesAnswer, RenewRequest};
use crate::api::peer::Caller;
use crate::api::status::{GpusAnswer, HealthAnswer, NvmlReleaseAnswer};
use crate::leases::event::Dated;
use crate::metrics::Metrics;

/// An answer as it goes out: written once, however often it is given.
#[derive(Clone, Debug)]
pub struct Written {
    verdict: Option<Verdict>,
    reason: Option<Reason>,
    json: Bytes,
}

impl Written {
    /// Writes `answer`.
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

    /// Its verdict.
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdict
    }

    /// Its reason, where that is one of the known words.
    pub fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// The answer as JSON.
    pub fn json(&self) -> &Bytes {
        &self.json
    }
}

/// The program behind the socket.
///
/// Every future may be dropped at any await: at the handler's deadline, or when its caller goes
/// away. Work that others wait for too belongs into a task of its own.
pub trait Service: Send + Sync + 'static {
    /// The answer to a question that was asked in these very bytes before, where all that it
    /// follows from is the same still and `caller` may see it. `None`: it must be planned.
    fn again(
        &self,
        caller: &Caller,
        body: &[u8],
    ) -> impl Future<Output = Result<Option<Written>, Problem>> + Send;

    /// Whether and how one model fits. "No" is an answer, not a problem. `body` is the question as
    /// it was written, for [`Service::again`]; `None` where it is too long to be kept.
    fn fits(
        &self,
        caller: Caller,
        question: Question,
        body: Option<Bytes>,
    ) -> impl Future<Output = Result<Written, Problem>> + Send;

    /// Whether several models fit at once.
    fn fits_together(
        &self,
        caller: Caller,
        questions: Vec<Question>,
    ) -> impl Future<Output = Result<TogetherAnswer, Problem>> + Send;

    /// What a model needs, whatever is free.
    fn estimate(
        &self,
        caller: Caller,
        question: Question,
    ) -> impl Future<Output = Result<Answer, Problem>> + Send;

    /// The devices: by a reading that begins now where `fresh` is set, else by one as late as the
    /// configuration asks. Called without it for each watcher at each change, when the reading that
    /// changed is at hand.
    fn gpus(&self, fresh: bool) -> impl Future<Output = Result<GpusAnswer, Problem>> + Send;

    /// Changes whenever [`Service::gpus`] would tell something new.
    fn changes(&self) -> watch::Receiver<u64>;

    /// What happens to leases from now on; `None` where there is nothing to hear.
    fn lease_events(&self) -> Option<broadcast::Receiver<Dated>> {
        None
    }

    /// How the daemon is.
    fn health(&self) -> HealthAnswer;

    /// Answers like [`Service::fits`] and holds what was answered, in one step. `room` is what the
    /// request takes, for as long as anything of it is kept.
    fn create_lease(
        &self,
        caller: Caller,
        request: LeaseRequest,
        room: BodyReservation,
    ) -> impl Future<Output = Result<Answer, Problem>> + Send;

    /// Every lease.
    fn leases(&self, caller: Caller) -> impl Future<Output = Result<LeasesAnswer, Problem>> + Send;

    /// One lease.
    fn lease(
        &self,
        caller: Caller,
        id: String,
    ) -> impl Future<Output = Result<LeaseAnswer, Problem>> + Send;

    /// Makes a lease go on.
    fn renew_lease(
        &self,
        caller: Caller,
        id: String,
        request: RenewRequest,
    ) -> impl Future<Output = Result<LeaseAnswer, Problem>> + Send;

    /// Ends a lease; answers it as it was.
    fn release_lease(
        &self,
        caller: Caller,
        id: String,
    ) -> impl Future<Output = Result<LeaseAnswer, Problem>> + Send;

    /// Lets go of the driver for so many seconds. Whether the caller may is decided here.
    fn release_nvml(
        &self,
        caller: Caller,
        seconds: u64,
    ) -> impl Future<Output = Result<NvmlReleaseAnswer, Problem>> + Send;

    /// Brings gauges up to date before the metrics are written.
    fn observe(&self, metrics: &Metrics);
}
