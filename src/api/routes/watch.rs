//! `/v1/gpus/watch`: a `GET` that goes on, one JSON object a line, until its caller leaves or the daemon stops.
//!
//! A slow reader gets fewer lines, never older ones: each line is read from the service when there is room for it.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, watch as signal};

use super::App;
use super::failure::Failure;
use crate::api::Problem;
use crate::api::problem::Reason;
use crate::api::service::Service;

/// One caller's stream. Dropping it gives the seat back.
struct Watch<S> {
    service: Arc<S>,
    changes: signal::Receiver<u64>,
    stopping: signal::Receiver<bool>,
    first: bool,
    _seat: OwnedSemaphorePermit,
}

pub(super) async fn gpus<S: Service>(State(app): State<App<S>>) -> Result<Response, Failure> {
    let Ok(seat) = Arc::clone(&app.watchers).try_acquire_owned() else {
        app.metrics.refused("watchers");
        let detail = format!("{} callers watch already, which is the most", app.limits.watchers());
        return Err(Problem::new(Reason::Busy, detail)
            .hint("half of socket.connections may be watch streams; ask /v1/gpus instead, or raise it")
            .into());
    };
    let watch = Watch {
        changes: app.service.changes(),
        service: app.service,
        stopping: app.stopping,
        first: true,
        _seat: seat,
    };
    let lines = stream::unfold(watch, |mut watch| async move {
        let line = watch.next_line().await?;
        Some((Ok::<_, Infallible>(line), watch))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

impl<S: Service> Watch<S> {
    /// The next line once there is news; `None` when the daemon stops.
    async fn next_line(&mut self) -> Option<Bytes> {
        if *self.stopping.borrow() {
            return None;
        }
        if !std::mem::take(&mut self.first) {
            tokio::select! {
                changed = self.changes.changed() => changed.ok()?,
                // An error means that whoever would stop us is gone: the same as being stopped.
                _ = self.stopping.wait_for(|stopping| *stopping) => return None,
            }
        }
        self.changes.mark_unchanged();
        let written = match self.service.gpus() {
            Ok(answer) => serde_json::to_vec(&answer),
            Err(problem) => serde_json::to_vec(&problem),
        };
        let mut line = written.ok()?;
        line.push(b'\n');
        Some(line.into())
    }
}
