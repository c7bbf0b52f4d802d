//! The assembly of an answer from a plan, and the answers without a plan.

use super::host_view::HostView;
use super::{leased, model_report, requirement, summary};
use crate::engines::releases::newest_verified;
use crate::model::Model;
use crate::placement::Plan;
use crate::report::answer::{
    Answer, ContextSource, EngineAnswer, Shortfall, Verdict, WorkloadAnswer,
};
use crate::report::problem::Reason;
use crate::report::question::{ContextQuestion, Question};

/// Assembles the answer of a plan.
pub(super) fn assemble(
    question: &Question,
    model: &Model,
    engine: &str,
    plan: &Plan,
    host: &HostView,
) -> Answer {
    let mut answer = base(model, host);
    answer.verdict = Some(plan.verdict());
    answer.set_reason(plan.reason);

    if let Some(settled) = &plan.settled {
        answer.engine = Some(EngineAnswer {
            name: engine.to_owned(),
            profile: settled.profile.clone(),
            newest_verified: newest_verified(engine).map(ToString::to_string),
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

    let unused = plan
        .passed_over
        .iter()
        .map(|it| format!("{} ({}) is not used: {}", it.name, it.uuid, it.why));
    answer.warnings.extend(unused);

    for device in plan
        .recommended
        .iter()
        .flat_map(|placement| &placement.ranks)
        .map(|rank| &rank.device)
    {
        let notes = host.notes.get(&device.uuid).into_iter().flatten();
        answer
            .warnings
            .extend(notes.map(|note| format!("{} ({}): {note}", device.name, device.uuid)));
    }

    answer.message = summary::message(&answer, plan);
    leased::refuse_taking_leased(&mut answer);

    answer
}

/// Returns the answer for a model whose need is unknown: the exact weights, and no guesses.
pub(super) fn unknown(
    model: &Model,
    engine: &str,
    (reason, why): (Reason, &str),
    host: &HostView,
) -> Answer {
    let mut answer = base(model, host);
    answer.verdict = Some(Verdict::Unknown);
    answer.set_reason(reason);
    answer.short_by_bytes = Shortfall::Unknown;
    answer.message = format!("{} on {engine}: {why}", model.asked().repo);
    answer.requirement = Some(requirement::weights_only(model));
    answer
}

/// Returns the answer for a model whose headers contradict its files: no figure would be right.
pub(super) fn contradictory(model: &Model, why: &str, host: &HostView) -> Answer {
    let mut answer = base(model, host);
    answer.verdict = Some(Verdict::Unknown);
    answer.set_reason(Reason::MissingMetadata);
    answer.short_by_bytes = Shortfall::Unknown;
    answer.message = format!("{}: {why}", model.asked().repo);
    answer
}

/// Returns an answer with what is known of model and reading whatever the verdict.
fn base(model: &Model, host: &HostView) -> Answer {
    Answer {
        schema_version: crate::report::SCHEMA_VERSION,
        model: model_report::report(model),
        sampled_at: Some(humantime::format_rfc3339_millis(host.sampled_at).to_string()),
        stale: host.stale,
        assumptions: model.assumptions.clone(),
        warnings: model.warnings.clone(),
        ..Answer::default()
    }
}

/// Adds a warning if the model's metadata could not be checked against the Hub.
pub fn note_staleness(answer: &mut Answer, stale: bool) {
    if stale {
        answer.stale = true;
        answer
            .warnings
            .push("the Hub could not be asked whether this is the newest commit".to_owned());
    }
}
