//! A [`Problem`] as an HTTP response (RFC 9457).

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;

use crate::api::PROBLEM_JSON;

/// The response for a problem.
#[derive(Debug)]
pub(super) struct Failure(pub(super) Problem);

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

/// The reason of a failure, as a response extension: the envelope then need not parse the body.
#[derive(Clone, Copy, Debug)]
pub(super) struct FailedFor(pub(super) Reason);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self(problem) = self;
        let status =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);

        // Strings and integers only, so serializing cannot fail.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, PROBLEM_JSON)], body).into_response();
        if let Some(seconds) = problem.retry_after_seconds {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }

        response.extensions_mut().insert(FailedFor(problem.reason));
        response
    }
}

/// Answers every path without a route.
pub(super) async fn no_such_route(request: Request) -> Failure {
    let path = request.uri().path();
    let shown: String = path.chars().take(80).collect();
    Problem::new(Reason::NotFoundRoute, format!("there is no route {shown}"))
        .hint("GET /v1/openapi.json lists the routes")
        .into()
}

/// Answers a known path with the wrong method. axum adds the `Allow` header.
pub(super) async fn no_such_method(request: Request) -> Failure {
    let (method, path) = (request.method(), request.uri().path());
    Problem::new(
        Reason::MethodNotAllowed,
        format!("{path} does not take {method}"),
    )
    .hint(
        "the `Allow` header names the methods that it takes; GET /v1/openapi.json lists the routes",
    )
    .into()
}
