//! Answers a question from the cache without routing: one that was asked in the same bytes before.
//!
//! Schedulers ask one question many times a second. Routing, the request's span and its boxes then
//! cost more than the answer, so the shortcut comes before all of them. It applies the same checks
//! as the routes: the guard, the caller, the deadline, and [`Service::cached_answer`]. A request
//! that the shortcut cannot answer goes to its route with an unchanged body.

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

/// The result of the shortcut.
pub(super) enum Shortcut {
    /// The response: an answer or a problem.
    Answered(Response),
    /// The request, for its route.
    Missed(Request<Body>),
}

/// The deadline that the shortcut passes on to the route.
#[derive(Clone, Copy, Debug)]
pub(super) struct Missed {
    pub(super) deadline: Deadline,
}

/// Answers `request` if it is one question whose answer is cached.
pub(super) async fn answer<S: Service>(
    app: &App<S>,
    peer: Peer,
    request_id: &str,
    request: Request<Incoming>,
    began: Instant,
) -> Shortcut {
    let eligible = is_short_question(&request)
        && guard::reject_browsers(request.headers(), request.uri()).is_ok()
        // At this level the router logs each request.
        && !tracing::enabled!(tracing::Level::DEBUG);
    let Some(caller) = eligible
        .then(|| caller(request.headers(), peer, request_id).ok())
        .flatten()
    else {
        return Shortcut::Missed(request.map(Body::new));
    };

    let deadline = Deadline::since(began, app.limits.handler_deadline);
    let (head, incoming) = request.into_parts();

    match look_up(app, &caller, incoming, deadline).await {
        Ok(CacheLookup::Hit(response)) => Shortcut::Answered(response),
        Ok(CacheLookup::Miss(body)) => {
            let mut request = Request::from_parts(head, Body::from(body));
            request.extensions_mut().insert(Missed { deadline });
            Shortcut::Missed(request)
        }
        Err(problem) => Shortcut::Answered(Failure(problem).into_response()),
    }
}

/// Returns whether `request` can be a question that is short enough for the cache.
fn is_short_question(request: &Request<Incoming>) -> bool {
    let length = request.body().size_hint().exact();
    request.method() == Method::POST
        && request.uri().path() == "/v1/fits"
        && length.is_some_and(|length| (1..=SHORT_BODY_BYTES as u64).contains(&length))
}

/// The result of a look into the cache.
enum CacheLookup {
    /// The cached answer.
    Hit(Response),
    /// The body, to which no answer is cached.
    Miss(Bytes),
}

async fn look_up<S: Service>(
    app: &App<S>,
    caller: &Caller,
    incoming: Incoming,
    deadline: Deadline,
) -> Result<CacheLookup, Problem> {
    let body = body::read(incoming, app, caller, deadline).await?.bytes;
    let answer = within(
        deadline,
        NO_ANSWER,
        app.service.cached_answer(caller, &body),
    )
    .await?;

    Ok(match answer {
        Some(answer) => CacheLookup::Hit(questions::counted_response(&app.metrics, &answer)),
        None => CacheLookup::Miss(body),
    })
}
