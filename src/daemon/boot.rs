//! Starts the daemon: configuration, handed-over socket, log, service, own socket, READY.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;
use tracing::{info, warn};

use super::log::{self, LogControl};
use super::{Ended, Listening, Notifier, SocketError, run, signals, socket};
use crate::accounts::Accounts;
use crate::admission::server_limits::ServerLimits;
use crate::config::{self, Config};
use crate::files;
use crate::metrics::Metrics;
use crate::server::service::Service;

/// The configuration file to read if the command line names none. If it does not exist, the
/// defaults apply.
pub const DEFAULT_CONFIG_FILE: &str = "/etc/hf-mem-probe/config.toml";

/// The options of the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `--config FILE`.
    pub config_file: Option<PathBuf>,
    /// `--socket PATH`, which overrides `socket.path`.
    pub socket: Option<PathBuf>,
    /// `--gpus SPEC`, which overrides `devices.declared`.
    pub gpus: Option<String>,
}

impl Options {
    /// Applies the options to `config`, at the start and after each reload.
    pub fn apply_to(&self, mut config: Config) -> Config {
        if let Some(path) = &self.socket {
            config.socket.path.clone_from(path);
        }

        if self.gpus.is_some() {
            config.devices.declared.clone_from(&self.gpus);
        }

        config
    }
}

/// The parts from which a service is built.
#[derive(Debug)]
pub struct Parts {
    /// The configuration, with the command line's options applied.
    pub config: Config,
    /// The metrics that it updates.
    pub metrics: Arc<Metrics>,
    /// The log, whose filter a reload can change.
    pub log: LogControl,
}

/// Starts the daemon on this thread, around the service that `build` returns, and runs it until it
/// stops.
pub fn boot<S: Service>(
    options: &Options,
    build: impl AsyncFnOnce(Parts) -> Result<S, Problem>,
) -> Result<Ended, Problem> {
    let mut options = options.clone();
    if options.config_file.is_none() && exists(Path::new(DEFAULT_CONFIG_FILE)) {
        options.config_file = Some(DEFAULT_CONFIG_FILE.into());
    }

    let (config, warnings) = match &options.config_file {
        Some(path) => config::load(path)?,
        None => (Config::default(), Vec::new()),
    };

    let config = options.apply_to(config);

    // Before threads start: it clears variables of the environment.
    let handed_over = socket::from_systemd(listenfd::ListenFd::from_env())?;
    let log = log::start(&config.log)
        .map_err(|error| Problem::new(Reason::Internal, error.to_string()))?;

    let config_file = options
        .config_file
        .as_ref()
        .map(|path| path.display().to_string());
    info!(
        config = config_file,
        handed_over = handed_over.is_some(),
        "starting"
    );

    for warning in warnings {
        warn!(%warning, "configuration");
    }

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Name lookups, parsing of large bodies, and long plans. Each of these has its own bound,
        // far below this one. Idle threads end after ten seconds.
        .max_blocking_threads(64)
        .build()
        .map_err(|error| {
            Problem::new(
                Reason::Internal,
                format!("cannot start the runtime: {error}"),
            )
        })?;
    let ended = runtime.block_on(async {
        let metrics = Arc::new(Metrics::default());
        let parts = Parts {
            config: config.clone(),
            metrics: Arc::clone(&metrics),
            log,
        };

        let service = Arc::new(build(parts).await?);
        let listening = bind_unless(handed_over, &config)?;

        let signals = signals::of_process().map_err(|error| {
            Problem::new(
                Reason::Internal,
                format!("cannot listen for signals: {error}"),
            )
        })?;

        let daemon = super::Daemon {
            service,
            metrics,
            limits: ServerLimits::new(&config.socket, config.leases.max_wait),
            notifier: Notifier::from_environment(),
            options,
        };

        Ok(run(daemon, listening, signals).await?)
    });

    // A driver call can hang in a thread of its own. The shutdown does not wait for it.
    runtime.shutdown_background();
    ended
}

fn exists(path: &Path) -> bool {
    let file = path.to_owned();
    // If the disk does not answer, the file can exist. Reading it then reports the disk.
    files::wait(path, move |disk| disk.exists(&file)).unwrap_or(true)
}

/// Returns the socket that systemd handed over, else binds one.
fn bind_unless(handed_over: Option<Listening>, config: &Config) -> Result<Listening, SocketError> {
    handed_over.map_or_else(
        || socket::bind(&config.socket, &Accounts::of_this_host()),
        Ok,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_overrides_the_file() {
        let options = Options {
            socket: Some("/tmp/a.sock".into()),
            gpus: Some("2x24GiB".to_owned()),
            ..Options::default()
        };

        let config = options.apply_to(Config::default());
        assert_eq!(config.socket.path, Path::new("/tmp/a.sock"));
        assert_eq!(config.devices.declared.as_deref(), Some("2x24GiB"));

        assert_eq!(
            Options::default().apply_to(Config::default()),
            Config::default()
        );
    }
}
