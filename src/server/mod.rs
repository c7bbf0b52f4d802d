//! The accept loop: HTTP/1.1 on a Unix socket, with a bound on everything that a caller can take.
//!
//! axum's own `serve` has no cap on connections, no deadline for headers and none for the drain.
//! So this module has its own loop, and axum only routes. The loop bounds connections, connections
//! of one user, time for headers (and idle time), time that an answer stays unread, and time for
//! the drain. [`self::routes`] bounds bodies and handlers.

mod accept;
pub mod routes;
pub mod service;
mod write_deadline;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

use self::accept::{AcceptFault, classify};
use self::routes::App;
use self::service::Service;
use self::write_deadline::WriteDeadline;
use crate::admission::connection_limiter::{
    AcceptPermit, ConnectionLimiter, ConnectionSlot, reject,
};
use crate::admission::server_limits::{MAX_HEAD_BYTES, MAX_HEADERS, ServerLimits};
use crate::api::peer::Peer;
use crate::metrics::{Metrics, Refusal};
use crate::transition_log::TransitionLog;

/// How the server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every request in flight was answered.
    Clean,
    /// The drain deadline passed, and the server cut the connections that were still open.
    Cut {
        /// The number of cut connections.
        connections: usize,
    },
    /// A second signal to stop arrived during the drain, and the server cut all connections.
    Abandoned,
}

/// Serves `app` on `listener` until `shutdown`, then drains.
///
/// It returns an error only if accepting fails permanently.
pub async fn serve<S: Service>(
    listener: UnixListener,
    app: App<S>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<Drained> {
    let (limits, operators) = (app.limits, app.operators);
    let metrics = Arc::clone(&app.metrics);
    let app = Arc::new(app);
    let router = routes::router(Arc::clone(&app));
    let limiter = ConnectionLimiter::new(&limits, operators, Arc::clone(&metrics));
    let drain = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    let mut outcome = Ok(());
    let mut accepting = AcceptLog::default();

    loop {
        let next = async {
            let permit = limiter.accept_permit().await;
            (permit, listener.accept().await)
        };

        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => if let Err(error) = ended {
                error!(%error, "a connection's task panicked; the daemon continues");
            },
            (permit, accepted) = next => {
                let Some(permit) = permit else { break };
                match accepted {
                    Ok((stream, _)) => {
                        accepting.succeeded();
                        let Some((stream, peer, slot)) = admit(stream, permit, &limiter) else {
                            continue;
                        };

                        let (router, app) = (router.clone(), Arc::clone(&app));
                        let watcher = drain.watcher();
                        connections.spawn(async move {
                            let turn = slot.serve_permit(stream, limits.header_deadline).await;
                            if let Some((stream, turn)) = turn {
                                connection(stream, peer, router, app, watcher).await;
                                drop(turn);
                            }
                            drop(slot);
                        });
                    }
                    Err(error) => if let Err(fatal) = accepting.failed(error, &metrics).await {
                        outcome = Err(fatal);
                        break;
                    },
                }
            }
        }
    }

    drop(listener);
    let drained = drained(drain, connections, &limits).await;

    outcome.map(|()| drained)
}

/// Logs and counts the errors of `accept`. Callers can cause them again and again: the metrics
/// count each, the log has one line for each change.
#[derive(Default)]
struct AcceptLog {
    exhausted: TransitionLog,
}

impl AcceptLog {
    fn succeeded(&mut self) {
        let recovered = self.exhausted.fault().is_some()
            && self.exhausted.record(None, Instant::now()).is_some();
        if recovered {
            info!("accepting connections again");
        }
    }

    /// Pauses if the process is out of resources. Returns an error that is fatal.
    async fn failed(&mut self, error: io::Error, metrics: &Metrics) -> io::Result<()> {
        match classify(&error) {
            AcceptFault::CallerGone => {
                debug!(%error, "a caller disconnected before it was accepted");
                Ok(())
            }
            AcceptFault::Exhausted => {
                if self
                    .exhausted
                    .record(Some("exhausted"), Instant::now())
                    .is_some()
                {
                    warn!(%error, "cannot accept connections for now");
                }
                metrics.refused(Refusal::Exhausted);
                tokio::time::sleep(accept::BACK_OFF).await;
                Ok(())
            }
            AcceptFault::Fatal => Err(error),
        }
    }
}

/// Returns the peer and a connection slot for it; `None` if the connection is rejected.
fn admit(
    stream: UnixStream,
    permit: AcceptPermit,
    limiter: &ConnectionLimiter,
) -> Option<(UnixStream, Peer, ConnectionSlot)> {
    match stream.peer_cred() {
        Ok(credentials) => {
            let peer = Peer::new(&credentials);
            match limiter.slot(permit, peer.uid) {
                Ok(slot) => Some((stream, peer, slot)),
                Err(exceeded) => {
                    reject(&stream, peer.uid, exceeded);
                    None
                }
            }
        }
        Err(error) => {
            debug!(%error, "rejected a caller without credentials");
            None
        }
    }
}

/// Serves one connection from its first byte to its last.
fn connection<S: Service>(
    stream: UnixStream,
    peer: Peer,
    router: Router,
    app: Arc<App<S>>,
    drain: Watcher,
) -> impl Future<Output = ()> + Send + 'static {
    let limits = app.limits;
    let shared = Arc::new((router, app));
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move {
            let (router, app) = &*shared;
            Ok::<_, Infallible>(routes::answer(router, app, peer, request).await)
        }
    });

    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_deadline)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(
            WriteDeadline::new(TokioIo::new(stream), limits.write_deadline),
            service,
        );
    let watched = drain.watch(http);

    async move {
        if let Err(error) = watched.await {
            // Callers that disconnect early, send nothing or send no HTTP: their fault, so no
            // warning.
            debug!(uid = peer.uid, %error, "a connection ended early");
        }
    }
}

/// Waits for requests in flight, up to the deadline, and cuts the rest.
async fn drained(
    drain: GracefulShutdown,
    mut connections: JoinSet<()>,
    limits: &ServerLimits,
) -> Drained {
    if tokio::time::timeout(limits.drain_deadline, drain.shutdown())
        .await
        .is_ok()
    {
        return Drained::Clean;
    }

    while connections.try_join_next().is_some() {}
    let left = connections.len();
    connections.shutdown().await;

    Drained::Cut { connections: left }
}

/// Waits until `stopping` turns true, or until its sender is dropped.
pub async fn until(mut stopping: tokio::sync::watch::Receiver<bool>) {
    // An error means that the sender is dropped, which also means "stop".
    let _sender_gone = stopping.wait_for(|stopping| *stopping).await;
}
