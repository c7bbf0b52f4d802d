//! `/v1/fits` and `/v1/estimates`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use hf_mem_core::report::answer::{Answer, Verdict};
use hf_mem_core::report::bounded::BoundedList;
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

/// The fields that tell the two forms of a body apart. An untagged enum would not name a wrong
/// field.
#[derive(Deserialize)]
struct BodyForm {
    questions: Option<IgnoredAny>,
}

/// The longest body whose answer is cached.
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

    let received = read(body, &app, &caller, deadline).await?;
    let short = (received.bytes.len() <= SHORT_BODY_BYTES).then(|| received.bytes.clone());

    // The shortcut has looked in the cache already.
    if missed.is_none()
        && let Some(body) = &short
        && let Some(answer) = within(
            deadline,
            NO_ANSWER,
            app.service.cached_answer(&caller, body),
        )
        .await?
    {
        return Ok(counted_response(&app.metrics, &answer));
    }

    let (body, _reservation) = received.parse_with(FitsRequest::parse).await?;
    let questions = match body {
        FitsRequest::One(question) => {
            // Boxed: the future that reads an unknown model is large, and would enlarge every
            // small one.
            let answer = within(
                deadline,
                NO_ANSWER,
                Box::pin(app.service.fits(caller, *question, short)),
            )
            .await?;
            return Ok(counted_response(&app.metrics, &answer));
        }
        FitsRequest::Several(questions) => questions,
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
    let received = read(body, &app, &caller, deadline).await?;
    let (question, _reservation) = received
        .parse_with(|body| parse(body).and_then(bounds::question))
        .await?;
    let answer = within(deadline, NO_ANSWER, app.service.estimate(caller, question)).await?;
    Ok(counted(&app.metrics, answer))
}

/// Counts `answer` and returns it as a response.
pub(super) fn counted_response(metrics: &Metrics, answer: &SerializedAnswer) -> Response {
    count(metrics, answer.verdict(), answer.reason());
    let mut response = Response::new(Body::from(answer.json().clone()));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );

    response
}

/// A parsed body of `/v1/fits`.
enum FitsRequest {
    One(Box<Question>),
    Several(Vec<Question>),
}

impl FitsRequest {
    fn parse(body: &[u8]) -> Result<Self, Problem> {
        if strict_json::from_slice::<BodyForm>(body).is_ok_and(|form| form.questions.is_some()) {
            let BatchQuestion {
                questions: BoundedList(texts),
            } = parse(body)?;
            return parse_batch(texts).map(Self::Several);
        }

        parse(body)
            .and_then(bounds::question)
            .map(|question| Self::One(Box::new(question)))
    }
}

/// Parses the questions of a batch. It rejects an empty batch and one with too many parts.
fn parse_batch(texts: Vec<Box<RawValue>>) -> Result<Vec<Question>, Problem> {
    if texts.is_empty() {
        let detail = format!("`questions` is empty; send 1 to {MAX_QUESTIONS} questions");
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
                "devices and parameters of all `questions` hold too many values; \
                 the most is {MAX_BATCH_PARTS}"
            );
            return Err(Problem::new(Reason::Usage, detail));
        }

        questions.push(question);
    }

    Ok(questions)
}

/// The beginning of a timeout's message.
pub(super) const NO_ANSWER: &str = "there was no answer";

/// Counts `answer` and returns it as JSON.
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

    let without_reason = if verdict == "none" { "none" } else { "other" };
    metrics.question(verdict, reason.map_or(without_reason, Reason::word));
}
