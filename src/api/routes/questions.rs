//! `/v1/fits` and `/v1/estimates`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::App;
use super::body::{Deadline, Sent, parse, read, within};
use super::failure::Failure;
use crate::api::answer::{Answer, Verdict};
use crate::api::limits::{PARTS, QUESTIONS, without_controls};
use crate::api::peer::Caller;
use crate::api::problem::Reason;
use crate::api::service::{Service, Written};
use crate::api::{Problem, Question};
use crate::metrics::Metrics;

/// Several questions that must fit together.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct Together {
    /// The questions; each sees what the ones before it were given.
    #[schema(min_items = 1, max_items = 64)]
    pub(in crate::api) questions: Vec<Question>,
}

/// Tells the two forms of a body apart without parsing either loosely: an untagged enum would not name a wrong field.
#[derive(Deserialize)]
struct Form {
    questions: Option<IgnoredAny>,
}

/// Longest body by which an answer is known again.
const SHORT_BODY_BYTES: usize = 4096;

pub(super) async fn fits<S: Service>(
    State(app): State<Arc<App<S>>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Response, Failure> {
    let deadline = Deadline::after(app.limits.handler_deadline);
    let Sent { bytes: body, room: _room } = read(body, &app, &caller, deadline).await?;
    let short = (body.len() <= SHORT_BODY_BYTES).then(|| body.clone());
    if let Some(body) = &short
        && let Some(written) = within(deadline, NO_ANSWER, app.service.again(&caller, body)).await?
    {
        return Ok(given(&app.metrics, &written));
    }
    let several = serde_json::from_slice::<Form>(&body).is_ok_and(|form| form.questions.is_some());
    if !several {
        let question = bounded(parse(&body)?)?;
        // Whoever waits for its turn holds what it sent once.
        drop(body);
        // Boxed: the way to a model that is not known is a large future, and would be copied with every small one.
        let written = within(deadline, NO_ANSWER, Box::pin(app.service.fits(caller, question, short))).await?;
        return Ok(given(&app.metrics, &written));
    }
    let Together { questions } = parse(&body)?;
    drop(body);
    if questions.is_empty() || questions.len() > QUESTIONS {
        let detail = format!("`questions` holds {}; 1 to {QUESTIONS} are answered together", questions.len());
        return Err(Problem::new(Reason::Usage, detail).into());
    }
    let questions = questions.into_iter().map(bounded).collect::<Result<_, _>>()?;
    let answer = within(deadline, NO_ANSWER, Box::pin(app.service.fits_together(caller, questions))).await?;
    for answer in &answer.answers {
        count(&app.metrics, answer.verdict, known_reason(answer));
    }
    Ok(Json(answer).into_response())
}

pub(super) async fn estimates<S: Service>(
    State(app): State<Arc<App<S>>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Json<Answer>, Failure> {
    let deadline = Deadline::after(app.limits.handler_deadline);
    let Sent { bytes, room: _room } = read(body, &app, &caller, deadline).await?;
    let question = bounded(parse(&bytes)?)?;
    drop(bytes);
    let answer = within(deadline, NO_ANSWER, app.service.estimate(caller, question)).await?;
    Ok(counted(&app.metrics, answer))
}

/// Counts what is `written` and sends it.
fn given(metrics: &Metrics, written: &Written) -> Response {
    count(metrics, written.verdict(), written.reason());
    ([(header::CONTENT_TYPE, "application/json")], written.json().clone()).into_response()
}

/// `question`, unless it is of more parts than anybody means, or of a name that nobody gives.
pub(super) fn bounded(question: Question) -> Result<Question, Problem> {
    fn within(value: &Value) -> usize {
        match value {
            Value::Array(values) => values.iter().map(within).sum::<usize>() + 1,
            Value::Object(values) => values.values().map(within).sum::<usize>() + 1,
            _ => 1,
        }
    }
    let devices = question.constraints.devices.as_ref().map_or(0, Vec::len);
    let parts = devices + question.engine.parameters.values().map(within).sum::<usize>();
    if parts > PARTS {
        let detail = format!("`constraints.devices` and `engine.parameters` hold {parts} values; the most is {PARTS}");
        return Err(Problem::new(Reason::Usage, detail));
    }
    // Without metadata it names a repository, which is checked where it is read.
    if question.model.metadata.is_some() {
        without_controls("model.repo", &question.model.repo)?;
    }
    Ok(question)
}

/// What is said when the deadline passes.
pub(super) const NO_ANSWER: &str = "there was no answer";

/// Counts `answer` and sends it.
pub(super) fn counted(metrics: &Metrics, answer: Answer) -> Json<Answer> {
    count(metrics, answer.verdict, known_reason(&answer));
    Json(answer)
}

/// The reason becomes a label: only the known words may.
fn known_reason(answer: &Answer) -> Option<Reason> {
    Reason::ALL.iter().copied().find(|reason| reason.word() == answer.reason)
}

fn count(metrics: &Metrics, verdict: Option<Verdict>, reason: Option<Reason>) {
    let verdict = match verdict {
        Some(Verdict::Fits) => "fits",
        Some(Verdict::Tight) => "tight",
        Some(Verdict::DoesNotFit) => "does_not_fit",
        Some(Verdict::Unknown) => "unknown",
        None => "none",
    };
    metrics.question(verdict, reason.map_or("other", Reason::word));
}
