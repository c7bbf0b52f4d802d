//! The accept loop: HTTP/1.1 on a Unix socket, with a bound on everything that a caller can take.
//!
//! axum's own `serve` has no cap on connections, no deadline for headers and none for the drain, so
//! the loop is ours and axum only routes. What is bounded here: connections, connections of one
//! user, time for headers (and idle time), time that an answer stays unread, time for the drain.
//! Bodies and handlers are bounded in [`self::routes`].

mod accept;
pub mod routes;
pub mod service;
mod stalled;

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

use self::accept::{AcceptFault, fault};
use self::routes::App;
use self::service::Service;
use self::stalled::Stalled;
use crate::admission::connection_limiter::{AcceptPermit, ConnectionLimiter, ConnectionSlot};
use crate::admission::limits::{Limits, MAX_HEAD_BYTES, MAX_HEADERS};
use crate::api::peer::Peer;
use crate::metrics::Refusal;
use crate::transition_log::TransitionLog;

/// How the server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every request in flight was answered.
    Clean,
    /// The drain deadline passed with this many connections still open; they were cut.
    Cut {
        /// Connections that were cut.
        connections: usize,
    },
    /// Told to stop again while draining: whatever was open was cut.
    Abandoned,
}

/// Serves `app` on `listener` until `shutdown`, then drains.
///
/// Ends with an error only when accepting fails in a way that will not pass.
pub async fn serve<S: Service>(
    listener: UnixListener,
    app: App<S>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<Drained> {
    let (limits, operators) = (app.limits, app.operators);
    let metrics = Arc::clone(&app.metrics);
    let app = Arc::new(app);
    let router = routes::router(Arc::clone(&app));
    let seats = ConnectionLimiter::new(&limits, operators, Arc::clone(&metrics));
    let drain = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    let mut outcome = Ok(());

    // Callers can bring this about again and again; the figure counts each.
    let mut accepting = TransitionLog::default();
    loop {
        let next = async {
            let place = seats.place().await;
            (place, listener.accept().await)
        };

        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => if let Err(error) = ended {
                error!(%error, "a connection's task broke; the daemon goes on");
            },
            (place, accepted) = next => {
                let Some(place) = place else { break };
                match accepted {
                    Ok((stream, _)) => {
                        if accepting.wrong().is_some() && accepting.note(None, Instant::now()).is_some() {
                            info!("accepts again");
                        }
                        let Some((stream, peer, seat)) = admit(stream, place, &seats) else { continue };
                        let (router, app, watcher) = (router.clone(), Arc::clone(&app), drain.watcher());
                        connections.spawn(async move {
                            if let Some((stream, turn)) = seat.turn(stream, limits.header_deadline).await {
                                connection(stream, peer, router, app, watcher).await;
                                drop(turn);
                            }
                            drop(seat);
                        });
                    }
                    Err(error) => match fault(&error) {
                        AcceptFault::Passing => debug!(%error, "a caller left before it was accepted"),
                        AcceptFault::Exhausted => {
                            if accepting.note(Some("exhausted"), Instant::now()).is_some() {
                                warn!(%error, "cannot accept for now");
                            }
                            metrics.refused(Refusal::Exhausted);
                            tokio::time::sleep(accept::BACK_OFF).await;
                        }
                        AcceptFault::Final => {
                            outcome = Err(error);
                            break;
                        }
                    },
                }
            }
        }
    }

    drop(listener);
    let drained = drained(drain, connections, &limits).await;

    outcome.map(|()| drained)
}

/// Who connected, and a seat for it; `None` where it was turned away.
fn admit(
    stream: UnixStream,
    place: AcceptPermit,
    seats: &ConnectionLimiter,
) -> Option<(UnixStream, Peer, ConnectionSlot)> {
    match stream.peer_cred() {
        Ok(credentials) => {
            let peer = Peer::new(&credentials);
            match seats.take(place, peer.uid) {
                Ok(seat) => Some((stream, peer, seat)),
                Err(full) => {
                    crate::admission::connection_limiter::turn_away(&stream, peer.uid, full);
                    None
                }
            }
        }
        Err(error) => {
            debug!(%error, "a caller without credentials was turned away");
            None
        }
    }
}

/// One connection from its first byte to its last.
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
            Stalled::new(TokioIo::new(stream), limits.write_deadline),
            service,
        );
    let watched = drain.watch(http);

    async move {
        if let Err(error) = watched.await {
            // Callers that leave early, send nothing or send no HTTP: theirs to mend, not ours to
            // warn of.
            debug!(uid = peer.uid, %error, "a connection ended early");
        }
    }
}

/// Waits for what is in flight, up to the deadline, and cuts the rest.
async fn drained(
    drain: GracefulShutdown,
    mut connections: JoinSet<()>,
    limits: &Limits,
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

/// Comes back when `stopping` turns true, or when whoever could turn it is gone.
pub async fn until(mut stopping: tokio::sync::watch::Receiver<bool>) {
    // An error means that the sender is gone: the same.
    let _sender_gone = stopping.wait_for(|stopping| *stopping).await;
}
