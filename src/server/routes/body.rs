//! Reads bodies with a cap and a deadline, and parses them strictly.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use axum::BoxError;
use axum::body::Bytes;
use futures_util::poll;
use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;
use hf_mem_core::strict_json;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::App;
use crate::admission::user_limits::{LimitExceeded, Reservation};
use crate::api::peer::Caller;
use crate::metrics::Refusal;

/// The time by which one request must be answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    at: Instant,
    length: Duration,
}

impl Deadline {
    /// `length` from now.
    pub(super) fn after(length: Duration) -> Self {
        Self::since(std::time::Instant::now(), length)
    }

    /// `length` after `began`, the start of the request.
    pub(super) fn since(began: std::time::Instant, length: Duration) -> Self {
        Self {
            at: Instant::from_std(began) + length,
            length,
        }
    }

    /// The same deadline, `more` later.
    pub(super) fn extended_by(self, more: Duration) -> Self {
        Self {
            at: self.at + more,
            length: self.length.saturating_add(more),
        }
    }
}

/// The largest body that no limit counts: all connections together hold a few megabytes of such
/// bodies.
const SMALL_BYTES: usize = 64 << 10;

/// A body, and the memory reservation of a large one, which lasts until the request is answered.
pub(super) struct ReceivedBody {
    /// The body.
    pub(super) bytes: Bytes,
    /// The reservation for the body's bytes.
    ///
    /// The parsed texts take as much memory as in the body. The values are bounded by
    /// [`MAX_PARTS`](hf_mem_core::report::bounded::MAX_PARTS) and take up to three megabytes; those of a
    /// batch are bounded by [`MAX_BATCH_PARTS`](crate::api::bounds::MAX_BATCH_PARTS) and take up
    /// to eleven.
    pub(super) reservation: Reservation,
}

impl ReceivedBody {
    /// Parses the body with `parse` and returns the result with the reservation.
    ///
    /// A large body is parsed on a thread of its own: four megabytes take milliseconds, and the
    /// server has one thread.
    pub(super) async fn parse_with<T: Send + 'static>(
        self,
        parse: impl FnOnce(&[u8]) -> Result<T, Problem> + Send + 'static,
    ) -> Result<(T, Reservation), Problem> {
        let Self { bytes, reservation } = self;
        let is_small = bytes.len() <= SMALL_BYTES;

        // The bytes are dropped at once: a request that then waits holds its content only once.
        let parse_body = move || {
            let parsed = parse(&bytes);
            drop(bytes);
            parsed.map(|parsed| (parsed, reservation))
        };

        if is_small {
            return parse_body();
        }

        tokio::task::spawn_blocking(parse_body)
            .await
            .unwrap_or_else(|error| match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => {
                    Err(Problem::new(Reason::Busy, "the daemon is stopping").hint("try again"))
                }
            })
    }
}

/// Reads the whole body, up to the cap, and reserves its memory for `caller`.
pub(super) async fn read<S, B>(
    body: B,
    app: &App<S>,
    caller: &Caller,
    deadline: Deadline,
) -> Result<ReceivedBody, Problem>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let cap_bytes = app.limits.body_bytes;

    // Reject an announced length before waiting for the first byte.
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > cap_bytes {
        return Err(too_large(cap_bytes));
    }

    let mut reservation = app.bodies.reserve(caller.peer.uid, 0).map_err(no_memory)?;
    reserve(app, &mut reservation, announced)?;
    let bytes = within(deadline, "the request's body did not arrive", async {
        let mut body = Limited::new(body, cap_bytes);

        // Most bodies arrive in one piece, which needs no copy.
        let mut first = Bytes::new();
        let mut all = Vec::new();

        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    return too_large(cap_bytes);
                }
                Problem::new(
                    Reason::Usage,
                    format!("the request's body could not be read: {error}"),
                )
            })?;
            let Ok(data) = frame.into_data() else {
                continue;
            };

            let sum = first.len().max(all.len()).saturating_add(data.len());
            reserve(app, &mut reservation, sum)?;

            if first.is_empty() {
                first = data;
                continue;
            }

            if all.is_empty() {
                // A single block for all of it, which returns to the system afterwards. Many small
                // blocks would stay in the heap. Pages of announced bytes that never arrive are
                // not touched.
                all.reserve(announced.max(sum));
                all.extend_from_slice(&first);
            }

            all.extend_from_slice(&data);
        }

        Ok(if all.is_empty() { first } else { all.into() })
    });

    let bytes = bytes.await?;
    Ok(ReceivedBody { bytes, reservation })
}

fn too_large(cap_bytes: usize) -> Problem {
    Problem::new(
        Reason::TooLarge,
        format!("the request's body is larger than {cap_bytes} bytes"),
    )
    .hint("socket.body_cap in the daemon's configuration sets this limit")
}

/// Extends `reservation` to `bytes`, the size of a body so far.
fn reserve<S>(app: &App<S>, reservation: &mut Reservation, bytes: usize) -> Result<(), Problem> {
    let counted = if bytes > SMALL_BYTES { bytes } else { 0 };
    reservation.grow_to(counted).map_err(|exceeded| {
        app.metrics.refused(Refusal::Bodies);
        no_memory(exceeded)
    })
}

fn no_memory(exceeded: LimitExceeded) -> Problem {
    let whose = match exceeded {
        LimitExceeded::User => "this user's large requests",
        LimitExceeded::Global => "large requests",
    };
    Problem::new(
        Reason::Busy,
        format!("{whose} take up all the memory that is reserved for them"),
    )
    .hint(
        "try again when some of them are answered; the reserve is 32 times socket.body_cap, the \
         largest body",
    )
}

/// Parses `body` as JSON of type `T`. An unknown field is an error that names the field.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    if body.trim_ascii().is_empty() {
        return Err(Problem::new(Reason::Usage, "the request has no body")
            .hint("send a JSON object; GET /v1/openapi.json describes it"));
    }

    strict_json::from_slice(body).map_err(|error| {
        let what = if error.is_data() {
            "the request's body is not a question"
        } else {
            "the request's body is not JSON"
        };
        Problem::new(Reason::Usage, format!("{what}: {error}"))
            .hint("GET /v1/openapi.json describes the routes' bodies")
    })
}

/// As [`parse`], but an empty body means the defaults.
pub(super) fn parse_or_default<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Problem> {
    if body.trim_ascii().is_empty() {
        Ok(T::default())
    } else {
        parse(body)
    }
}

/// Returns the result of `work`, or a problem that begins with `what` if the deadline passes
/// first.
pub(super) async fn within<T>(
    deadline: Deadline,
    what: &str,
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    let mut work = pin!(work);

    // Most work is ready at once and costs less than a timer.
    if let Poll::Ready(done) = poll!(&mut work) {
        return done;
    }

    tokio::time::timeout_at(deadline.at, work)
        .await
        .unwrap_or_else(|_| {
            let length = humantime::format_duration(deadline.length);
            Err(Problem::new(Reason::Timeout, format!("{what} within {length}")).hint(
            "try again: the daemon keeps what it has read so far; socket.handler_deadline sets \
             this limit",
        ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hf_mem_core::report::Question;

    fn rejected(body: &str) -> String {
        let problem = parse::<Question>(body.as_bytes()).unwrap_err();
        assert_eq!(problem.reason, Reason::Usage);
        problem.detail
    }

    #[test]
    fn errors_name_the_field() {
        let unknown = rejected(r#"{"model": {"repo": "a/b"}, "ttl": 5}"#);
        assert!(
            unknown.contains("unknown field `ttl`, expected one of `model`"),
            "{unknown}"
        );
        let nested = rejected(r#"{"model": {"repo": "a/b", "path": "/etc"}}"#);
        assert!(nested.contains("unknown field `path`"), "{nested}");
        assert!(rejected("{}").contains("missing field `model`"));
        assert!(rejected("model=a/b").contains("not JSON"));
        assert!(rejected(" \n").contains("no body"));
        assert!(rejected(r#"{"model": {"repo": "a/b"}} {}"#).contains("trailing characters"));

        assert!(
            rejected(r#"{"model": {"repo": "a/b"}, "model": {"repo": "c/d"}}"#)
                .contains("duplicate field `model`")
        );
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = format!(
            r#"{{"model": {{"repo": "x"}}, "engine": {{"parameters": {{"x": {}1{}}}}}}}"#,
            "[".repeat(200),
            "]".repeat(200)
        );
        assert!(rejected(&deep).contains("recursion limit exceeded"));
    }
}
