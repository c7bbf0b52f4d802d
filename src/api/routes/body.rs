//! Bodies, read with a cap and a deadline, and parsed strictly.

use std::future::Future;
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::api::Problem;
use crate::api::limits::Limits;
use crate::api::problem::Reason;

/// Until when one request must be answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    at: Instant,
    length: Duration,
}

impl Deadline {
    /// From now on, `length`.
    pub(super) fn after(length: Duration) -> Self {
        Self { at: Instant::now() + length, length }
    }

    /// So much later.
    pub(super) fn and(self, more: Duration) -> Self {
        Self { at: self.at + more, length: self.length.saturating_add(more) }
    }
}

/// The whole body, up to the cap.
pub(super) async fn read(body: Body, limits: &Limits, deadline: Deadline) -> Result<Bytes, Problem> {
    let cap_bytes = limits.body_bytes;
    let too_large = move || {
        Problem::new(Reason::TooLarge, format!("the request's body is larger than {cap_bytes} bytes"))
            .hint("socket.body_cap in the daemon's configuration sets this limit")
    };
    // A length that is announced is refused before a byte of it is waited for.
    let announced = hyper::body::Body::size_hint(&body).lower();
    if announced > cap_bytes as u64 {
        return Err(too_large());
    }
    within(deadline, "the request's body did not arrive", async move {
        // One block for all of it, which goes back to the system afterwards; many small ones would stay in the heap. Of what is
        // announced and does not come, no page is touched.
        let mut whole = Vec::with_capacity(usize::try_from(announced).unwrap_or(0));
        let mut limited = Limited::new(body, cap_bytes);
        while let Some(frame) = limited.frame().await {
            match frame {
                Ok(frame) => whole.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
                Err(error) if error.is::<LengthLimitError>() => return Err(too_large()),
                Err(error) => {
                    return Err(Problem::new(Reason::Usage, format!("the request's body could not be read: {error}")));
                }
            }
        }
        Ok(Bytes::from(whole))
    })
    .await
}

/// `body` as JSON of type `T`; an unknown field is an error that names it.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    if body.trim_ascii().is_empty() {
        return Err(Problem::new(Reason::Usage, "the request has no body")
            .hint("send a JSON object; GET /v1/openapi.json describes it"));
    }
    serde_json::from_slice(body).map_err(|error| {
        let what =
            if error.is_data() { "the request's body is not a question" } else { "the request's body is not JSON" };
        Problem::new(Reason::Usage, format!("{what}: {error}")).hint("GET /v1/openapi.json describes what is taken")
    })
}

/// As [`parse`], where an empty body stands for the defaults.
pub(super) fn parse_or_default<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Problem> {
    if body.trim_ascii().is_empty() { Ok(T::default()) } else { parse(body) }
}

/// `work`, or a problem that says `what` when the deadline passes first.
pub(super) async fn within<T>(
    deadline: Deadline,
    what: &str,
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    tokio::time::timeout_at(deadline.at, work).await.unwrap_or_else(|_| {
        let length = humantime::format_duration(deadline.length);
        Err(Problem::new(Reason::Timeout, format!("{what} within {length}"))
            .hint("ask again: what was read so far is kept; socket.handler_deadline sets this limit"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Question;

    fn refused(body: &str) -> String {
        let problem = parse::<Question>(body.as_bytes()).unwrap_err();
        assert_eq!(problem.reason, Reason::Usage);
        problem.detail
    }

    #[test]
    fn what_is_wrong_is_named() {
        let unknown = refused(r#"{"model": {"repo": "a/b"}, "ttl": 5}"#);
        assert!(unknown.contains("unknown field `ttl`, expected one of `model`"), "{unknown}");
        let nested = refused(r#"{"model": {"repo": "a/b", "path": "/etc"}}"#);
        assert!(nested.contains("unknown field `path`"), "{nested}");
        assert!(refused("{}").contains("missing field `model`"));
        assert!(refused("model=a/b").contains("not JSON"));
        assert!(refused(" \n").contains("no body"));
        assert!(refused(r#"{"model": {"repo": "a/b"}} {}"#).contains("trailing characters"));
        assert!(refused(r#"{"model": {"repo": "a/b"}, "model": {"repo": "c/d"}}"#).contains("duplicate field `model`"));
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = format!(
            r#"{{"model": {{"repo": "x"}}, "engine": {{"parameters": {{"x": {}1{}}}}}}}"#,
            "[".repeat(200),
            "]".repeat(200)
        );
        assert!(refused(&deep).contains("recursion limit exceeded"));
    }
}
