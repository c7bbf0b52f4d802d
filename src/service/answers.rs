//! Implements the routes' [`Service`] for [`HostService`].

use std::time::{Duration, Instant, SystemTime};

use hf_mem_core::device::Snapshot;
use hf_mem_core::evaluate;
use hf_mem_core::report::lease::LeaseAnswer;
use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::{Answer, Problem, Question, SCHEMA_VERSION, TogetherAnswer};
use hf_mem_core::wire_word::WireWord;
use tokio::sync::{broadcast, watch};
use tracing::{Instrument as _, debug_span, info, warn};

use super::stages::log_stage;
use super::{HostService, leases};
use crate::api::lease::{LeaseRequest, LeasesAnswer, RenewRequest};
use crate::api::peer::{Caller, Operators};
use crate::api::status::{GpusAnswer, HealthAnswer, NvmlReleaseAnswer};
use crate::config::Config;
use crate::leases::broker::GrantCommand;
use crate::leases::event::Dated;
use crate::metrics::{Metrics, Stage};
use crate::server::service::{BodyReservation, SerializedAnswer, Service};

/// A driver call that takes this long hangs, and only a restart can help.
const HUNG_AFTER: Duration = Duration::from_secs(120);

impl Service for HostService {
    async fn cached_answer(
        &self,
        caller: &Caller,
        body: &[u8],
    ) -> Result<Option<SerializedAnswer>, Problem> {
        self.find_cached_answer(caller, body).await
    }

    async fn fits(
        &self,
        caller: Caller,
        question: Question,
        body: Option<bytes::Bytes>,
    ) -> Result<SerializedAnswer, Problem> {
        self.plan_fit(caller, question, body).await
    }

    async fn fits_together(
        &self,
        caller: Caller,
        questions: Vec<Question>,
    ) -> Result<TogetherAnswer, Problem> {
        self.plan_batch(caller, questions).await
    }

    async fn estimate(&self, caller: Caller, question: Question) -> Result<Answer, Problem> {
        self.plan_estimate(caller, question).await
    }

    async fn gpus(&self, fresh: bool) -> Result<GpusAnswer, Problem> {
        let (snapshot, claims) = if fresh {
            // Memory that this reading shows in use must not be claimed as well.
            let snapshot = self.check_health_on_error(self.devices.fresh().await)?;
            let claims = self.leases.claims(&snapshot).await?;
            (snapshot, claims)
        } else {
            self.leases.require_known()?;
            (
                self.check_health_on_error(self.devices.latest().await)?,
                self.leases.broker.leased(),
            )
        };

        let leased_bytes = claims
            .into_iter()
            .map(|(uuid, bytes)| (uuid, bytes.get()))
            .collect();

        Ok(GpusAnswer {
            schema_version: SCHEMA_VERSION,
            snapshot: Snapshot::clone(&snapshot),
            leased_bytes,
        })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.devices.changes()
    }

    fn lease_events(&self) -> Option<broadcast::Receiver<Dated>> {
        self.leases.broker.events()
    }

    fn health(&self) -> HealthAnswer {
        self.health_now()
    }

    async fn create_lease(
        &self,
        caller: Caller,
        request: LeaseRequest,
        reservation: BodyReservation,
    ) -> Result<Answer, Problem> {
        let active = self.active();
        if request.question.gpus.is_some() {
            let detail = "question.gpus: a lease holds memory on this host's devices, \
                          not on declared ones";
            return Err(Problem::new(Reason::Usage, detail));
        }

        evaluate::check_engine(&request.question, &active.rules)?;
        let found = self.model(&caller, &request.question).await?;
        let question = Self::complete(&active, request.question.clone(), &found);
        let started = Instant::now();

        let command =
            leases::grant_command(&caller, request, &question, found.model.clone(), active)?;
        let command = GrantCommand {
            room: Some(reservation),
            ..command
        };

        let answer = self
            .leases
            .broker
            .grant(command)
            .instrument(debug_span!("lease"))
            .await;

        let elapsed = started.elapsed();
        log_stage("lease", elapsed, &answer, |answer| {
            if answer.lease.is_some() {
                "granted"
            } else {
                answer.reason.as_ref().map_or("", WireWord::as_str)
            }
        });

        let mut answer = self.check_health_on_error(answer)?;
        self.log_recoveries();
        self.metrics.took(Stage::Lease, elapsed);
        evaluate::note_staleness(&mut answer, found.stale);

        Ok(answer)
    }

    async fn leases(&self, _caller: Caller) -> Result<LeasesAnswer, Problem> {
        let mut answer = self.leases.broker.list().await?;
        let unknown = self.leases.require_known().err();
        answer.warnings.extend(unknown.map(|error| error.detail));
        Ok(answer)
    }

    async fn lease(&self, _caller: Caller, id: String) -> Result<LeaseAnswer, Problem> {
        self.leases.broker.get(id).await
    }

    async fn renew_lease(
        &self,
        caller: Caller,
        id: String,
        request: RenewRequest,
    ) -> Result<LeaseAnswer, Problem> {
        let ttl = request.ttl_seconds.map(Duration::from_secs);
        self.check_health_on_error(self.leases.broker.renew(id, &caller, ttl).await)
    }

    async fn release_lease(&self, caller: Caller, id: String) -> Result<LeaseAnswer, Problem> {
        self.check_health_on_error(self.leases.broker.release(id, &caller).await)
    }

    async fn release_nvml(
        &self,
        caller: Caller,
        seconds: u64,
    ) -> Result<NvmlReleaseAnswer, Problem> {
        if !Operators::of_this_process().include(caller.peer.uid) {
            return Err(Problem::new(
                Reason::Forbidden,
                "only root and the daemon's own user can release the driver",
            ));
        }

        let length = Duration::from_secs(seconds);
        self.release_driver(&caller, length).await?;
        let until = SystemTime::now() + length;

        Ok(NvmlReleaseAnswer {
            schema_version: SCHEMA_VERSION,
            released_until: humantime::format_rfc3339_seconds(until).to_string(),
        })
    }

    fn observe(&self, metrics: &Metrics) {
        self.update_gauges(metrics);
    }

    async fn liveness(&self) -> Result<(), String> {
        self.check_health();
        match self.devices.status().and_then(|status| status.busy) {
            Some((doing, since)) if since > HUNG_AFTER => Err(format!(
                "the sampler has been stuck in {doing} for {} s",
                since.as_secs()
            )),
            _ => self.leases.liveness().await,
        }
    }

    async fn reload(&self, config: Config) -> Result<Vec<String>, Problem> {
        self.apply_config(config).await
    }

    async fn stop(&self) {
        self.leases.broker.stop().await;
    }
}

impl HostService {
    /// Checks the daemon's health if `outcome` is an error, so that the log names the cause.
    pub(super) fn check_health_on_error<T>(
        &self,
        outcome: Result<T, Problem>,
    ) -> Result<T, Problem> {
        if outcome.is_err() {
            self.check_health();
        }
        outcome
    }

    /// Checks the daemon's health if a part was degraded, so that the log reports its recovery.
    pub(super) fn log_recoveries(&self) {
        if self.health_log.any_degraded() {
            self.check_health();
        }
    }

    /// Releases the driver and logs the user who requested it. The sampler logs the end.
    async fn release_driver(&self, caller: &Caller, length: Duration) -> Result<(), Problem> {
        let (uid, pid, request_id) = (caller.peer.uid, caller.peer.pid, caller.request_id.as_str());
        let seconds = length.as_secs();
        let released = self.devices.release(length).await;
        match &released {
            // Declared devices have no driver.
            Ok(()) if self.devices.status().is_none() => {}
            Ok(()) => info!(
                uid,
                pid, seconds, request_id, "driver released at this user's request"
            ),
            Err(problem) => {
                let why = problem.detail.as_str();
                warn!(
                    uid,
                    pid,
                    seconds,
                    request_id,
                    why,
                    "cannot release the driver at this user's request: it hangs"
                );
            }
        }

        released
    }
}
