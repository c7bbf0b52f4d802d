//! The translation of a question into a request for placement.

use super::default_engine::default_engine;
use super::problems::engine_problem;
use crate::engines::{AskedContext, AskedWorkload, Engines, releases};
use crate::model::Model;
use crate::placement::{Ask, Constraints, Policy};
use crate::report::problem::Problem;
use crate::report::question::{ContextQuestion, OffloadRule, Question};

/// The settings of a site that apply to all questions.
#[derive(Debug)]
pub struct Rules {
    /// The engines, with the site's corrections to their profiles.
    pub engines: Engines,
    /// The preference among equally good placements.
    pub policy: Policy,
}

/// Returns the request of a question for one model.
pub(super) fn ask<'a>(
    question: &'a Question,
    model: &'a Model,
    rules: &'a Rules,
) -> Result<Ask<'a>, Problem> {
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
        asked: asked_workload(question),
        constraints: Constraints {
            tensor: question.constraints.tensor_parallel,
            pipeline: question.constraints.pipeline_parallel,
            devices: question.constraints.devices.clone(),
            offload: question.constraints.offload == OffloadRule::Allow,
        },
        policy: rules.policy.clone(),
    })
}

/// Rejects a question that names an unknown engine, or an impossible version of an engine.
///
/// The check needs no model, so it runs before anything is read for the question.
pub fn check_engine(question: &Question, rules: &Rules) -> Result<(), Problem> {
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

/// Returns the requested workload.
fn asked_workload(question: &Question) -> AskedWorkload {
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
