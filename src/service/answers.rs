//! The routes' questions, answered.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::Snapshot;
use hf_mem_core::evaluate;
use hf_mem_core::evaluate::HostView;
use hf_mem_core::report::TogetherAnswer;
use hf_mem_core::report::lease::LeaseAnswer;
use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::{Answer, Problem, Question, SCHEMA_VERSION};
use tokio::sync::{broadcast, watch};
use tracing::{Instrument as _, debug_span, info, warn};

use super::answer_cache::{CacheInputs, CachedAnswer};
use super::models::FoundModel;
use super::{ActiveConfig, HostService, build, leases, models, stages};
use crate::api::lease::{LeaseRequest, LeasesAnswer, RenewRequest};
use crate::api::peer::{Caller, Operators};
use crate::api::status::{GpusAnswer, HealthAnswer, NvmlReleaseAnswer};
use crate::config::Config;
use crate::files::Disk;
use crate::leases::broker::GrantCommand;
use crate::leases::event::Dated;
use crate::metrics::{CacheResult, DeviceFigures, Metrics, Stage};
use crate::server::service::{BodyReservation, SerializedAnswer, Service};

/// A driver call that takes this long hangs, and only a restart may help.
const HUNG_AFTER: Duration = Duration::from_secs(120);

/// Questions times devices that are planned together: some seconds of work.
const MOST_TOGETHER: usize = 4096;

impl HostService {
    async fn model(&self, caller: &Caller, question: &Question) -> Result<FoundModel, Problem> {
        let started = Instant::now();
        let span = debug_span!("model", repo = question.model.repo);

        let find = async {
            match question.model.metadata.clone() {
                Some(metadata) => {
                    self.workbench
                        .run(caller.peer.uid, move || models::sent(&metadata))
                        .await
                }
                None => self.models.find(caller, &question.model).await,
            }
        };

        let found = find.instrument(span).await;
        let took = started.elapsed();
        stages::tell("model", took, &found, |found| found.cache.word());

        // A Hub was asked, or could not be; what was read is kept on disk, or could not be.
        if found.as_ref().map_or(true, |found| {
            found.stale || found.cache == CacheResult::Miss
        }) {
            self.look();
        }

        let found = found?;
        self.metrics.took(Stage::Model, took);
        self.metrics.model_lookup(found.cache);

        Ok(found)
    }

    /// Devices as `question` declares them, or this host's, less what leases claim and what the
    /// site keeps back.
    async fn here(&self, settled: &ActiveConfig, question: &Question) -> Result<HostView, Problem> {
        if let Some(spec) = &question.gpus {
            return HostView::declared(spec, SystemTime::now());
        }
        let (snapshot, claims) = self.devices().await?;
        Ok(self.seen_here(settled, &snapshot, &claims))
    }

    /// A reading as the site wants it seen, with what was coming free when it was taken.
    fn seen_here(
        &self,
        settled: &ActiveConfig,
        snapshot: &Snapshot,
        claims: &BTreeMap<String, Bytes>,
    ) -> HostView {
        let mut here = seen(settled, snapshot, claims);
        here.draining = self.readings.draining(snapshot);
        here
    }

    /// [`Self::reading`] as a stage of a question that is planned.
    async fn devices(&self) -> Result<(Arc<Snapshot>, BTreeMap<String, Bytes>), Problem> {
        let started = Instant::now();
        let read = self.reading().await;
        stages::tell("devices", started.elapsed(), &read, |(snapshot, _)| {
            if snapshot.stale { "stale" } else { "read" }
        });

        if self.turns.any_wrong() {
            self.look();
        }

        read
    }

    /// Looks at the parts where something failed.
    fn noting<T>(&self, outcome: Result<T, Problem>) -> Result<T, Problem> {
        if outcome.is_err() {
            self.look();
        }
        outcome
    }

    /// This host's devices as they were read last, and what leases claim on them.
    async fn reading(&self) -> Result<(Arc<Snapshot>, BTreeMap<String, Bytes>), Problem> {
        let read = async {
            let started = Instant::now();
            let snapshot = self.readings.latest().await?;
            self.metrics.took(Stage::Sample, started.elapsed());
            let claims = self.promises.claims(&snapshot).await?;
            Ok((snapshot, claims))
        };

        self.noting(read.instrument(debug_span!("devices")).await)
    }

    /// Lets go of the driver, and says who asked for it; the sampler says when that is over.
    async fn release_told(&self, caller: &Caller, length: Duration) -> Result<(), Problem> {
        let (uid, pid, request_id) = (caller.peer.uid, caller.peer.pid, caller.request_id.as_str());
        let seconds = length.as_secs();
        let released = self.readings.release(length).await;
        match &released {
            // Declared devices have no driver.
            Ok(()) if self.readings.status().is_none() => {}
            Ok(()) => info!(
                uid,
                pid, seconds, request_id, "the driver is let go of, as this user asked"
            ),
            Err(problem) => {
                let why = problem.detail.as_str();
                warn!(
                    uid,
                    pid,
                    seconds,
                    request_id,
                    why,
                    "the driver is to be let go of, as this user asked, and hangs"
                );
            }
        }

        released
    }

    /// The question with the site's default engine in it, where that is one for such models.
    fn complete(settled: &ActiveConfig, mut question: Question, found: &FoundModel) -> Question {
        build::complete(&settled.config, &mut question, &found.model);
        question
    }
}

/// Plans, and counts how long that took.
fn plan<T>(metrics: &Metrics, work: impl FnOnce() -> Result<T, Problem>) -> Result<T, Problem> {
    let started = Instant::now();
    let planned = debug_span!("plan").in_scope(work);
    let took = started.elapsed();
    metrics.took(Stage::Plan, took);
    stages::tell("plan", took, &planned, |_| "planned");
    planned
}

/// Plans, and writes what comes of it.
fn answer(
    metrics: &Metrics,
    question: &Question,
    found: &FoundModel,
    here: &HostView,
    settled: &ActiveConfig,
) -> Result<SerializedAnswer, Problem> {
    let mut answer = plan(metrics, || {
        evaluate::fits(question, &found.model, here, &settled.rules)
    })?;
    evaluate::note_staleness(&mut answer, found.stale);
    Ok(SerializedAnswer::new(&answer))
}

/// A reading as the site wants it seen: less what leases claim and what is kept back everywhere.
pub(super) fn seen(
    settled: &ActiveConfig,
    snapshot: &Snapshot,
    leased: &BTreeMap<String, Bytes>,
) -> HostView {
    let mut here = HostView::of(snapshot, leased);
    here.availability = here
        .availability
        .keeping(settled.config.placement.margin.get());
    here
}

impl Service for HostService {
    async fn cached_answer(
        &self,
        caller: &Caller,
        body: &[u8],
    ) -> Result<Option<SerializedAnswer>, Problem> {
        let Some(kept) = self.remembered.find(body) else {
            return Ok(None);
        };

        let Some(found) = self.models.at_hand(caller, kept.reference()).await else {
            return Ok(None);
        };

        let settled = self.settled();
        let (snapshot, claims) = self.reading().await?;

        let grounds = CacheInputs {
            model: found.model,
            stale: found.stale,
            snapshot,
            claims,
            settled,
        };

        let written = kept.written_on(&grounds);
        if written.is_some() {
            self.metrics.model_lookup(found.cache);
        }

        Ok(written)
    }

    async fn fits(
        &self,
        caller: Caller,
        question: Question,
        body: Option<bytes::Bytes>,
    ) -> Result<SerializedAnswer, Problem> {
        let settled = self.settled();
        evaluate::known_engine(&question, &settled.rules)?;
        let found = self.model(&caller, &question).await?;
        let question = Self::complete(&settled, question, &found);
        if question.gpus.is_some() || question.model.metadata.is_some() {
            let seat = self.workbench.seat(caller.peer.uid).await?;
            let here = self.here(&settled, &question).await?;
            let metrics = Arc::clone(&self.metrics);
            return seat
                .run(move || answer(&metrics, &question, &found, &here, &settled))
                .await;
        }

        let (mut snapshot, mut claims) = self.devices().await?;
        let mut seat = None;
        if evaluate::takes_long(&question, &found.model, snapshot.devices.len()) {
            seat = Some(self.workbench.seat(caller.peer.uid).await?);
            (snapshot, claims) = self.devices().await?;
        }

        let kept = match body {
            Some(body) => Some((body, models::reference(&question.model)?)),
            None => None,
        };

        let here = self.seen_here(&settled, &snapshot, &claims);
        let metrics = Arc::clone(&self.metrics);

        let grounds = CacheInputs {
            model: Arc::clone(&found.model),
            stale: found.stale,
            snapshot,
            claims,
            settled: Arc::clone(&settled),
        };

        let work = move || answer(&metrics, &question, &found, &here, &settled);
        let written = match seat {
            Some(seat) => seat.run(work).await?,
            None => work()?,
        };

        if let Some((body, reference)) = kept {
            self.remembered.keep(
                &body,
                CachedAnswer::new(reference, grounds, written.clone()),
            );
        }

        Ok(written)
    }

    async fn fits_together(
        &self,
        caller: Caller,
        questions: Vec<Question>,
    ) -> Result<TogetherAnswer, Problem> {
        let settled = self.settled();
        if let Some(other) = questions
            .iter()
            .position(|question| question.gpus != questions[0].gpus)
        {
            let detail = format!(
                "questions[{other}].gpus: questions that must fit together name the same devices"
            );
            return Err(Problem::new(Reason::Usage, detail));
        }

        let mut models = Vec::with_capacity(questions.len());
        let mut completed = Vec::with_capacity(questions.len());

        for question in questions {
            evaluate::known_engine(&question, &settled.rules)?;
            let found = self.model(&caller, &question).await?;
            completed.push(Self::complete(&settled, question, &found));
            models.push(found.model);
        }

        let Some(first) = completed.first() else {
            return Err(Problem::new(
                Reason::Usage,
                "questions: at least one is needed",
            ));
        };

        let seat = self.workbench.seat(caller.peer.uid).await?;
        let here = self.here(&settled, first).await?;
        let cells = completed
            .len()
            .saturating_mul(here.availability.devices.len());
        if cells > MOST_TOGETHER {
            let detail = format!(
                "{} questions on {} devices at once",
                completed.len(),
                here.availability.devices.len()
            );

            let hint = format!(
                "questions times devices may come to {MOST_TOGETHER}: ask for fewer at once"
            );
            return Err(Problem::new(Reason::Usage, detail).hint(hint));
        }

        let metrics = Arc::clone(&self.metrics);
        let work = move || {
            plan(&metrics, || {
                evaluate::together(&completed, &models, &here, &settled.rules)
            })
        };

        seat.run(work).await
    }

    async fn estimate(&self, caller: Caller, question: Question) -> Result<Answer, Problem> {
        let settled = self.settled();
        evaluate::known_engine(&question, &settled.rules)?;
        let found = self.model(&caller, &question).await?;
        let question = Self::complete(&settled, question, &found);
        let declared = question
            .gpus
            .as_deref()
            .map(|spec| HostView::declared(spec, SystemTime::now()))
            .transpose()?;

        let metrics = Arc::clone(&self.metrics);
        let work = move || {
            let estimate = || evaluate::estimate(&question, &found.model, declared, &settled.rules);
            let mut answer = plan(&metrics, estimate)?;
            evaluate::note_staleness(&mut answer, found.stale);
            Ok(answer)
        };

        self.workbench.run(caller.peer.uid, work).await
    }

    async fn gpus(&self, fresh: bool) -> Result<GpusAnswer, Problem> {
        let (snapshot, claims) = if fresh {
            // What is seen in use in this very reading must not be claimed as well.
            let snapshot = self.noting(self.readings.fresh().await)?;
            let claims = self.promises.claims(&snapshot).await?;
            (snapshot, claims)
        } else {
            self.promises.known()?;
            (
                self.noting(self.readings.latest().await)?,
                self.promises.office.leased(),
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
        self.readings.changes()
    }

    fn lease_events(&self) -> Option<broadcast::Receiver<Dated>> {
        self.promises.office.events()
    }

    fn health(&self) -> HealthAnswer {
        self.health_now()
    }

    async fn create_lease(
        &self,
        caller: Caller,
        request: LeaseRequest,
        room: BodyReservation,
    ) -> Result<Answer, Problem> {
        let settled = self.settled();
        if request.question.gpus.is_some() {
            let detail =
                "question.gpus: memory is promised on this host's devices, not on declared ones";
            return Err(Problem::new(Reason::Usage, detail));
        }

        evaluate::known_engine(&request.question, &settled.rules)?;
        let found = self.model(&caller, &request.question).await?;
        let question = Self::complete(&settled, request.question.clone(), &found);
        let started = Instant::now();

        let ask = leases::grant_ask(
            &caller,
            request,
            &question,
            Arc::clone(&found.model),
            settled,
        )?;
        let ask = GrantCommand {
            room: Some(room),
            ..ask
        };

        let answer = self
            .promises
            .office
            .grant(ask)
            .instrument(debug_span!("lease"))
            .await;

        let took = started.elapsed();
        stages::tell("lease", took, &answer, |answer| {
            if answer.lease.is_some() {
                "granted"
            } else {
                answer.reason.as_deref().unwrap_or_default()
            }
        });

        let mut answer = self.noting(answer)?;
        if self.turns.any_wrong() {
            self.look();
        }

        self.metrics.took(Stage::Lease, took);
        evaluate::note_staleness(&mut answer, found.stale);

        Ok(answer)
    }

    async fn leases(&self, _caller: Caller) -> Result<LeasesAnswer, Problem> {
        let mut answer = self.promises.office.list().await?;
        answer
            .warnings
            .extend(self.promises.known().err().map(|unread| unread.detail));
        Ok(answer)
    }

    async fn lease(&self, _caller: Caller, id: String) -> Result<LeaseAnswer, Problem> {
        self.promises.office.get(id).await
    }

    async fn renew_lease(
        &self,
        caller: Caller,
        id: String,
        request: RenewRequest,
    ) -> Result<LeaseAnswer, Problem> {
        let ttl = request.ttl_seconds.map(Duration::from_secs);
        self.noting(self.promises.office.renew(id, &caller, ttl).await)
    }

    async fn release_lease(&self, caller: Caller, id: String) -> Result<LeaseAnswer, Problem> {
        self.noting(self.promises.office.release(id, &caller).await)
    }

    async fn release_nvml(
        &self,
        caller: Caller,
        seconds: u64,
    ) -> Result<NvmlReleaseAnswer, Problem> {
        if !Operators::of_this_process().include(caller.peer.uid) {
            return Err(Problem::new(
                Reason::Forbidden,
                "only root and the daemon's own user may release the driver",
            ));
        }

        let length = Duration::from_secs(seconds);
        self.release_told(&caller, length).await?;
        let until = SystemTime::now() + length;

        Ok(NvmlReleaseAnswer {
            schema_version: SCHEMA_VERSION,
            released_until: humantime::format_rfc3339_seconds(until).to_string(),
        })
    }

    fn observe(&self, metrics: &Metrics) {
        for (part, trouble) in self.look() {
            metrics.set_degraded(part, trouble.is_some());
        }

        self.models.observe(metrics);
        let status = self.readings.status();
        metrics.set_nvml_errors(status.as_ref().map_or(0, |status| status.errors));
        let age = status
            .as_ref()
            .and_then(|status| status.last.as_ref().map(|(age, _)| *age));

        if let Some(status) = &status {
            metrics.set_xids(&status.xids);
        }

        let standing = self.promises.office.standing().borrow().clone();
        metrics.set_leases(standing.leases, standing.waiting);
        metrics.set_lease_events(&standing.counters);

        let Some(snapshot) = self.readings.at_hand() else {
            // No figure of before: what cannot be read is absent.
            metrics.set_devices(&[], age);
            return;
        };

        // What is free may be promised where promises cannot be read.
        let known = self.promises.known().is_ok();
        let figures: Vec<DeviceFigures> = seen(&self.settled(), &snapshot, &standing.leased)
            .availability
            .devices
            .iter()
            .map(|device| DeviceFigures {
                uuid: device.facts.uuid.clone(),
                name: device.facts.name.clone(),
                total: device.facts.total_bytes,
                free: device.free,
                available: device.available.filter(|_| known),
                leased: known.then_some(device.leased),
                unusable: match &device.unusable {
                    Some(why) => Some(why.reason.clone()),
                    None => device
                        .free
                        .is_none()
                        .then(|| "memory_unreadable".to_owned()),
                },
                part_of_gpu: device.facts.parent_uuid.is_some(),
            })
            .collect();

        metrics.set_devices(&figures, age);
    }

    async fn liveness(&self) -> Result<(), String> {
        self.look();
        match self.readings.status().and_then(|status| status.busy) {
            Some((doing, since)) if since > HUNG_AFTER => Err(format!(
                "the sampler has been stuck in {doing} for {} s",
                since.as_secs()
            )),
            _ => self.promises.liveness().await,
        }
    }

    async fn reload(&self, config: Config) -> Result<Vec<String>, Problem> {
        let built = config.clone();
        let read = move |_: &Disk| {
            super::check(&built)?;
            Ok((build::rules(&built)?, leases::rules(&built)?))
        };

        let place = Path::new("the files that the configuration names");
        let (rules, ledger_rules) = self
            .site_files
            .run(place, read)
            .await
            .unwrap_or_else(|hung| Err(Problem::new(Reason::BadConfiguration, hung.to_string())))?;

        // Against what was built in at the start: a key that needs a restart needs it until there
        // was one.
        let changed = self.built.changed_keys(&config);
        self.log
            .set_filter(&config.log.filter)
            .map_err(|why| Problem::new(Reason::BadConfiguration, format!("log.filter: {why}")))?;

        self.promises
            .office
            .set_rules(ledger_rules, config.leases.default_ttl)
            .await?;
        *self
            .settled
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) =
            Arc::new(ActiveConfig { config, rules });

        // These are read at each question; the rest is built in.
        let taken_over = |key: &String| {
            [
                "placement",
                "engines.",
                "log.filter",
                "leases.default_ttl",
                "leases.max_ttl",
                "leases.user",
            ]
            .iter()
            .any(|part| key.starts_with(part))
        };

        Ok(changed.into_iter().filter(|key| !taken_over(key)).collect())
    }

    async fn stop(&self) {
        self.promises.office.stop().await;
    }
}
