//! Questions: finds the model and the devices, and plans.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::Snapshot;
use hf_mem_core::evaluate;
use hf_mem_core::evaluate::HostView;
use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::raw_json::RawJson;
use hf_mem_core::report::{Answer, Problem, Question, TogetherAnswer};
use tracing::{Instrument as _, debug_span};

use super::answer_cache::{CacheInputs, CachedAnswer};
use super::found_model::{FoundModel, References};
use super::stages::log_stage;
use super::{ActiveConfig, HostService, build, models};
use crate::api::peer::Caller;
use crate::metrics::{CacheResult, Metrics, Stage};
use crate::server::service::SerializedAnswer;

/// The most questions times devices that one batch can have: some seconds of work.
const MAX_BATCH_CELLS: usize = 4096;

/// A reading of this host's devices, and what leases claim on them.
type Reading = (Arc<Snapshot>, BTreeMap<String, Bytes>);

impl HostService {
    /// Returns the cached answer to `body` if all that it follows from is unchanged.
    pub(super) async fn find_cached_answer(
        &self,
        caller: &Caller,
        body: &[u8],
    ) -> Result<Option<SerializedAnswer>, Problem> {
        let Some(cached) = self.answer_cache.find(body) else {
            return Ok(None);
        };

        let in_memory = self.models.in_memory(caller, cached.references()).await;
        let Some((models, stale)) = in_memory else {
            return Ok(None);
        };

        let active = self.active();
        let (snapshot, claims) = self.reading().await?;

        let inputs = CacheInputs {
            models,
            stale,
            snapshot,
            claims,
            active,
        };

        let answer = cached.answer_for(&inputs);
        if answer.is_some() {
            self.metrics.model_lookup(CacheResult::Memory);
        }

        Ok(answer)
    }

    /// Plans one question and caches the answer under `body`.
    pub(super) async fn plan_fit(
        &self,
        caller: Caller,
        question: Question,
        body: Option<bytes::Bytes>,
    ) -> Result<SerializedAnswer, Problem> {
        let active = self.active();
        evaluate::check_engine(&question, &active.rules)?;
        let found = self.model(&caller, &question).await?;
        let question = Self::complete(&active, question, &found);
        if question.gpus.is_some() || sends_metadata(&question) {
            let slot = self.plan_pool.slot(caller.peer.uid).await?;
            let host = self.host_view(&active, &question).await?;
            let metrics = Arc::clone(&self.metrics);
            return slot
                .run(move || answer(&metrics, &question, &found, &host, &active))
                .await;
        }

        let (mut snapshot, mut claims) = self.timed_reading().await?;
        let mut slot = None;
        if evaluate::is_expensive(&question, &found.model, snapshot.devices.len()) {
            slot = Some(self.plan_pool.slot(caller.peer.uid).await?);
            (snapshot, claims) = self.timed_reading().await?;
        }

        let cache_key = match body {
            Some(body) => Some((body, References::of_question(&question)?)),
            None => None,
        };

        let host = self.site_view(&active, &snapshot, &claims);
        let metrics = Arc::clone(&self.metrics);

        let inputs = CacheInputs {
            models: found.read.clone(),
            stale: found.stale,
            snapshot,
            claims,
            active: Arc::clone(&active),
        };

        let plan_answer = move || answer(&metrics, &question, &found, &host, &active);
        let planned = match slot {
            Some(slot) => slot.run(plan_answer).await?,
            None => plan_answer()?,
        };

        if let Some((body, references)) = cache_key {
            let cached = CachedAnswer::new(references, inputs, planned.clone());
            self.answer_cache.insert(&body, cached);
        }

        Ok(planned)
    }

    /// Plans several questions that must fit at once.
    pub(super) async fn plan_batch(
        &self,
        caller: Caller,
        questions: Vec<Question>,
    ) -> Result<TogetherAnswer, Problem> {
        let active = self.active();
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
            evaluate::check_engine(&question, &active.rules)?;
            let found = self.model(&caller, &question).await?;
            completed.push(Self::complete(&active, question, &found));
            models.push(found.model);
        }

        let Some(first) = completed.first() else {
            return Err(Problem::new(
                Reason::Usage,
                "questions: at least one is needed",
            ));
        };

        let slot = self.plan_pool.slot(caller.peer.uid).await?;
        let host = self.host_view(&active, first).await?;
        check_batch_size(completed.len(), host.availability.devices.len())?;

        let metrics = Arc::clone(&self.metrics);
        let plan_together = move || {
            plan(&metrics, || {
                evaluate::together(&completed, &models, &host, &active.rules)
            })
        };

        slot.run(plan_together).await
    }

    /// Plans what a model needs, independent of free memory.
    pub(super) async fn plan_estimate(
        &self,
        caller: Caller,
        question: Question,
    ) -> Result<Answer, Problem> {
        let active = self.active();
        evaluate::check_engine(&question, &active.rules)?;
        let found = self.model(&caller, &question).await?;
        let question = Self::complete(&active, question, &found);
        let declared = question
            .gpus
            .as_deref()
            .map(|spec| HostView::declared(spec, SystemTime::now()))
            .transpose()?;

        let metrics = Arc::clone(&self.metrics);
        let plan_need = move || {
            let mut answer = plan(&metrics, || {
                evaluate::estimate(&question, &found.model, declared, &active.rules)
            })?;
            evaluate::note_staleness(&mut answer, found.stale);
            Ok(answer)
        };

        self.plan_pool.run(caller.peer.uid, plan_need).await
    }

    /// Finds the model of `question` and its draft.
    pub(super) async fn model(
        &self,
        caller: &Caller,
        question: &Question,
    ) -> Result<FoundModel, Problem> {
        let model = &question.model;
        let find_model = async {
            match model.metadata.clone() {
                Some(metadata) => self.assemble(caller, "model", metadata).await,
                None => self.models.find(caller, "model", model).await,
            }
        };

        let found = self.observed(&model.repo, find_model).await?;
        let Some(draft) = &question.draft else {
            return Ok(found);
        };

        let find_draft = async {
            match draft.metadata.clone() {
                Some(metadata) => self.assemble(caller, "draft", metadata).await,
                None => self.models.find_draft(caller, question, draft).await,
            }
        };

        let draft = self.observed(&draft.repo, find_draft).await;
        Ok(found.with_draft(draft.map_err(Problem::with_draft)?))
    }

    /// Assembles the model of the metadata that the question's `field` holds.
    async fn assemble(
        &self,
        caller: &Caller,
        field: &'static str,
        metadata: RawJson,
    ) -> Result<FoundModel, Problem> {
        self.plan_pool
            .run(caller.peer.uid, move || models::sent(field, &metadata))
            .await
    }

    /// Awaits `find`, which finds the model `repo`, and records how long it took and where it was.
    async fn observed(
        &self,
        repo: &str,
        find: impl Future<Output = Result<FoundModel, Problem>>,
    ) -> Result<FoundModel, Problem> {
        let started = Instant::now();
        let span = debug_span!("model", repo);
        let found = find.instrument(span).await;
        let elapsed = started.elapsed();
        log_stage("model", elapsed, &found, |found| found.cache.word());

        // In these cases a request to a Hub or a write to the cache was tried.
        let touched_hub_or_disk = found.as_ref().map_or(true, |found| {
            found.stale || found.cache == CacheResult::Miss
        });
        if touched_hub_or_disk {
            self.check_health();
        }

        let found = found?;
        self.metrics.took(Stage::Model, elapsed);
        self.metrics.model_lookup(found.cache);

        Ok(found)
    }

    /// Puts the site's default engine into `question` if it applies to the model.
    pub(super) fn complete(
        active: &ActiveConfig,
        mut question: Question,
        found: &FoundModel,
    ) -> Question {
        build::complete(&active.config, &mut question, &found.model);
        question
    }

    /// Returns the devices that `question` declares, else this host's.
    async fn host_view(
        &self,
        active: &ActiveConfig,
        question: &Question,
    ) -> Result<HostView, Problem> {
        if let Some(spec) = &question.gpus {
            return HostView::declared(spec, SystemTime::now());
        }

        let (snapshot, claims) = self.timed_reading().await?;
        Ok(self.site_view(active, &snapshot, &claims))
    }

    /// As [`leasable_view`], with the memory that was being freed at the reading.
    fn site_view(
        &self,
        active: &ActiveConfig,
        snapshot: &Snapshot,
        claims: &BTreeMap<String, Bytes>,
    ) -> HostView {
        let mut host = leasable_view(active, snapshot, claims);
        host.draining = self.devices.draining(snapshot);
        host
    }

    /// As [`Self::reading`], logged as a stage of a question.
    async fn timed_reading(&self) -> Result<Reading, Problem> {
        let started = Instant::now();
        let read = self.reading().await;
        log_stage("devices", started.elapsed(), &read, |(snapshot, _)| {
            if snapshot.stale { "stale" } else { "read" }
        });

        self.log_recoveries();
        read
    }

    /// Returns the last reading of this host's devices, and what leases claim on them.
    async fn reading(&self) -> Result<Reading, Problem> {
        let read = async {
            let started = Instant::now();
            let snapshot = self.devices.latest().await?;
            self.metrics.took(Stage::Sample, started.elapsed());
            let claims = self.leases.claims(&snapshot).await?;
            Ok((snapshot, claims))
        };

        self.check_health_on_error(read.instrument(debug_span!("devices")).await)
    }
}

/// Whether the client sent the metadata of a model.
fn sends_metadata(question: &Question) -> bool {
    let draft_metadata = question
        .draft
        .as_ref()
        .and_then(|draft| draft.metadata.as_ref());

    question.model.metadata.is_some() || draft_metadata.is_some()
}

/// Rejects a batch whose planning would take too long.
fn check_batch_size(questions: usize, devices: usize) -> Result<(), Problem> {
    if questions.saturating_mul(devices) <= MAX_BATCH_CELLS {
        return Ok(());
    }

    let detail = format!("{questions} questions on {devices} devices at once");
    let hint = format!("questions times devices can be at most {MAX_BATCH_CELLS}: split the batch");
    Err(Problem::new(Reason::Usage, detail).hint(hint))
}

/// Returns a reading without what leases claim and what the site reserves on every device.
pub(super) fn leasable_view(
    active: &ActiveConfig,
    snapshot: &Snapshot,
    claims: &BTreeMap<String, Bytes>,
) -> HostView {
    let mut host = HostView::new(snapshot, claims);
    host.availability = host
        .availability
        .keeping(active.config.placement.margin.get());
    host
}

/// Plans, and records how long it takes.
fn plan<T>(metrics: &Metrics, work: impl FnOnce() -> Result<T, Problem>) -> Result<T, Problem> {
    let started = Instant::now();
    let planned = debug_span!("plan").in_scope(work);
    let elapsed = started.elapsed();
    metrics.took(Stage::Plan, elapsed);
    log_stage("plan", elapsed, &planned, |_| "planned");
    planned
}

/// Plans one question and serializes the answer.
fn answer(
    metrics: &Metrics,
    question: &Question,
    found: &FoundModel,
    host: &HostView,
    active: &ActiveConfig,
) -> Result<SerializedAnswer, Problem> {
    let mut answer = plan(metrics, || {
        evaluate::fits(question, &found.model, host, &active.rules)
    })?;
    evaluate::note_staleness(&mut answer, found.stale);
    Ok(SerializedAnswer::new(&answer))
}
