//! The path itself: question, model, engine, devices, placement, answer.
//!
//! Everything that waits (the Hub, the driver, the ledger) has happened before: [`answer`] takes
//! values and returns one.

pub mod complexity;
mod engine_choice;
mod files;
mod leased;
mod model_report;
mod overflow;
mod requirement;
mod suggest;
pub mod summary;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::bytes::Bytes;
use crate::device::{Device, Snapshot, UnusableReason, declared};
use crate::engines::{AskedContext, AskedWorkload, EngineError, Engines, releases};
use crate::model::Model;
use crate::placement::{
    Ask, Availability, Available, Constraints, MemoryHolder, PlacementError, Plan, Policy,
    fit_together, plan,
};
use crate::report::TogetherAnswer;
use crate::report::answer::{
    Answer, ContextSource, EngineAnswer, Shortfall, Verdict, WorkloadAnswer,
};
use crate::report::problem::{Problem, Reason};
use crate::report::question::{ContextQuestion, OffloadRule, Question};

pub use complexity::{leasable, takes_long};
pub use engine_choice::default_engine;
pub use model_report::report as model_answer;

/// Devices as a question meets them.
#[derive(Clone, Debug)]
pub struct HostView {
    /// What can be given on each device.
    pub availability: Availability,
    /// When the devices were read.
    pub sampled_at: SystemTime,
    /// Whether that reading is older than it should be.
    pub stale: bool,
    /// Processes and leases that could make room.
    pub holders: Vec<MemoryHolder>,
    /// Bytes a second that are coming free by themselves, by UUID.
    pub draining: BTreeMap<String, Bytes>,
    /// What is worth knowing of a device, by its UUID, and forbids nothing.
    pub notes: BTreeMap<String, Vec<String>>,
}

/// [`answer`], and where the repository holds one model in many files and none was asked for, the
/// verdict of each.
pub fn fits(
    question: &Question,
    model: &Model,
    here: &HostView,
    rules: &Rules,
) -> Result<Answer, Problem> {
    let mut answer = answer(question, model, here, rules)?;
    files::list(&mut answer, question, model, here, rules, true)?;
    Ok(answer)
}

/// What a site has settled for all questions.
#[derive(Debug)]
pub struct Rules {
    /// The engines, with the site's corrections to their profiles.
    pub engines: Engines,
    /// What is preferred among ways that are equally good.
    pub policy: Policy,
}

/// Whether and how `model` fits `here`.
///
/// "No" and "unknown" are answers. A problem is a question that cannot be asked, or a host without
/// a usable device.
pub fn answer(
    question: &Question,
    model: &Model,
    here: &HostView,
    rules: &Rules,
) -> Result<Answer, Problem> {
    let ask = ask(question, model, rules)?;
    let name = ask.engine.name();

    let plan = match plan(&ask, &here.availability) {
        Ok(plan) => plan,
        Err(PlacementError::Engine(EngineError::Headers { why })) => {
            return Ok(contradictory(model, &why, here));
        }
        Err(PlacementError::Engine(error)) => {
            return match untold(&error) {
                Some((reason, why)) => Ok(unknown(model, name, (reason, &why), here)),
                None => Err(no_plan(&PlacementError::Engine(error), &ask, here)),
            };
        }
        Err(error) => return Err(no_plan(&error, &ask, here)),
    };

    if plan.reason == Reason::NoDevices {
        return Err(no_devices(&plan, here));
    }

    let mut answer = conclude(question, model, name, &plan, here);
    if plan.reason != Reason::Fits || plan.verdict() == Verdict::Tight {
        answer.suggestions = suggest::suggestions(&ask, here, &plan, rules);
        suggest::waiting(&mut answer, &ask, here, &plan);
    }

    if let (true, Some(placement)) = (question.frontier, &plan.recommended) {
        let points = crate::placement::frontier(&ask, placement, here.availability.host);
        answer.frontier = Some(points.map_err(|error| no_plan(&error, &ask, here))?);
    }

    Ok(answer)
}

fn ask<'a>(question: &'a Question, model: &'a Model, rules: &'a Rules) -> Result<Ask<'a>, Problem> {
    let name = question
        .engine
        .name
        .as_deref()
        .unwrap_or_else(|| default_engine(model));
    let engine = rules
        .engines
        .by_name(name)
        .map_err(|error| engine_problem(&error))?;

    Ok(Ask {
        engine,
        model,
        version: question.engine.version.as_ref(),
        parameters: &question.engine.parameters,
        asked: asked(question),
        constraints: Constraints {
            tensor: question.constraints.tensor_parallel,
            pipeline: question.constraints.pipeline_parallel,
            devices: question.constraints.devices.clone(),
            offload: question.constraints.offload == OffloadRule::Allow,
        },
        policy: rules.policy.clone(),
    })
}

/// Refuses a question that names an engine which does not exist, or a version that the engine
/// cannot have, before anything is read for it.
pub fn known_engine(question: &Question, rules: &Rules) -> Result<(), Problem> {
    let Some(name) = &question.engine.name else {
        return Ok(());
    };

    let engine = rules
        .engines
        .by_name(name)
        .map_err(|error| engine_problem(&error))?;

    match &question.engine.version {
        Some(version) => {
            releases::check_form(engine.name(), version).map_err(|error| engine_problem(&error))
        }
        None => Ok(()),
    }
}

/// Whether all of `questions`, each about the model at its place, fit `here` at once.
pub fn together(
    questions: &[Question],
    models: &[Arc<Model>],
    here: &HostView,
    rules: &Rules,
) -> Result<TogetherAnswer, Problem> {
    let asks: Vec<Ask<'_>> = questions
        .iter()
        .zip(models)
        .map(|(question, model)| ask(question, model, rules))
        .collect::<Result<_, _>>()?;
    let found = match fit_together(&asks, &here.availability) {
        Ok(found) => found,
        Err(error) => return Err(none_together(&error, &asks, here)),
    };

    if let Some(plan) = found
        .plans
        .iter()
        .find(|plan| plan.reason == Reason::NoDevices)
    {
        return Err(no_devices(plan, here));
    }

    let one = |((question, ask), plan): ((&Question, &Ask<'_>), &Plan)| {
        conclude(question, ask.model, ask.engine.name(), plan, here)
    };

    let answers: Vec<Answer> = questions
        .iter()
        .zip(&asks)
        .zip(&found.plans)
        .map(one)
        .collect();
    let deciding = answers
        .iter()
        .find(|answer| answer.verdict == Some(found.verdict));
    let reason = deciding
        .and_then(|answer| answer.reason.clone())
        .unwrap_or_else(|| Reason::Fits.into());

    let mut message = match found.verdict {
        Verdict::Fits => format!("all {} fit together", answers.len()),
        Verdict::Tight => format!(
            "all {} fit together if all goes as it usually does",
            answers.len()
        ),
        _ => deciding.map_or_else(String::new, |answer| {
            format!("they do not fit together: {}", answer.message)
        }),
    };

    if found.gave_up {
        message.push_str("; not every combination was tried");
    }

    Ok(TogetherAnswer {
        schema_version: crate::report::SCHEMA_VERSION,
        verdict: found.verdict,
        reason,
        message,
        answers,
    })
}

/// What `model` needs, whatever is installed here: on the declared devices, or on as many of a
/// common data-centre GPU as it takes, which the answer then says.
pub fn estimate(
    question: &Question,
    model: &Model,
    declared: Option<HostView>,
    rules: &Rules,
) -> Result<Answer, Problem> {
    if let Some(here) = declared {
        return fits(question, model, &here, rules);
    }

    let fixed = question.constraints.tensor_parallel.is_some()
        || question.constraints.pipeline_parallel.is_some();
    let asked = u64::from(question.constraints.tensor_parallel.unwrap_or(1))
        * u64::from(question.constraints.pipeline_parallel.unwrap_or(1));
    let counts: &[u64] = if fixed { &[asked] } else { &ASSUMED_COUNTS };
    let mut last = None;

    for count in counts {
        let here =
            HostView::declared(&format!("{count}x{ASSUMED_DEVICE}"), SystemTime::UNIX_EPOCH)?;
        let mut found = answer(question, model, &here, rules)?;

        // Nothing short on the devices: only how much host memory there is cannot be told, and more
        // devices tell it neither.
        let settled = matches!(
            found.verdict,
            Some(Verdict::Fits | Verdict::Tight | Verdict::Unknown)
        ) || found.short_by_bytes == Shortfall::Bytes(0);
        if found.verdict != Some(Verdict::Unknown) {
            found.assumptions.insert(
                0,
                format!("figured for {count} x {ASSUMED_DEVICE}, all of it free; name your own devices with --gpus"),
            );
            found.message = summary::estimate(&found);
            found.withdraw_verdict();
            found.suggestions.clear();
            found.alternatives.clear();
        }

        found.sampled_at = None;
        if settled {
            files::list(&mut found, question, model, &here, rules, false)?;
            return Ok(found);
        }

        last = Some(found);
    }

    last.ok_or_else(|| Problem::new(Reason::Internal, "no number of devices was tried"))
}

/// Says of an answer that its model's metadata could not be checked against the Hub.
pub fn note_staleness(answer: &mut Answer, stale: bool) {
    if stale {
        answer.stale = true;
        answer
            .warnings
            .push("the Hub could not be asked whether this is still the newest commit".to_owned());
    }
}

/// What `estimate` figures for when nobody names a device: the commonest card of its class in
/// published engine logs.
const ASSUMED_DEVICE: &str = "H100-80GB";
const ASSUMED_COUNTS: [u64; 6] = [1, 2, 4, 8, 16, 32];

impl HostView {
    /// The devices that `spec` declares, all of them as free as it says.
    pub fn declared(spec: &str, at: SystemTime) -> Result<Self, Problem> {
        let snapshot = declared::parse(spec, at)?;
        Ok(Self::of(&snapshot, &BTreeMap::new()))
    }

    /// A reading, less what leases claim.
    pub fn of(snapshot: &Snapshot, leased: &BTreeMap<String, Bytes>) -> Self {
        Self {
            availability: crate::placement::availability(snapshot, leased),
            sampled_at: snapshot.sampled_at,
            stale: snapshot.stale,
            holders: MemoryHolder::processes(snapshot),
            draining: BTreeMap::new(),
            notes: notes(snapshot),
        }
    }
}

fn notes(snapshot: &Snapshot) -> BTreeMap<String, Vec<String>> {
    let noted = snapshot
        .devices
        .iter()
        .filter(|device| !device.warnings.is_empty());
    let of = |device: &Device| {
        device
            .warnings
            .iter()
            .map(|warning| warning.message.clone())
            .collect()
    };

    noted
        .map(|device| (device.facts.uuid.clone(), of(device)))
        .collect()
}

fn asked(question: &Question) -> AskedWorkload {
    AskedWorkload {
        context: question
            .workload
            .context
            .as_ref()
            .map(|context| match context {
                ContextQuestion::Tokens(tokens) => AskedContext::Tokens(*tokens),
                ContextQuestion::Word(_) => AskedContext::Max,
            }),
        sequences: question.workload.sequences,
        kv_cache_dtype: question.workload.kv_cache_dtype.clone(),
        dtype: question.workload.dtype.clone(),
    }
}

fn conclude(
    question: &Question,
    model: &Model,
    engine: &str,
    plan: &Plan,
    here: &HostView,
) -> Answer {
    let mut answer = blank(model, here);
    answer.verdict = Some(plan.verdict());
    answer.set_reason(plan.reason);

    if let Some(settled) = &plan.settled {
        answer.engine = Some(EngineAnswer {
            name: engine.to_owned(),
            profile: settled.profile.clone(),
            parameters: settled.parameters.clone(),
        });

        answer.workload = Some(WorkloadAnswer {
            context: settled.workload.context,
            context_from: match question.workload.context {
                Some(ContextQuestion::Tokens(_)) => ContextSource::Asked,
                Some(ContextQuestion::Word(_)) => ContextSource::ModelMaximum,
                None => ContextSource::EngineDefault,
            }
            .into(),
            sequences: settled.workload.sequences,
            kv_cache_dtype: settled.kv_cache_dtype.clone(),
        });

        if let Some(placement) = &plan.recommended {
            answer.requirement = Some(requirement::total(placement, settled));
        }
    }

    answer.placement = plan.recommended.as_ref().map(requirement::placement);
    answer.alternatives = plan
        .alternatives
        .iter()
        .map(requirement::alternative)
        .collect();

    answer.short_by_bytes = match &plan.recommended {
        Some(_) => Shortfall::Bytes(plan.short_by.get()),
        None => Shortfall::Unknown,
    };

    answer.assumptions.extend(plan.assumptions.iter().cloned());
    answer.warnings.extend(plan.warnings.iter().cloned());

    let over = plan
        .passed_over
        .iter()
        .map(|over| format!("{} ({}) is not used: {}", over.name, over.uuid, over.why));
    answer.warnings.extend(over);

    for device in plan
        .recommended
        .iter()
        .flat_map(|placement| &placement.ranks)
        .map(|rank| &rank.device)
    {
        let notes = here.notes.get(&device.uuid).into_iter().flatten();
        answer
            .warnings
            .extend(notes.map(|note| format!("{} ({}): {note}", device.name, device.uuid)));
    }

    answer.message = summary::message(&answer, plan);
    leased::refuse_taking_leased(&mut answer);

    answer
}

/// The reason and the sentence of an error after which only the weights are known; `None` for any
/// other error.
fn untold(error: &EngineError) -> Option<(Reason, String)> {
    match error {
        EngineError::Unsupported { why, .. } => {
            Some((Reason::UnsupportedArchitecture, why.clone()))
        }
        EngineError::UnsupportedVersion { .. } => {
            Some((Reason::UnsupportedEngineVersion, error.to_string()))
        }
        EngineError::UnsupportedParameter { .. } => {
            Some((Reason::UnsupportedParameter, error.to_string()))
        }
        _ => None,
    }
}

/// The answer for a model whose need is not understood: exact weights, and nothing that would be a
/// guess.
fn unknown(model: &Model, engine: &str, (reason, why): (Reason, &str), here: &HostView) -> Answer {
    let mut answer = blank(model, here);
    answer.verdict = Some(Verdict::Unknown);
    answer.set_reason(reason);
    answer.short_by_bytes = Shortfall::Unknown;
    answer.message = format!("{} on {engine}: {why}", model.asked().repo);
    answer.requirement = Some(requirement::weights_only(model));
    answer
}

/// The answer for a model whose headers cannot describe its files: no figure of it would be right.
fn contradictory(model: &Model, why: &str, here: &HostView) -> Answer {
    let mut answer = blank(model, here);
    answer.verdict = Some(Verdict::Unknown);
    answer.set_reason(Reason::MissingMetadata);
    answer.short_by_bytes = Shortfall::Unknown;
    answer.message = format!("{}: {why}", model.asked().repo);
    answer
}

/// An answer that says of the model and the reading what is known whatever the verdict.
fn blank(model: &Model, here: &HostView) -> Answer {
    Answer {
        schema_version: crate::report::SCHEMA_VERSION,
        model: model_report::report(model),
        sampled_at: Some(humantime::format_rfc3339_millis(here.sampled_at).to_string()),
        stale: here.stale,
        assumptions: model.proofs.clone(),
        warnings: model.doubts.clone(),
        ..Answer::default()
    }
}

/// Why there is no plan at all, as a failure.
fn no_plan(error: &PlacementError, ask: &Ask<'_>, here: &HostView) -> Problem {
    match error {
        PlacementError::Engine(EngineError::Overflow { what }) => {
            let by_asker = overflow::of_the_asker(what, ask, &here.availability);
            by_asker.unwrap_or_else(|| Problem::new(Reason::MissingMetadata, error.to_string()))
        }
        PlacementError::Engine(error) => engine_problem(error),
        error => Problem::new(Reason::Usage, error.to_string()),
    }
}

/// Why there is no plan for several questions, as a failure that names the question.
fn none_together(error: &PlacementError, asks: &[Ask<'_>], here: &HostView) -> Problem {
    let failing = asks.iter().enumerate().find_map(|(place, ask)| {
        let error = plan(ask, &here.availability).err()?;
        let mut problem = no_plan(&error, ask, here);
        problem.detail = format!("questions[{place}]: {}", problem.detail);
        Some(problem)
    });

    failing.unwrap_or_else(|| match error {
        PlacementError::Engine(error) => engine_problem(error),
        error => Problem::new(Reason::Usage, error.to_string()),
    })
}

/// Why an engine gives no figures at all, as a failure.
fn engine_problem(error: &EngineError) -> Problem {
    let reason = match error {
        EngineError::Unsupported { .. } => Reason::UnsupportedArchitecture,
        EngineError::UnsupportedVersion { .. } => Reason::UnsupportedEngineVersion,
        EngineError::UnsupportedParameter { .. } => Reason::UnsupportedParameter,
        EngineError::UnknownParameter { .. }
        | EngineError::ParameterOfOtherRelease { .. }
        | EngineError::BadParameter { .. }
        | EngineError::InvalidVersion { .. }
        | EngineError::UnknownEngine { .. } => Reason::Usage,
        EngineError::Headers { .. } | EngineError::Overflow { .. } => Reason::MissingMetadata,
    };

    Problem::new(reason, error.to_string())
}

/// No usable device: because one is lost, or because there is none.
fn no_devices(plan: &Plan, here: &HostView) -> Problem {
    // A MIG parent only says that its instances are what counts; and a lost GPU is what an operator
    // must hear of first.
    let asked = |device: &&Available| {
        plan.passed_over
            .iter()
            .any(|over| over.uuid == device.facts.uuid)
    };

    let words = here
        .availability
        .devices
        .iter()
        .filter(asked)
        .filter_map(|device| device.unusable.as_ref());
    let words = words
        .map(|unusable| &unusable.reason)
        .filter(|word| **word != UnusableReason::MigParent);
    let lost = words.clone().find(|word| **word == UnusableReason::GpuLost);
    let reason = lost
        .or_else(|| words.clone().next())
        .map_or(Reason::NoDevices, Reason::of_device);

    let over = plan
        .passed_over
        .iter()
        .map(|over| format!("{} ({}): {}", over.name, over.uuid, over.why));
    let said = over.collect::<Vec<_>>().join("; ");
    let detail = if said.is_empty() {
        "there is no GPU here".to_owned()
    } else {
        format!("no device can be used: {said}")
    };

    Problem::new(reason, detail)
        .hint("ask for declared devices with --gpus, or see hf-mem-probe gpus")
}
