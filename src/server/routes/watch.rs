//! `/v1/gpus/watch`: a stream of JSON objects, one a line, until its caller disconnects or the
//! daemon stops.
//!
//! A slow reader gets fewer lines, but no outdated ones: the stream asks the service for each line
//! when the reader can take it. The next line has all lease events since the line before, or says
//! how many are lost.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, watch as signal};

use super::App;
use super::failure::Failure;
use crate::admission::user_limits::{LimitExceeded, Reservation};
use crate::api::event::LeaseEvent;
use crate::api::peer::Caller;
use crate::api::status::{WatchLine, WatchProblem};
use crate::leases::event::Dated;
use crate::metrics::Refusal;
use crate::server::service::Service;

/// A caller's stream. Dropping it releases the reservation.
struct Watch<S> {
    service: Arc<S>,
    changes: signal::Receiver<u64>,
    events: Option<broadcast::Receiver<Dated>>,
    stopping: signal::Receiver<bool>,
    first: bool,
    _reservation: Reservation,
}

pub(super) async fn gpus<S: Service>(
    State(app): State<Arc<App<S>>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Failure> {
    let reservation = app
        .watchers
        .reserve(caller.peer.uid, 1)
        .map_err(|exceeded| too_many_streams(&app, exceeded))?;

    let watch = Watch {
        changes: app.service.changes(),
        events: app.service.lease_events(),
        service: Arc::clone(&app.service),
        stopping: app.stopping.clone(),
        first: true,
        _reservation: reservation,
    };

    let lines = stream::unfold(watch, |mut watch| async move {
        let line = watch.next_line().await?;
        Some((Ok::<_, Infallible>(line), watch))
    });

    Ok((
        [(header::CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(lines),
    )
        .into_response())
}

fn too_many_streams<S>(app: &App<S>, exceeded: LimitExceeded) -> Problem {
    app.metrics.refused(Refusal::Watchers);
    let detail = match exceeded {
        LimitExceeded::User => "this user has as many watch streams as one user can".to_owned(),
        LimitExceeded::Global => format!(
            "there are {} watch streams, the most that are served",
            app.limits.watchers()
        ),
    };

    Problem::new(Reason::Busy, detail).hint(
        "half of socket.connections can be watch streams, and a quarter of these one user's; \
         use GET /v1/gpus instead, or raise socket.connections",
    )
}

impl<S: Service> Watch<S> {
    /// Returns the next line when there is news; `None` when the daemon stops.
    async fn next_line(&mut self) -> Option<Bytes> {
        if *self.stopping.borrow() {
            return None;
        }

        let mut news = News::default();
        if !std::mem::take(&mut self.first) {
            tokio::select! {
                changed = self.changes.changed() => changed.ok()?,
                event = next_event(&mut self.events) => news.add(event),
                // An error means that the sender is dropped, which also means "stop".
                _ = self.stopping.wait_for(|stopping| *stopping) => return None,
            }
        }

        self.changes.mark_unchanged();
        let answer = self.service.gpus(false).await;

        // After the reading, so that the line shows the effects of its events.
        if let Some(events) = &mut self.events {
            news.drain(events);
        }

        let News {
            events: lease_events,
            missed: missed_lease_events,
        } = news;
        let written = match answer {
            Ok(gpus) => serde_json::to_vec(&WatchLine {
                gpus,
                lease_events,
                missed_lease_events,
            }),
            Err(problem) => serde_json::to_vec(&WatchProblem {
                problem,
                lease_events,
                missed_lease_events,
            }),
        };

        let mut line = written.ok()?;
        line.push(b'\n');

        Some(line.into())
    }
}

/// The lease events since the last line.
#[derive(Default)]
struct News {
    events: Vec<LeaseEvent>,
    missed: u64,
}

impl News {
    fn add(&mut self, event: Result<Dated, u64>) {
        match event {
            Ok(event) => self.events.push(event.into()),
            Err(missed) => self.missed = self.missed.saturating_add(missed),
        }
    }

    fn drain(&mut self, events: &mut broadcast::Receiver<Dated>) {
        loop {
            match events.try_recv() {
                Ok(event) => self.add(Ok(event)),
                Err(TryRecvError::Lagged(missed)) => self.add(Err(missed)),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }
}

/// Returns the next event, or how many are lost. It never returns once the sender is dropped.
async fn next_event(events: &mut Option<broadcast::Receiver<Dated>>) -> Result<Dated, u64> {
    if let Some(receiver) = events {
        match receiver.recv().await {
            Ok(event) => return Ok(event),
            Err(RecvError::Lagged(missed)) => return Err(missed),
            Err(RecvError::Closed) => *events = None,
        }
    }

    std::future::pending().await
}
