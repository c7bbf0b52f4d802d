//! From READY to the end.

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
use crate::admission::limits::Limits;
use crate::config;
use crate::files::FileThreads;
use crate::metrics::Metrics;
use crate::server;
use crate::server::routes::App;
use crate::server::service::Service;
use crate::server::{Drained, serve};

/// What a running daemon is made of.
#[derive(Debug)]
pub struct Daemon<S> {
    /// The program behind the socket.
    pub service: Arc<S>,
    /// Its figures.
    pub metrics: Arc<Metrics>,
    /// What a caller may cost.
    pub limits: Limits,
    /// The line to the service manager.
    pub notifier: Notifier,
    /// The command line: SIGHUP reads its configuration file again, if any, and lays the rest over
    /// it.
    pub options: Options,
}

/// How the daemon ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// What asked it to.
    pub by: &'static str,
    /// Whether all in flight was answered.
    pub drained: Drained,
}

/// Why the daemon could not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The listener cannot be used by the runtime.
    #[error("cannot serve the socket: {0}")]
    Listener(io::Error),
    /// Accepting failed in a way that does not pass.
    #[error("cannot accept connections any more: {0}")]
    Accept(io::Error),
    /// The server's task broke.
    #[error("the server broke: {0}")]
    Broke(tokio::task::JoinError),
}

impl From<RunError> for Problem {
    fn from(error: RunError) -> Self {
        Self::new(Reason::Internal, error.to_string()).hint("please report this with the log")
    }
}

/// Serves `listening` until a signal says to stop, then drains.
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
        .ok_or_else(|| io::Error::other("it was taken before"))
        .and_then(UnixListener::from_std)
        .map_err(RunError::Listener)?;

    warn_of_few_descriptors(&limits);
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
                    Err(error) => RunError::Broke(error),
                });
            }
            wanted = signals.recv() => match wanted {
                Some(Signal::Reload) => {
                    let reloading = || reload(service.as_ref(), &options, &files);
                    if let Some(by) = reload_or_stop(reloading, &notifier, &mut signals).await {
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
        "stopping: answering what is in flight"
    );

    notifier.stopping();

    // Nobody holds a receiver only if the server is gone already, which the join below tells.
    let _server_gone = stop.send(true);
    let drained = drain(&mut server, &mut signals).await?;
    match drained {
        Drained::Clean => info!("stopped: all requests in flight were answered"),
        Drained::Cut { connections } => warn!(
            connections,
            "stopped: the drain deadline passed, the rest was cut"
        ),
        Drained::Abandoned => warn!("stopped: what was in flight was cut"),
    }

    service.stop().await;
    stop_watchdog(watchdog);
    drop(listening);

    Ok(Ended { by, drained })
}

/// Waits for the server; a second signal to stop ends the wait.
async fn drain(
    server: &mut JoinHandle<io::Result<Drained>>,
    signals: &mut mpsc::Receiver<Signal>,
) -> Result<Drained, RunError> {
    loop {
        tokio::select! {
            ended = &mut *server => {
                return ended.map_err(RunError::Broke)?.map_err(RunError::Accept);
            }
            Some(wanted) = signals.recv() => if matches!(wanted, Signal::Stop(_)) {
                warn!("told to stop again: not waiting any longer");
                server.abort();
                return Ok(Drained::Abandoned);
            },
        }
    }
}

/// Why the daemon ends when nothing can tell it to.
const NO_SIGNALS: &str = "the end of its signals";

/// Reloads, and once more where that is asked for meanwhile. Returns what asks the daemon to stop:
/// a disk that hangs must not keep it from ending.
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
                wanted = signals.recv() => match wanted {
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

/// How long the configuration may take to be read again: more than one file may, so that the
/// message names it.
const RELOAD_DEADLINE: Duration = Duration::from_secs(30);

/// Reads the configuration again; a bad one is refused and the old one stays in force.
async fn reload<S: Service>(service: &S, options: &Options, files: &FileThreads) -> String {
    let Some(path) = &options.config_file else {
        info!("told to reload, but no configuration file is in use");
        return "nothing to reload: no configuration file is in use".to_owned();
    };

    let file = path.clone();
    let loaded = match files.run(path, move |_| config::load(&file)).await {
        Ok(loaded) => loaded.map_err(Problem::from),
        Err(hung) => Err(Problem::new(Reason::BadConfiguration, hung.to_string())),
    };

    let taken = match loaded {
        Ok((config, warnings)) => {
            for warning in warnings {
                warn!(%warning, "configuration");
            }
            service.reload(options.over(config)).await
        }
        Err(problem) => Err(problem),
    };

    match taken {
        Ok(later) if later.is_empty() => {
            info!(path = %path.display(), "configuration reloaded");
            "configuration reloaded".to_owned()
        }
        Ok(later) => {
            let keys = later.join(", ");
            warn!(path = %path.display(), %keys, "configuration reloaded; these keys need a restart");
            format!("configuration reloaded; a restart is needed for {keys}")
        }
        Err(problem) => {
            error!(path = %path.display(), %problem, "the new configuration is refused; the old one stays in force");
            format!("the new configuration is refused: {problem}")
        }
    }
}

/// Descriptors that are needed beside callers' connections: the Hub's, the driver's, files.
const OTHER_DESCRIPTORS: u64 = 64;

/// At the cap of connections there must be descriptors left; said at the start, since later it
/// looks like a fault of whatever could not be opened.
fn warn_of_few_descriptors(limits: &Limits) {
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
