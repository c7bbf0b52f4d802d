//! The routes: from an HTTP request to a call of the [`Service`], and back.
//!
//! axum routes, and nothing else. `envelope` wraps every request (guard, ids, overall deadline),
//! `body` reads bodies strictly, and each resource has a file of its own.

mod body;
mod bounds;
mod envelope;
mod failure;
mod guard;
mod leases;
mod questions;
mod shortcut;
mod status;
mod watch;

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Bytes;
use axum::routing::{get, post};
use tokio::sync::watch as signal;

use super::service::Service;
use crate::admission::server_limits::ServerLimits;
use crate::admission::user_limits::{LimitBounds, UserLimits};
use crate::api::peer::Operators;
use crate::metrics::Metrics;

pub(crate) use envelope::answer;
pub use envelope::{REQUEST_ID, VERSION};

/// What all routes share.
pub struct App<S> {
    /// The program behind the routes.
    pub service: Arc<S>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The limits on one caller.
    pub limits: ServerLimits,
    /// Turns true when the daemon stops. Watch streams then end.
    pub stopping: signal::Receiver<bool>,
    /// The users with a reserve of every limited resource.
    pub operators: Operators,
    /// Limits watch streams.
    watchers: UserLimits,
    /// Limits the bytes of large bodies.
    bodies: UserLimits,
    /// The OpenAPI document under these limits, built at the first request for it.
    openapi: OnceLock<Bytes>,
}

impl<S> App<S> {
    /// Builds the shared state.
    pub fn new(
        service: Arc<S>,
        metrics: Arc<Metrics>,
        limits: ServerLimits,
        stopping: signal::Receiver<bool>,
    ) -> Self {
        let (streams, bytes) = (limits.watchers(), limits.all_body_bytes());
        let streams = LimitBounds {
            per_user: streams.div_ceil(4),
            total: streams,
            operator_reserve: limits.reserved_connections(),
        };

        let bytes = LimitBounds {
            per_user: bytes / 2,
            total: bytes,
            operator_reserve: limits.body_bytes,
        };

        let operators = Operators::of_this_process();
        let (watchers, bodies) = (
            UserLimits::new(streams, operators),
            UserLimits::new(bytes, operators),
        );

        Self {
            service,
            metrics,
            limits,
            stopping,
            operators,
            watchers,
            bodies,
            openapi: OnceLock::new(),
        }
    }
}

/// Returns the router of all routes.
pub(crate) fn router<S: Service>(app: Arc<App<S>>) -> Router {
    Router::new()
        .route("/v1/fits", post(questions::fits::<S>))
        .route("/v1/estimates", post(questions::estimates::<S>))
        .route("/v1/gpus", get(status::gpus::<S>))
        .route("/v1/gpus/watch", get(watch::gpus::<S>))
        .route(
            "/v1/leases",
            get(leases::list::<S>).post(leases::create::<S>),
        )
        .route(
            "/v1/leases/{id}",
            get(leases::show::<S>).delete(leases::release::<S>),
        )
        .route("/v1/leases/{id}/renew", post(leases::renew::<S>))
        .route("/v1/nvml/release", post(status::release_nvml::<S>))
        .route("/v1/health", get(status::health::<S>))
        .route("/v1/openapi.json", get(status::openapi::<S>))
        .route("/metrics", get(status::metrics::<S>))
        .fallback(failure::no_such_route)
        .method_not_allowed_fallback(failure::no_such_method)
        .with_state(app)
}
