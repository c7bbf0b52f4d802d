//! The path itself: question, model, engine, devices, placement, answer.

use super::assemble::{assemble, contradictory, unknown};
use super::host_view::HostView;
use super::problems::{no_devices, no_plan, only_weights_known};
use super::request::{Rules, ask};
use super::{files, suggest};
use crate::engines::EngineError;
use crate::model::Model;
use crate::placement::{PlacementError, frontier, plan};
use crate::report::answer::{Answer, Verdict};
use crate::report::problem::{Problem, Reason};
use crate::report::question::Question;

/// Answers whether and how `model` fits on the host.
///
/// "No" and "unknown" are answers. A problem is an invalid question, or a host without a usable
/// device.
pub fn answer(
    question: &Question,
    model: &Model,
    host: &HostView,
    rules: &Rules,
) -> Result<Answer, Problem> {
    let ask = ask(question, model, rules)?;
    let name = ask.engine.name();

    let plan = match plan(&ask, &host.availability) {
        Ok(plan) => plan,
        Err(PlacementError::Engine(EngineError::Headers { why })) => {
            return Ok(contradictory(model, &why, host));
        }
        Err(PlacementError::Engine(error)) => {
            return match only_weights_known(&error) {
                Some((reason, why)) => Ok(unknown(model, name, (reason, &why), host)),
                None => Err(no_plan(&PlacementError::Engine(error), &ask, host)),
            };
        }
        Err(error) => return Err(no_plan(&error, &ask, host)),
    };

    if plan.reason == Reason::NoDevices {
        return Err(no_devices(&plan, host));
    }

    let mut answer = assemble(question, model, name, &plan, host);
    if plan.reason != Reason::Fits || plan.verdict() == Verdict::Tight {
        answer.suggestions = suggest::suggestions(&ask, host, &plan, rules);
        suggest::waiting(&mut answer, &ask, host, &plan);
    }

    if let (true, Some(placement)) = (question.frontier, &plan.recommended) {
        let points = frontier(&ask, placement, host.availability.host);
        answer.frontier = Some(points.map_err(|error| no_plan(&error, &ask, host))?);
    }

    Ok(answer)
}

/// Returns [`answer`] with a verdict for every file, if the repository holds one model in many
/// files and the question names none.
pub fn fits(
    question: &Question,
    model: &Model,
    host: &HostView,
    rules: &Rules,
) -> Result<Answer, Problem> {
    let mut answer = answer(question, model, host, rules)?;
    files::list(&mut answer, question, model, host, rules, true)?;
    Ok(answer)
}
