//! Checks the bounds of a request's fields. The OpenAPI document (`GET /v1/openapi.json`) states
//! the same bounds.

use std::ops::RangeInclusive;
use std::time::Duration;

use hf_mem_core::report::bounded::MAX_PARTS;
use hf_mem_core::report::lease::Holder;
use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::question::{ContextQuestion, ModelQuestion};
use hf_mem_core::report::{Problem, Question};
use serde_json::Value;

use crate::api::bounds::{
    MAX_FILE_BYTES, MAX_HOLDER_BYTES, MAX_KEY_BYTES, MAX_REVISION_BYTES, RELEASE_SECONDS,
    reject_control_characters,
};
use crate::api::lease::{LeaseRequest, RenewRequest};
use crate::api::status::NvmlReleaseRequest;

/// Rejects a question with too many parts, with numbers that no model runs with, or with empty or
/// overlong names.
pub(super) fn question(question: Question) -> Result<Question, Problem> {
    let parts = parts(&question);
    if parts > MAX_PARTS {
        let detail = format!(
            "`constraints.devices` and `engine.parameters` hold {parts} values; the most is {MAX_PARTS}"
        );
        return Err(Problem::new(Reason::Usage, detail));
    }

    let Question {
        model,
        draft,
        workload,
        constraints,
        gpus,
        ..
    } = &question;

    model_names("model", model)?;
    if let Some(draft) = draft {
        model_names("draft", draft)?;
    }

    length("gpus", gpus.as_ref(), 1..=u64::MAX)?;

    number(
        "workload.context",
        workload.context.as_ref().and_then(ContextQuestion::tokens),
        1..=u64::MAX,
    )?;

    number("workload.sequences", workload.sequences, 1..=u64::MAX)?;
    number(
        "constraints.tensor_parallel",
        constraints.tensor_parallel.map(u64::from),
        1..=u64::MAX,
    )?;

    number(
        "constraints.pipeline_parallel",
        constraints.pipeline_parallel.map(u64::from),
        1..=u64::MAX,
    )?;

    Ok(question)
}

/// Rejects empty or overlong names in `field`, the question's model or draft.
fn model_names(field: &str, model: &ModelQuestion) -> Result<(), Problem> {
    let repo = format!("{field}.repo");
    length(&repo, Some(&model.repo), 1..=u64::MAX)?;

    length(
        &format!("{field}.revision"),
        model.revision.as_ref(),
        1..=MAX_REVISION_BYTES,
    )?;
    length(
        &format!("{field}.file"),
        model.file.as_ref(),
        1..=MAX_FILE_BYTES,
    )?;

    // Without metadata this is a repository, whose name is checked where it is read.
    if model.metadata.is_some() {
        reject_control_characters(&repo, &model.repo)?;
    }

    Ok(())
}

/// Counts the devices and parameters of `question` with all their values. Parsing already bounds
/// each of them alone.
pub(super) fn parts(question: &Question) -> usize {
    fn count_values(value: &Value) -> usize {
        match value {
            Value::Array(values) => values.iter().map(count_values).sum::<usize>() + 1,
            Value::Object(values) => values.values().map(count_values).sum::<usize>() + 1,
            _ => 1,
        }
    }

    let devices = question.constraints.devices.as_ref().map_or(0, Vec::len);

    devices
        + question
            .engine
            .parameters
            .values()
            .map(count_values)
            .sum::<usize>()
}

/// Rejects a lease request whose question [`question`] rejects, or with a holder, a key or times
/// that no lease can have.
pub(super) fn lease(request: LeaseRequest, max_wait: Duration) -> Result<LeaseRequest, Problem> {
    match &request.holder {
        Some(Holder::Name(name)) => {
            length("holder.name", Some(name), 1..=MAX_HOLDER_BYTES)?;
            reject_control_characters("holder.name", name)?;
        }
        Some(Holder::Pid(pid)) => number("holder.pid", Some(u64::from(*pid)), 1..=u64::MAX)?,
        None => {}
    }

    if let Some(key) = &request.idempotency_key {
        length("idempotency_key", Some(key), 0..=MAX_KEY_BYTES)?;
        reject_control_characters("idempotency_key", key)?;
    }

    number("ttl_seconds", request.ttl_seconds, 1..=u64::MAX)?;
    number(
        "wait_seconds",
        Some(request.wait_seconds),
        0..=max_wait.as_secs(),
    )
    .map_err(|problem| problem.hint("leases.max_wait sets this limit"))?;

    Ok(LeaseRequest {
        question: question(request.question)?,
        ..request
    })
}

/// Rejects a renewal for zero seconds.
pub(super) fn renewal(request: RenewRequest) -> Result<RenewRequest, Problem> {
    number("ttl_seconds", request.ttl_seconds, 1..=u64::MAX)?;

    Ok(request)
}

/// Rejects a release of the driver for zero seconds, or for longer than any reset takes.
pub(super) fn release(request: NvmlReleaseRequest) -> Result<NvmlReleaseRequest, Problem> {
    number("seconds", request.seconds, RELEASE_SECONDS)?;

    Ok(request)
}

fn number(field: &str, value: Option<u64>, allowed: RangeInclusive<u64>) -> Result<(), Problem> {
    match value {
        Some(value) if !allowed.contains(&value) => {
            Err(outside(field, &format!("is {value}"), &allowed))
        }
        _ => Ok(()),
    }
}

fn length(field: &str, text: Option<&String>, allowed: RangeInclusive<u64>) -> Result<(), Problem> {
    let Some(text) = text else { return Ok(()) };
    let bytes = text.len() as u64;
    if allowed.contains(&bytes) {
        return Ok(());
    }

    Err(if bytes == 0 {
        Problem::new(Reason::Usage, format!("`{field}` is empty"))
    } else {
        outside(field, &format!("has {bytes} bytes"), &allowed)
    })
}

fn outside(field: &str, value: &str, allowed: &RangeInclusive<u64>) -> Problem {
    let bounds = match (*allowed.start(), *allowed.end()) {
        (min, u64::MAX) => format!("it must be at least {min}"),
        (0, max) => format!("the most is {max}"),
        (min, max) => format!("it must be from {min} to {max}"),
    };

    Problem::new(Reason::Usage, format!("`{field}` {value}; {bounds}"))
}
