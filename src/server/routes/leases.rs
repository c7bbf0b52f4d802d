//! `/v1/leases`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use hf_mem_core::report::lease::LeaseAnswer;
use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::{Answer, Problem};

use super::App;
use super::body::{Deadline, parse, parse_or_default, read, within};
use super::bounds;
use super::failure::Failure;
use super::questions::{NO_ANSWER, counted};
use crate::api::bounds::MAX_ID_BYTES;
use crate::api::lease::LeasesAnswer;
use crate::api::peer::Caller;
use crate::server::service::Service;
use crate::server::until;

/// How long an answer that is already on its way may take when the daemon stops.
const LAST_MOMENT: Duration = Duration::from_millis(100);

pub(super) async fn create<S: Service>(
    State(app): State<Arc<App<S>>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Json<Answer>, Failure> {
    let deadline = Deadline::after(app.limits.handler_deadline);
    let sent = read(body, &app, &caller, deadline).await?;
    let max_wait = app.limits.max_wait;
    let (request, room) = sent
        .read_as(move |body| parse(body).and_then(|request| bounds::lease(request, max_wait)))
        .await?;
    let wait = Duration::from_secs(request.wait_seconds);

    // The wait comes on top: the deadline is for the work.
    let answer = within(
        deadline.and(wait),
        NO_ANSWER,
        app.service.create_lease(caller, request, room.into()),
    );

    let stopping = async {
        // One that only waits for memory would hold the daemon's end up.
        until(app.stopping.clone()).await;
        tokio::time::sleep(LAST_MOMENT).await;
    };

    tokio::select! {
        biased;
        answer = answer => Ok(counted(&app.metrics, answer?)),
        () = stopping, if !wait.is_zero() => {
            let stopping = Problem::new(Reason::DaemonStopping, "the daemon is stopping, and the wait for memory with it");
            Err(stopping.hint("ask again after its restart, with the same idempotency key").into())
        }
    }
}

pub(super) async fn list<S: Service>(
    State(app): State<Arc<App<S>>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<LeasesAnswer>, Failure> {
    let deadline = Deadline::after(app.limits.handler_deadline);
    Ok(Json(
        within(deadline, NO_ANSWER, app.service.leases(caller)).await?,
    ))
}

pub(super) async fn show<S: Service>(
    State(app): State<Arc<App<S>>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<LeaseAnswer>, Failure> {
    let deadline = Deadline::after(app.limits.handler_deadline);
    let id = sound(id)?;
    Ok(Json(
        within(deadline, NO_ANSWER, app.service.lease(caller, id)).await?,
    ))
}

pub(super) async fn renew<S: Service>(
    State(app): State<Arc<App<S>>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<LeaseAnswer>, Failure> {
    let deadline = Deadline::after(app.limits.handler_deadline);
    let id = sound(id)?;
    let body = read(body, &app, &caller, deadline).await?.bytes;
    let request = parse_or_default(&body).and_then(bounds::renewal)?;

    Ok(Json(
        within(
            deadline,
            NO_ANSWER,
            app.service.renew_lease(caller, id, request),
        )
        .await?,
    ))
}

pub(super) async fn release<S: Service>(
    State(app): State<Arc<App<S>>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<LeaseAnswer>, Failure> {
    let deadline = Deadline::after(app.limits.handler_deadline);
    let id = sound(id)?;
    Ok(Json(
        within(deadline, NO_ANSWER, app.service.release_lease(caller, id)).await?,
    ))
}

/// An id that could be one of ours; others are not looked up, printed or logged.
fn sound(id: String) -> Result<String, Problem> {
    if (1..=MAX_ID_BYTES).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    {
        Ok(id)
    } else {
        Err(Problem::new(
            Reason::NotFound,
            "there is no lease of this id: ids hold letters, digits and '-' only",
        )
        .hint("GET /v1/leases lists them"))
    }
}
