//! `/v1/gpus`, `/v1/health`, `/v1/nvml/release`, `/v1/openapi.json`, `/metrics`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;
use serde::Deserialize;

use super::App;
use super::body::{Deadline, parse_or_default, read, within};
use super::bounds;
use super::failure::Failure;
use super::questions::NO_ANSWER;
use crate::api::openapi as document;
use crate::api::peer::Caller;
use crate::api::status::{GpusAnswer, HealthAnswer, NvmlReleaseAnswer};
use crate::metrics::{CLASSIC_TEXT, OPEN_METRICS};
use crate::server::service::Service;

/// The query of `/v1/gpus`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct GpusQuery {
    /// Whether to wait for a reading that begins now.
    fresh: bool,
}

pub(super) async fn gpus<S: Service>(
    State(app): State<Arc<App<S>>>,
    query: Result<Query<GpusQuery>, QueryRejection>,
) -> Result<Json<GpusAnswer>, Failure> {
    let Query(GpusQuery { fresh }) = query.map_err(|rejection| {
        let detail = format!("invalid query for this route: {}", rejection.body_text());
        Problem::new(Reason::Usage, detail).hint("use `?fresh=true` for a reading that begins now")
    })?;

    let deadline = Deadline::after(app.limits.handler_deadline);
    Ok(Json(
        within(deadline, NO_ANSWER, app.service.gpus(fresh)).await?,
    ))
}

pub(super) async fn health<S: Service>(State(app): State<Arc<App<S>>>) -> Json<HealthAnswer> {
    Json(app.service.health())
}

const DEFAULT_RELEASE_SECONDS: u64 = 60;

pub(super) async fn release_nvml<S: Service>(
    State(app): State<Arc<App<S>>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Json<NvmlReleaseAnswer>, Failure> {
    let deadline = Deadline::after(app.limits.handler_deadline);
    let body = read(body, &app, &caller, deadline).await?.bytes;
    let request = parse_or_default(&body).and_then(bounds::release)?;
    let seconds = request.seconds.unwrap_or(DEFAULT_RELEASE_SECONDS);

    Ok(Json(
        within(
            deadline,
            NO_ANSWER,
            app.service.release_nvml(caller, seconds),
        )
        .await?,
    ))
}

pub(super) async fn openapi<S: Service>(State(app): State<Arc<App<S>>>) -> impl IntoResponse {
    let text = app
        .openapi
        .get_or_init(|| document::json(app.limits.max_wait).into())
        .clone();
    ([(header::CONTENT_TYPE, "application/json")], text)
}

pub(super) async fn metrics<S: Service>(
    State(app): State<Arc<App<S>>>,
    headers: HeaderMap,
) -> impl IntoResponse {
    app.service.observe(&app.metrics);
    let open = headers.get_all(header::ACCEPT).iter().any(|value| {
        value
            .to_str()
            .is_ok_and(|text| text.contains("application/openmetrics-text"))
    });

    let (content_type, text) = if open {
        (OPEN_METRICS, app.metrics.open_metrics())
    } else {
        (CLASSIC_TEXT, app.metrics.classic_text())
    };

    ([(header::CONTENT_TYPE, content_type)], text)
}
