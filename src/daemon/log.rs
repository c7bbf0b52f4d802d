//! The log on stderr, which the journal takes; its filter can be changed while the daemon runs.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::SubscriberBuilder;
use tracing_subscriber::util::TryInitError;

use crate::config::{LogConfig, LogFormat};

/// Changes the filter of the log that [`start`] started.
pub struct LogControl {
    set: Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>,
}

impl LogControl {
    /// Takes over a new filter. The format needs a restart.
    pub fn set_filter(&self, filter: &str) -> Result<(), String> {
        let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
        (self.set)(filter)
    }
}

impl std::fmt::Debug for LogControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogControl")
    }
}

/// Starts the log of the whole process; fails where one was started before. `RUST_LOG` stands before the
/// configuration, for one run under a magnifying glass.
pub fn start(config: &LogConfig) -> Result<LogControl, TryInitError> {
    use tracing_subscriber::util::SubscriberInitExt;

    let filter = EnvFilter::try_from_default_env().or_else(|_| EnvFilter::try_new(&config.filter));
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("info"));
    // The journal sets this for services and stamps each line itself (systemd.exec(5)).
    let under_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let builder: SubscriberBuilder<_, _, EnvFilter, fn() -> io::Stderr> = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr as fn() -> io::Stderr)
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    macro_rules! go {
        ($builder:expr) => {{
            let builder = $builder.with_filter_reloading();
            let handle = builder.reload_handle();
            builder.finish().try_init()?;
            LogControl { set: Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string())) }
        }};
    }
    Ok(match (config.format, under_journal) {
        (LogFormat::Text, true) => go!(builder.without_time()),
        (LogFormat::Text, false) => go!(builder),
        (LogFormat::Json, _) => go!(builder.json().flatten_event(true)),
    })
}
