//! Several questions whose models must fit at the same time.

use std::sync::Arc;

use super::assemble::assemble;
use super::host_view::HostView;
use super::problems::{batch_problem, no_devices};
use super::request::{Rules, ask};
use crate::model::Model;
use crate::placement::{Ask, fit_together};
use crate::report::TogetherAnswer;
use crate::report::answer::{Answer, Verdict};
use crate::report::problem::{Problem, Reason};
use crate::report::question::Question;

/// Answers `questions`, each about the model at the same index, for models that run at the same
/// time.
pub fn together(
    questions: &[Question],
    models: &[Arc<Model>],
    host: &HostView,
    rules: &Rules,
) -> Result<TogetherAnswer, Problem> {
    let asks: Vec<Ask<'_>> = questions
        .iter()
        .zip(models)
        .map(|(question, model)| ask(question, model, rules))
        .collect::<Result<_, _>>()?;
    let found = match fit_together(&asks, &host.availability) {
        Ok(found) => found,
        Err(error) => return Err(batch_problem(&error, &asks, host)),
    };

    if let Some(plan) = found
        .plans
        .iter()
        .find(|plan| plan.reason == Reason::NoDevices)
    {
        return Err(no_devices(plan, host));
    }

    let answers: Vec<Answer> = questions
        .iter()
        .zip(&asks)
        .zip(&found.plans)
        .map(|((question, ask), plan)| assemble(question, ask.model, ask.engine.name(), plan, host))
        .collect();
    let deciding = answers
        .iter()
        .find(|answer| answer.verdict == Some(found.verdict));
    let reason = deciding
        .and_then(|answer| answer.reason.clone())
        .unwrap_or_else(|| Reason::Fits.into());

    let mut message = match found.verdict {
        Verdict::Fits => format!("all {} fit together", answers.len()),
        Verdict::Tight => format!("all {} are likely to fit together", answers.len()),
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
