//! Wraps every request: the guard, the caller, an id, a span, the metrics, and the handling of
//! panics.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;
use hyper::body::Incoming;
use tower::Service as _;
use tracing::{Instrument, debug, error, info_span};

use super::failure::{FailedFor, Failure};
use super::shortcut::{self, Shortcut};
use super::{App, guard};
use crate::api::bounds::MAX_ID_BYTES;
use crate::api::peer::{Caller, HubToken, Peer};
use crate::metrics::{Metrics, Refusal, Stage};
use crate::server::service::Service;

/// The header that carries a request's id in and out.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The header that carries the daemon's version.
pub const VERSION: HeaderName = HeaderName::from_static("hf-mem-probe-version");

/// Answers one request of `peer`. Every response has the request's id and the daemon's version.
pub(crate) async fn answer<S: Service>(
    router: &Router,
    app: &App<S>,
    peer: Peer,
    request: Request<Incoming>,
) -> Response {
    let began = Instant::now();
    let request_id = request_id(request.headers());
    let tried = AssertUnwindSafe(shortcut::answer(app, peer, &request_id, request, began))
        .catch_unwind()
        .await;
    let mut response = match tried {
        Ok(Shortcut::Answered(response)) => response,
        Ok(Shortcut::Missed(request)) => {
            // Boxed: the router's future is large, and would enlarge every request, also one that
            // `shortcut::answer` answers without routing.
            Box::pin(routed(
                router.clone(),
                &app.metrics,
                peer,
                &request_id,
                request,
                began,
            ))
            .await
        }
        Err(panic) => Failure(panicked(panic.as_ref())).into_response(),
    };

    if let Some(FailedFor(reason)) = response.extensions().get() {
        app.metrics.question("error", reason.word());
    }

    app.metrics.took(Stage::Request, began.elapsed());
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::try_from(request_id) {
        headers.insert(REQUEST_ID, value);
    }

    headers.insert(VERSION, HeaderValue::from_static(env!("CARGO_PKG_VERSION")));
    response
}

/// Answers `request` by its route, in a span of its own.
async fn routed(
    mut router: Router,
    metrics: &Metrics,
    peer: Peer,
    request_id: &str,
    mut request: Request<Body>,
    began: Instant,
) -> Response {
    let span = info_span!(
        "request", request_id, method = %request.method(), path = request.uri().path(), uid = peer.uid
    );

    async {
        let caller = match caller(request.headers(), peer, request_id) {
            Ok(caller) => caller,
            Err(problem) => return Failure(problem).into_response(),
        };

        if let Err(problem) = guard::reject_browsers(request.headers(), request.uri()) {
            metrics.refused(Refusal::Browser);
            return Failure(problem).into_response();
        }

        request.extensions_mut().insert(caller);
        let answered = AssertUnwindSafe(router.call(request)).catch_unwind().await;
        let response = answered.map_or_else(
            |panic| Failure(panicked(panic.as_ref())).into_response(),
            |Ok(response)| response,
        );
        debug!(
            status = response.status().as_u16(),
            elapsed_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
            "answered"
        );

        response
    }
    .instrument(span)
    .await
}

/// Returns the caller with its token. A malformed header is an error; it does not mean "no token".
pub(super) fn caller(headers: &HeaderMap, peer: Peer, request_id: &str) -> Result<Caller, Problem> {
    let token = match headers.get(header::AUTHORIZATION) {
        None => None,
        Some(value) => Some(
            value
                .to_str()
                .ok()
                .and_then(HubToken::from_authorization)
                .ok_or_else(no_bearer_token)?,
        ),
    };

    Ok(Caller {
        peer,
        token,
        request_id: request_id.to_owned(),
    })
}

fn no_bearer_token() -> Problem {
    Problem::new(
        Reason::Usage,
        "the header `authorization` holds no bearer token",
    )
    .hint("send `Authorization: Bearer TOKEN` with a token of the Hub, or omit this header")
}

/// Returns the caller's own request id if it is safe in a header and a log line, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|id| is_safe_id(id))
        .map_or_else(new_request_id, str::to_owned)
}

fn is_safe_id(id: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// Returns an id that is unique in this process and differs from those of earlier processes.
fn new_request_id() -> String {
    static BOOT: LazyLock<u32> = LazyLock::new(|| {
        use std::hash::{BuildHasher, RandomState};
        // The system seeds RandomState. It serves here as a source of 32 random bits.
        u32::try_from(RandomState::new().hash_one(0) & u64::from(u32::MAX)).unwrap_or_default()
    });

    static NEXT: AtomicU64 = AtomicU64::new(1);

    let mut id = String::with_capacity(2 * size_of::<u32>() + 1 + 2 * size_of::<u64>());
    push_hex(&mut id, u64::from(*BOOT), 2 * size_of::<u32>());
    id.push('-');
    push_hex(&mut id, NEXT.fetch_add(1, Ordering::Relaxed), 1);

    id
}

/// Appends `number` in at least `min_digits` hexadecimal digits. The formatter takes several times
/// as long, and every request needs an id.
fn push_hex(text: &mut String, number: u64, min_digits: usize) {
    let needed = (u64::BITS - number.leading_zeros()).div_ceil(4) as usize;
    for place in (0..needed.max(min_digits)).rev() {
        let digit = u32::try_from((number >> (4 * place)) & 0xf).unwrap_or_default();
        text.extend(char::from_digit(digit, 16));
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Problem {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    error!(
        panic = text.unwrap_or("(no text)"),
        "panic while handling a request; the daemon continues"
    );

    Problem::new(Reason::Internal, "panic while handling this request")
        .hint("report this with the log lines of this request's x-request-id")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_for(value: &'static str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, value.parse().unwrap());
        request_id(&headers)
    }

    #[test]
    fn unsafe_request_ids_are_replaced() {
        assert_eq!(id_for("job-7.a_B"), "job-7.a_B");
        for bad in ["", "a b", "x\"y", "\u{e9}"] {
            assert_ne!(id_for(bad), bad);
        }
        assert_ne!(new_request_id(), new_request_id());
    }

    #[test]
    fn push_hex_matches_formatter() {
        for number in [0, 1, 0xf, 0x10, 0xabc, 0xffff_ffff, 0x1_0000_0000, u64::MAX] {
            let mut text = String::new();
            push_hex(&mut text, number, 8);
            push_hex(&mut text, number, 1);
            assert_eq!(text, format!("{number:08x}{number:x}"));
        }
    }
}
