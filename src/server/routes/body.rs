//! Bodies, read with a cap and a deadline, and parsed strictly.

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

/// Until when one request must be answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    at: Instant,
    length: Duration,
}

impl Deadline {
    /// From now on, `length`.
    pub(super) fn after(length: Duration) -> Self {
        Self::since(std::time::Instant::now(), length)
    }

    /// For a request that `began` then, `length`.
    pub(super) fn since(began: std::time::Instant, length: Duration) -> Self {
        Self {
            at: Instant::from_std(began) + length,
            length,
        }
    }

    /// So much later.
    pub(super) fn and(self, more: Duration) -> Self {
        Self {
            at: self.at + more,
            length: self.length.saturating_add(more),
        }
    }
}

/// Bodies up to so many bytes are not counted: all connections together hold a few megabytes of
/// them.
const SMALL_BYTES: usize = 64 << 10;

/// A body, and the room that a large one takes up for as long as what came of it is worked on.
pub(super) struct Sent {
    /// The body.
    pub(super) bytes: Bytes,
    /// Held until the request is answered. What is parsed of a body are its texts, which take as
    /// much room as they do in the body, and as many values as
    /// [`PARTS`](hf_mem_core::report::bounded::PARTS) allows, which take up to three megabytes;
    /// [`MAX_BATCH_PARTS`](crate::api::bounds::MAX_BATCH_PARTS) of several questions take up to eleven.
    pub(super) room: Reservation,
}

impl Sent {
    /// What `read` makes of the body, and the room, which is still held. A large body is read on a
    /// thread of its own: four megabytes take milliseconds, and the server is one thread.
    pub(super) async fn read_as<T: Send + 'static>(
        self,
        read: impl FnOnce(&[u8]) -> Result<T, Problem> + Send + 'static,
    ) -> Result<(T, Reservation), Problem> {
        let Self { bytes, room } = self;
        let is_small = bytes.len() <= SMALL_BYTES;

        // Whoever waits for its turn afterwards holds what it sent once.
        let work = move || {
            let made = read(&bytes);
            drop(bytes);
            made.map(|made| (made, room))
        };

        if is_small {
            return work();
        }

        tokio::task::spawn_blocking(work)
            .await
            .unwrap_or_else(|error| match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => {
                    Err(Problem::new(Reason::Busy, "the daemon is stopping").hint("ask again"))
                }
            })
    }
}

/// The whole body, up to the cap; its room is counted as `caller`'s.
pub(super) async fn read<S, B>(
    body: B,
    app: &App<S>,
    caller: &Caller,
    deadline: Deadline,
) -> Result<Sent, Problem>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let cap_bytes = app.limits.body_bytes;
    let too_large = move || {
        Problem::new(
            Reason::TooLarge,
            format!("the request's body is larger than {cap_bytes} bytes"),
        )
        .hint("socket.body_cap in the daemon's configuration sets this limit")
    };

    // A length that is announced is refused before a byte of it is waited for.
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > cap_bytes {
        return Err(too_large());
    }

    let mut room = app.bodies.take(caller.peer.uid, 0).map_err(no_room)?;
    let counted = |bytes: usize| if bytes > SMALL_BYTES { bytes } else { 0 };

    let refused = |full| {
        app.metrics.refused(Refusal::Bodies);
        no_room(full)
    };

    room.reach(counted(announced)).map_err(refused)?;
    let bytes = within(deadline, "the request's body did not arrive", async {
        let mut body = Limited::new(body, cap_bytes);

        // Most bodies come in one piece, which needs no copy.
        let mut first = Bytes::new();
        let mut all = Vec::new();

        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    return too_large();
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
            room.reach(counted(sum)).map_err(refused)?;

            if first.is_empty() {
                first = data;
                continue;
            }

            if all.is_empty() {
                // One block for all of it, which goes back to the system afterwards; many small
                // ones would stay in the heap. Of what is announced and does not come, no page is
                // touched.
                all.reserve(announced.max(sum));
                all.extend_from_slice(&first);
            }

            all.extend_from_slice(&data);
        }

        Ok(if all.is_empty() { first } else { all.into() })
    });

    let bytes = bytes.await?;
    Ok(Sent { bytes, room })
}

fn no_room(full: LimitExceeded) -> Problem {
    let whose = match full {
        LimitExceeded::Each => "this user's large requests",
        LimitExceeded::All => "large requests",
    };
    Problem::new(Reason::Busy, format!("{whose} take up all the memory that is kept for them"))
        .hint("ask again when some of them are answered; socket.body_cap sets the size of one, and 32 of it are kept")
}

/// `body` as JSON of type `T`; an unknown field is an error that names it.
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
            .hint("GET /v1/openapi.json describes what is taken")
    })
}

/// As [`parse`], where an empty body stands for the defaults.
pub(super) fn parse_or_default<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Problem> {
    if body.trim_ascii().is_empty() {
        Ok(T::default())
    } else {
        parse(body)
    }
}

/// `work`, or a problem that says `what` when the deadline passes first.
pub(super) async fn within<T>(
    deadline: Deadline,
    what: &str,
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    let mut work = pin!(work);

    // Most work is done at once, for less than a timer takes.
    if let Poll::Ready(done) = poll!(&mut work) {
        return done;
    }

    tokio::time::timeout_at(deadline.at, work).await.unwrap_or_else(|_| {
        let length = humantime::format_duration(deadline.length);
        Err(Problem::new(Reason::Timeout, format!("{what} within {length}"))
            .hint("ask again: what was read so far is kept; socket.handler_deadline sets this limit"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hf_mem_core::report::Question;

    fn refused(body: &str) -> String {
        let problem = parse::<Question>(body.as_bytes()).unwrap_err();
        assert_eq!(problem.reason, Reason::Usage);
        problem.detail
    }

    #[test]
    fn what_is_wrong_is_named() {
        let unknown = refused(r#"{"model": {"repo": "a/b"}, "ttl": 5}"#);
        assert!(
            unknown.contains("unknown field `ttl`, expected one of `model`"),
            "{unknown}"
        );
        let nested = refused(r#"{"model": {"repo": "a/b", "path": "/etc"}}"#);
        assert!(nested.contains("unknown field `path`"), "{nested}");
        assert!(refused("{}").contains("missing field `model`"));
        assert!(refused("model=a/b").contains("not JSON"));
        assert!(refused(" \n").contains("no body"));
        assert!(refused(r#"{"model": {"repo": "a/b"}} {}"#).contains("trailing characters"));

        assert!(
            refused(r#"{"model": {"repo": "a/b"}, "model": {"repo": "c/d"}}"#)
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
        assert!(refused(&deep).contains("recursion limit exceeded"));
    }
}
