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

/// How long the daemon waits at shutdown for an answer that is almost ready.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(100);

pub(super) async fn create<S: Service>(
    State(app): State<Arc<App<S>>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Json<Answer>, Failure> {
    let deadline = Deadline::after(app.limits.handler_deadline);
    let received = read(body, &app, &caller, deadline).await?;
    let max_wait = app.limits.max_wait;
    let (request, reservation) = received
        .parse_with(move |body| parse(body).and_then(|request| bounds::lease(request, max_wait)))
        .await?;
    let wait = Duration::from_secs(request.wait_seconds);

    // The deadline bounds the work; the wait for memory is added to it.
    let answer = within(
        deadline.extended_by(wait),
        NO_ANSWER,
        app.service
            .create_lease(caller, request, reservation.into()),
    );

    let stopping = async {
        // A request that only waits for memory would delay the shutdown.
        until(app.stopping.clone()).await;
        tokio::time::sleep(SHUTDOWN_GRACE).await;
    };

    tokio::select! {
        biased;
        answer = answer => Ok(counted(&app.metrics, answer?)),
        () = stopping, if !wait.is_zero() => {
            Err(Problem::new(
                Reason::DaemonStopping,
                "the daemon is stopping, and the wait for memory ends with it",
            )
            .hint("try again after its restart, with the same idempotency key")
            .into())
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
    let id = check_id(id)?;
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
    let id = check_id(id)?;
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
    let id = check_id(id)?;
    Ok(Json(
        within(deadline, NO_ANSWER, app.service.release_lease(caller, id)).await?,
    ))
}

/// Returns `id` if it can be a lease's id. Other ids are not looked up, printed or logged.
fn check_id(id: String) -> Result<String, Problem> {
    if (1..=MAX_ID_BYTES).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    {
        Ok(id)
    } else {
        Err(Problem::new(
            Reason::NotFound,
            "there is no lease with this id: ids have letters, digits and '-' only",
        )
        .hint("GET /v1/leases lists them"))
    }
}
