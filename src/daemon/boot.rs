//! The boot, in its order: configuration, handed-over socket, log, sources, own socket, READY.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;
use tracing::{info, warn};

use super::log::{self, LogControl};
use super::{Ended, Listening, Notifier, SocketError, run, signals, socket};
use crate::accounts::Accounts;
use crate::admission::limits::Limits;
use crate::config::{self, Config};
use crate::files;
use crate::metrics::Metrics;
use crate::server::service::Service;

/// The configuration that is read when none is named; without it the defaults are in force.
pub const DEFAULT_CONFIG_FILE: &str = "/etc/hf-mem-probe/config.toml";

/// What the command line says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `--config FILE`.
    pub config_file: Option<PathBuf>,
    /// `--socket PATH`, in place of `socket.path`.
    pub socket: Option<PathBuf>,
    /// `--gpus SPEC`, in place of `devices.declared`.
    pub gpus: Option<String>,
}

impl Options {
    /// Lays what the command line says over `config`; after a reload again.
    pub fn over(&self, mut config: Config) -> Config {
        if let Some(path) = &self.socket {
            config.socket.path.clone_from(path);
        }

        if self.gpus.is_some() {
            config.devices.declared.clone_from(&self.gpus);
        }

        config
    }
}

/// What a program is built from.
#[derive(Debug)]
pub struct Parts {
    /// The configuration, with the command line laid over it.
    pub config: Config,
    /// The figures that it moves.
    pub metrics: Arc<Metrics>,
    /// The log, whose filter a reload may change.
    pub log: LogControl,
}

/// Boots the daemon on this thread, around the program that `build` makes of its parts, and runs it
/// to its end.
pub fn boot<S: Service>(
    options: &Options,
    build: impl AsyncFnOnce(Parts) -> Result<S, Problem>,
) -> Result<Ended, Problem> {
    let mut options = options.clone();
    if options.config_file.is_none() && is_there(Path::new(DEFAULT_CONFIG_FILE)) {
        options.config_file = Some(DEFAULT_CONFIG_FILE.into());
    }

    let (config, warnings) = match &options.config_file {
        Some(path) => config::load(path)?,
        None => (Config::default(), Vec::new()),
    };

    let config = options.over(config);

    // Before there are threads: it clears variables of the environment.
    let handed = socket::from_systemd(listenfd::ListenFd::from_env())?;
    let log = log::start(&config.log)
        .map_err(|error| Problem::new(Reason::Internal, error.to_string()))?;

    let config_file = options
        .config_file
        .as_ref()
        .map(|path| path.display().to_string());
    info!(
        config = config_file,
        handed_over = handed.is_some(),
        "starting"
    );

    for warning in warnings {
        warn!(%warning, "configuration");
    }

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Names that are looked up, long parsing, long questions: each of these is bounded by
        // itself far below that. Threads without work end after ten seconds.
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
        let listening = own_or(handed, &config)?;

        let signals = signals::of_process().map_err(|error| {
            Problem::new(
                Reason::Internal,
                format!("cannot listen for signals: {error}"),
            )
        })?;

        let daemon = super::Daemon {
            service,
            metrics,
            limits: Limits::new(&config.socket, config.leases.max_wait),
            notifier: Notifier::from_environment(),
            options,
        };

        Ok(run(daemon, listening, signals).await?)
    });

    // A read of the driver may hang in a thread of its own: the end does not wait for it.
    runtime.shutdown_background();
    ended
}

fn is_there(path: &Path) -> bool {
    let asked = path.to_owned();
    // A disk that does not answer may hold the file: reading it says so.
    files::wait(path, move |disk| disk.exists(&asked)).unwrap_or(true)
}

/// The socket that was handed over, or else one of our own.
fn own_or(handed: Option<Listening>, config: &Config) -> Result<Listening, SocketError> {
    handed.map_or_else(
        || socket::bind(&config.socket, &Accounts::of_this_host()),
        Ok,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_stands_before_the_file() {
        let options = Options {
            socket: Some("/tmp/a.sock".into()),
            gpus: Some("2x24GiB".to_owned()),
            ..Options::default()
        };

        let config = options.over(Config::default());
        assert_eq!(config.socket.path, Path::new("/tmp/a.sock"));
        assert_eq!(config.devices.declared.as_deref(), Some("2x24GiB"));

        assert_eq!(
            Options::default().over(Config::default()),
            Config::default()
        );
    }
}
