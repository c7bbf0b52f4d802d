//! Runs the daemon from READY until it stops: signals, reload, watchdog, drain.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::{Listening, Notifier, Options, Signal, watchdog};
use crate::admission::server_limits::ServerLimits;
use crate::config;
use crate::files::FileThreads;
use crate::metrics::Metrics;
use crate::server;
use crate::server::routes::App;
use crate::server::service::Service;
use crate::server::{Drained, serve};

/// The parts of a running daemon.
#[derive(Debug)]
pub struct Daemon<S> {
    /// The service behind the socket.
    pub service: Arc<S>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The limits on one caller.
    pub limits: ServerLimits,
    /// The connection to the service manager.
    pub notifier: Notifier,
    /// The command line. SIGHUP reads its configuration file again, if there is one, and applies
    /// the other options to it.
    pub options: Options,
}

/// How the daemon stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The cause, such as a signal's name.
    pub by: &'static str,
    /// Whether all requests in flight were answered.
    pub drained: Drained,
}

/// Why the daemon could not continue.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The runtime cannot use the listener.
    #[error("cannot serve the socket: {0}")]
    Listener(io::Error),
    /// Accepting failed permanently.
    #[error("cannot accept connections any more: {0}")]
    Accept(io::Error),
    /// The server's task panicked.
    #[error("the server's task failed: {0}")]
    TaskFailed(tokio::task::JoinError),
}

impl From<RunError> for Problem {
    fn from(error: RunError) -> Self {
        Self::new(Reason::Internal, error.to_string()).hint("report this with the log")
    }
}

/// Serves `listening` until a signal to stop arrives, then drains.
pub async fn run<S: Service>(
    daemon: Daemon<S>,
    mut listening: Listening,
    mut signals: mpsc::Receiver<Signal>,
) -> Result<Ended, RunError> {
    let Daemon {
        service,
        metrics,
        limits,
        notifier,
        options,
    } = daemon;

    let listener = listening
        .take()
        .ok_or_else(|| io::Error::other("the listener was taken before"))
        .and_then(UnixListener::from_std)
        .map_err(RunError::Listener)?;

    warn_of_low_descriptor_limit(&limits);
    let (stop, stopping) = watch::channel(false);
    let app = App::new(Arc::clone(&service), metrics, limits, stopping.clone());
    let mut server = tokio::spawn(serve(listener, app, server::until(stopping)));

    let watchdog = notifier.watchdog().map(|period| {
        tokio::spawn(watchdog::watch(
            Arc::clone(&service),
            notifier.clone(),
            period,
        ))
    });

    let place = listening.own_path().map_or_else(
        || "the socket unit's socket".to_owned(),
        |path| path.display().to_string(),
    );
    notifier.ready(&format!("answering on {place}"));
    info!(socket = %place, version = env!("CARGO_PKG_VERSION"), "ready");

    let files = FileThreads::new(1, RELOAD_DEADLINE);
    let by = loop {
        tokio::select! {
            ended = &mut server => {
                stop_watchdog(watchdog);
                service.stop().await;
                return Err(match ended {
                    Ok(Err(error)) => RunError::Accept(error),
                    Ok(Ok(_)) => RunError::Accept(io::Error::other("the server ended by itself")),
                    Err(error) => RunError::TaskFailed(error),
                });
            }
            signal = signals.recv() => match signal {
                Some(Signal::Reload) => {
                    let start_reload = || reload(service.as_ref(), &options, &files);
                    if let Some(by) = reload_or_stop(start_reload, &notifier, &mut signals).await {
                        break by;
                    }
                }
                Some(Signal::Stop(by)) => break by,
                None => break NO_SIGNALS,
            },
        }
    };

    info!(
        by,
        deadline_seconds = limits.drain_deadline.as_secs(),
        "stopping: answering requests in flight"
    );

    notifier.stopping();

    // Sending fails only if the server has ended, which the join below reports.
    let _server_gone = stop.send(true);
    let drained = drain(&mut server, &mut signals).await?;
    match drained {
        Drained::Clean => info!("stopped: all requests in flight were answered"),
        Drained::Cut { connections } => warn!(
            connections,
            "stopped: the drain deadline passed, and the remaining connections were cut"
        ),
        Drained::Abandoned => warn!("stopped: requests in flight were cut"),
    }

    service.stop().await;
    stop_watchdog(watchdog);
    drop(listening);

    Ok(Ended { by, drained })
}

/// Waits for the server. A second signal to stop ends the wait.
async fn drain(
    server: &mut JoinHandle<io::Result<Drained>>,
    signals: &mut mpsc::Receiver<Signal>,
) -> Result<Drained, RunError> {
    loop {
        tokio::select! {
            ended = &mut *server => {
                return ended.map_err(RunError::TaskFailed)?.map_err(RunError::Accept);
            }
            Some(signal) = signals.recv() => if matches!(signal, Signal::Stop(_)) {
                warn!("second signal to stop: not waiting any longer");
                server.abort();
                return Ok(Drained::Abandoned);
            },
        }
    }
}

/// Why the daemon stops if no signal can reach it any more.
const NO_SIGNALS: &str = "the end of its signals";

/// Reloads, and again if another SIGHUP arrives meanwhile. Returns the signal that stops the
/// daemon: a disk that hangs must not prevent the shutdown.
async fn reload_or_stop<F: Future<Output = String>>(
    reload: impl Fn() -> F,
    notifier: &Notifier,
    signals: &mut mpsc::Receiver<Signal>,
) -> Option<&'static str> {
    loop {
        notifier.reloading();
        let mut again = false;
        let mut reloading = pin!(reload());
        let status = loop {
            tokio::select! {
                status = &mut reloading => break status,
                signal = signals.recv() => match signal {
                    Some(Signal::Reload) => again = true,
                    Some(Signal::Stop(by)) => return Some(by),
                    None => return Some(NO_SIGNALS),
                },
            }
        };

        notifier.ready(&status);
        if !again {
            return None;
        }
    }
}

/// The longest time for reading the configuration again: longer than the deadline of one file, so
/// that the error names the file.
const RELOAD_DEADLINE: Duration = Duration::from_secs(30);

/// Reads the configuration again. An invalid one is rejected, and the old one stays in force.
async fn reload<S: Service>(service: &S, options: &Options, files: &FileThreads) -> String {
    let Some(path) = &options.config_file else {
        info!("nothing to reload: no configuration file is in use");
        return "nothing to reload: no configuration file is in use".to_owned();
    };

    let file = path.clone();
    let loaded = match files.run(path, move |_| config::load(&file)).await {
        Ok(loaded) => loaded.map_err(Problem::from),
        Err(hung) => Err(Problem::new(Reason::BadConfiguration, hung.to_string())),
    };

    let reloaded = match loaded {
        Ok((config, warnings)) => {
            for warning in warnings {
                warn!(%warning, "configuration");
            }
            service.reload(options.apply_to(config)).await
        }
        Err(problem) => Err(problem),
    };

    match reloaded {
        Ok(needs_restart) if needs_restart.is_empty() => {
            info!(path = %path.display(), "configuration reloaded");
            "configuration reloaded".to_owned()
        }
        Ok(needs_restart) => {
            let keys = needs_restart.join(", ");
            warn!(path = %path.display(), %keys, "configuration reloaded; these keys need a restart");
            format!("configuration reloaded; a restart is needed for {keys}")
        }
        Err(problem) => {
            error!(
                path = %path.display(), %problem,
                "the new configuration is rejected; the old one stays in force"
            );
            format!("the new configuration is rejected: {problem}")
        }
    }
}

/// Descriptors that the daemon needs in addition to callers' connections: the Hub, the driver,
/// files.
const OTHER_DESCRIPTORS: u64 = 64;

/// Warns if the descriptors do not suffice for the cap of connections. Later the shortage would
/// look like a fault of the file or socket that could not be opened.
fn warn_of_low_descriptor_limit(limits: &ServerLimits) {
    let allowed = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let needed = (limits.connections as u64).saturating_add(OTHER_DESCRIPTORS);
    if let Some(allowed) = allowed.filter(|allowed| *allowed < needed) {
        warn!(
            allowed,
            needed,
            "fewer descriptors than socket.connections needs: raise LimitNOFILE= or `ulimit -n`"
        );
    }
}

fn stop_watchdog(watchdog: Option<JoinHandle<()>>) {
    if let Some(watchdog) = watchdog {
        watchdog.abort();
    }
}
