//! `/v1/fits` and `/v1/estimates`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use hf_mem_core::report::answer::{Answer, Verdict};
use hf_mem_core::report::bounded::AtMost;
use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::{Problem, Question};
use hf_mem_core::strict_json;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::App;
use super::body::{Deadline, parse, read, within};
use super::bounds;
use super::failure::Failure;
use super::shortcut::Missed;
use crate::api::batch::BatchQuestion;
use crate::api::bounds::{MAX_BATCH_PARTS, MAX_QUESTIONS};
use crate::api::peer::Caller;
use crate::metrics::Metrics;
use crate::server::service::{SerializedAnswer, Service};

/// Tells the two forms of a body apart without parsing either loosely: an untagged enum would not
/// name a wrong field.
#[derive(Deserialize)]
struct BodyForm {
    questions: Option<IgnoredAny>,
}

/// Longest body by which an answer is known again.
pub(super) const SHORT_BODY_BYTES: usize = 4096;

pub(super) async fn fits<S: Service>(
    State(app): State<Arc<App<S>>>,
    Extension(caller): Extension<Caller>,
    missed: Option<Extension<Missed>>,
    body: Body,
) -> Result<Response, Failure> {
    let deadline = match missed {
        Some(Extension(Missed { deadline })) => deadline,
        None => Deadline::after(app.limits.handler_deadline),
    };

    let sent = read(body, &app, &caller, deadline).await?;
    let short = (sent.bytes.len() <= SHORT_BODY_BYTES).then(|| sent.bytes.clone());

    // The short way looked already.
    if missed.is_none()
        && let Some(body) = &short
        && let Some(written) = within(
            deadline,
            NO_ANSWER,
            app.service.cached_answer(&caller, body),
        )
        .await?
    {
        return Ok(given(&app.metrics, &written));
    }

    let (asked, _room) = sent.read_as(Asked::read).await?;
    let questions = match asked {
        Asked::One(question) => {
            // Boxed: the way to a model that is not known is a large future, and would be copied
            // with every small one.
            let written = within(
                deadline,
                NO_ANSWER,
                Box::pin(app.service.fits(caller, *question, short)),
            )
            .await?;
            return Ok(given(&app.metrics, &written));
        }
        Asked::Several(questions) => questions,
    };

    let answer = within(
        deadline,
        NO_ANSWER,
        Box::pin(app.service.fits_together(caller, questions)),
    )
    .await?;
    for answer in &answer.answers {
        count(&app.metrics, answer.verdict, answer.known_reason());
    }

    Ok(Json(answer).into_response())
}

pub(super) async fn estimates<S: Service>(
    State(app): State<Arc<App<S>>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Json<Answer>, Failure> {
    let deadline = Deadline::after(app.limits.handler_deadline);
    let sent = read(body, &app, &caller, deadline).await?;
    let (question, _room) = sent
        .read_as(|body| parse(body).and_then(bounds::question))
        .await?;
    let answer = within(deadline, NO_ANSWER, app.service.estimate(caller, question)).await?;
    Ok(counted(&app.metrics, answer))
}

/// Counts what is `written` and sends it.
pub(super) fn given(metrics: &Metrics, written: &SerializedAnswer) -> Response {
    count(metrics, written.verdict(), written.reason());
    let mut response = Response::new(Body::from(written.json().clone()));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );

    response
}

/// What a body asks.
enum Asked {
    One(Box<Question>),
    Several(Vec<Question>),
}

impl Asked {
    fn read(body: &[u8]) -> Result<Self, Problem> {
        if strict_json::from_slice::<BodyForm>(body).is_ok_and(|form| form.questions.is_some()) {
            let BatchQuestion {
                questions: AtMost(texts),
            } = parse(body)?;
            return together(texts).map(Self::Several);
        }

        parse(body)
            .and_then(bounds::question)
            .map(|question| Self::One(Box::new(question)))
    }
}

/// The questions that are written in `texts`, unless they are none or of too many parts together.
fn together(texts: Vec<Box<RawValue>>) -> Result<Vec<Question>, Problem> {
    if texts.is_empty() {
        let detail = format!("`questions` holds 0; 1 to {MAX_QUESTIONS} are answered together");
        return Err(Problem::new(Reason::Usage, detail));
    }

    let (mut questions, mut all) = (Vec::with_capacity(texts.len()), 0);
    for (number, text) in texts.into_iter().enumerate() {
        let question = parse(text.get().as_bytes())
            .and_then(bounds::question)
            .map_err(|problem| Problem {
                detail: format!("questions[{number}]: {}", problem.detail),
                ..problem
            })?;
        all += bounds::parts(&question);

        if all > MAX_BATCH_PARTS {
            let detail = format!(
                "devices and parameters of all `questions` hold too many values; the most is {MAX_BATCH_PARTS}"
            );
            return Err(Problem::new(Reason::Usage, detail));
        }

        questions.push(question);
    }

    Ok(questions)
}

/// What is said when the deadline passes.
pub(super) const NO_ANSWER: &str = "there was no answer";

/// Counts `answer` and sends it.
pub(super) fn counted(metrics: &Metrics, answer: Answer) -> Json<Answer> {
    count(metrics, answer.verdict, answer.known_reason());
    Json(answer)
}

fn count(metrics: &Metrics, verdict: Option<Verdict>, reason: Option<Reason>) {
    let verdict = match verdict {
        Some(Verdict::Fits) => "fits",
        Some(Verdict::Tight) => "tight",
        Some(Verdict::DoesNotFit) => "does_not_fit",
        Some(Verdict::Unknown) => "unknown",
        None => "none",
    };

    let without = if verdict == "none" { "none" } else { "other" };
    metrics.question(verdict, reason.map_or(without, Reason::word));
}
