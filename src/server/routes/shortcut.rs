//! The short way to an answer that is known: a question that was asked in the same bytes before.
//!
//! Schedulers ask one question many times a second. Routing, the request's span and its boxes then
//! cost more than the answer, so such a request is answered before any of them. All that decides
//! whether it may be answered is the same as on the long way: the guard, the caller, the deadline,
//! and [`Service::cached_answer`]. A request that cannot be answered here goes the long way, with its body
//! as it came.

use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::http::{Method, Request};
use axum::response::{IntoResponse as _, Response};
use hf_mem_core::report::Problem;
use hyper::body::{Body as _, Incoming};

use super::body::{self, Deadline, within};
use super::envelope::caller;
use super::failure::Failure;
use super::questions::{self, NO_ANSWER, SHORT_BODY_BYTES};
use super::{App, guard};
use crate::api::peer::{Caller, Peer};
use crate::server::service::Service;

/// What came of the short way.
pub(super) enum Shortcut {
    /// The answer, or the problem that ends this request.
    Answered(Response),
    /// The request, for the long way.
    Missed(Request<Body>),
}

/// What the short way leaves to the long one: until when the request must be answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Missed {
    pub(super) deadline: Deadline,
}

/// Answers `request` where that is one question whose answer is known.
pub(super) async fn answer<S: Service>(
    app: &App<S>,
    peer: Peer,
    request_id: &str,
    request: Request<Incoming>,
    began: Instant,
) -> Shortcut {
    let asked = is_short_question(&request)
        && guard::refuse_browsers(request.headers(), request.uri()).is_ok()
        // The long way logs each request then.
        && !tracing::enabled!(tracing::Level::DEBUG);
    let Some(caller) = asked
        .then(|| caller(request.headers(), peer, request_id).ok())
        .flatten()
    else {
        return Shortcut::Missed(request.map(Body::new));
    };

    let deadline = Deadline::since(began, app.limits.handler_deadline);
    let (head, incoming) = request.into_parts();

    match known(app, &caller, incoming, deadline).await {
        Ok(KnownQuestion::Answer(response)) => Shortcut::Answered(response),
        Ok(KnownQuestion::Nothing(body)) => {
            let mut request = Request::from_parts(head, Body::from(body));
            request.extensions_mut().insert(Missed { deadline });
            Shortcut::Missed(request)
        }
        Err(problem) => Shortcut::Answered(Failure(problem).into_response()),
    }
}

/// Whether `request` may be a question that is short enough to be known again.
fn is_short_question(request: &Request<Incoming>) -> bool {
    let length = request.body().size_hint().exact();
    request.method() == Method::POST
        && request.uri().path() == "/v1/fits"
        && length.is_some_and(|length| (1..=SHORT_BODY_BYTES as u64).contains(&length))
}

enum KnownQuestion {
    Answer(Response),
    /// There is no answer to this body.
    Nothing(Bytes),
}

async fn known<S: Service>(
    app: &App<S>,
    caller: &Caller,
    incoming: Incoming,
    deadline: Deadline,
) -> Result<KnownQuestion, Problem> {
    let body = body::read(incoming, app, caller, deadline).await?.bytes;
    let written = within(
        deadline,
        NO_ANSWER,
        app.service.cached_answer(caller, &body),
    )
    .await?;

    Ok(match written {
        Some(written) => KnownQuestion::Answer(questions::given(&app.metrics, &written)),
        None => KnownQuestion::Nothing(body),
    })
}
