//! The log on stderr, for the journal. Its filter can change while the daemon runs.

use std::fmt;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, SubscriberBuilder};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::TryInitError;

use crate::config::{LogConfig, LogFormat};

/// The handle that changes the filter of the log that [`start`] started.
pub struct LogControl {
    set: Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>,
}

impl LogControl {
    /// Sets a new filter. A new format needs a restart.
    pub fn set_filter(&self, filter: &str) -> Result<(), String> {
        let filter = EnvFilter::try_new(scope_levels(filter)).map_err(|error| error.to_string())?;
        (self.set)(filter)
    }
}

impl fmt::Debug for LogControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogControl")
    }
}

/// The prefix of this program's own log targets.
const OWN_TARGET: &str = env!("CARGO_CRATE_NAME");

/// Applies a level without a target to this program alone. The libraries then log warnings only,
/// unless the filter names them: `trace,hyper=debug` becomes `warn,hf_mem_probe=trace,hyper=debug`.
fn scope_levels(filter: &str) -> String {
    let directives =
        filter
            .split(',')
            .map(|directive| match directive.trim().parse::<LevelFilter>() {
                Ok(level) if !directive.trim().is_empty() => {
                    format!("{},{OWN_TARGET}={level}", level.min(LevelFilter::WARN))
                }
                _ => directive.to_owned(),
            });
    directives.collect::<Vec<_>>().join(",")
}

/// A format whose lines begin with their level in the journal's notation (sd-daemon(3)). The
/// journal removes the prefix and stores the level, so that `journalctl -p warning` works.
struct LevelPrefixed<F>(F);

impl<S, N, F> FormatEvent<S, N> for LevelPrefixed<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        writer.write_str(level_prefix(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

const fn level_prefix(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// Returns whether `output` is the journal's stream, `DEVICE:INODE` (systemd.exec(5)), and not
/// redirected to a file. The journal adds the time to each line itself.
fn is_journal_stream(stream: &str, output: impl AsFd) -> bool {
    rustix::fs::fstat(output)
        .is_ok_and(|found| stream == format!("{}:{}", found.st_dev, found.st_ino))
}

/// Starts the log of the whole process. It fails if a log was started before. `RUST_LOG` overrides
/// the configuration, for a closer look at one run.
pub fn start(config: &LogConfig) -> Result<LogControl, TryInitError> {
    use tracing_subscriber::util::SubscriberInitExt;

    let from_environment = std::env::var(EnvFilter::DEFAULT_ENV)
        .ok()
        .filter(|filter| !filter.is_empty())
        .and_then(|filter| EnvFilter::try_new(scope_levels(&filter)).ok());
    let filter =
        from_environment.map_or_else(|| EnvFilter::try_new(scope_levels(&config.filter)), Ok);
    let filter = filter.unwrap_or_else(|_| EnvFilter::new(scope_levels("info")));
    let under_journal = std::env::var("JOURNAL_STREAM")
        .is_ok_and(|stream| is_journal_stream(&stream, io::stderr()));

    let builder: SubscriberBuilder<_, _, EnvFilter, fn() -> io::Stderr> = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr as fn() -> io::Stderr)
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    macro_rules! start_with {
        ($builder:expr) => {{
            let builder = $builder.with_filter_reloading();
            let handle = builder.reload_handle();
            builder.finish().try_init()?;
            LogControl {
                set: Box::new(move |filter| {
                    handle.reload(filter).map_err(|error| error.to_string())
                }),
            }
        }};
    }

    Ok(match (config.format, under_journal) {
        (LogFormat::Text, true) => {
            start_with!(builder.without_time().map_event_format(LevelPrefixed))
        }
        (LogFormat::Text, false) => start_with!(builder),
        (LogFormat::Json, true) => start_with!(
            builder
                .json()
                .flatten_event(true)
                .map_event_format(LevelPrefixed)
        ),
        (LogFormat::Json, false) => start_with!(builder.json().flatten_event(true)),
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn journal_stream_matches_device_and_inode() {
        let file = tempfile::tempfile().unwrap();
        let found = file.metadata().unwrap();
        assert!(is_journal_stream(
            &format!("{}:{}", found.dev(), found.ino()),
            &file
        ));

        assert!(!is_journal_stream(
            &format!("{}:{}", found.dev(), found.ino() + 1),
            &file
        ));
        assert!(!is_journal_stream("", &file));
    }

    #[test]
    fn bare_level_applies_to_this_program() {
        assert_eq!(scope_levels("info"), "warn,hf_mem_probe=info");
        assert_eq!(
            scope_levels("debug, hyper=debug"),
            "warn,hf_mem_probe=debug, hyper=debug"
        );

        assert_eq!(
            scope_levels("hf_mem_probe::model=trace,info"),
            "hf_mem_probe::model=trace,warn,hf_mem_probe=info"
        );
        assert_eq!(scope_levels("error"), "error,hf_mem_probe=error");
        assert_eq!(scope_levels("off"), "off,hf_mem_probe=off");
        assert_eq!(scope_levels("hf_mem_probe::daemon"), "hf_mem_probe::daemon");

        for filter in [
            "5",
            "TRACE",
            "hyper",
            "",
            "debug,",
            "[request{uid=0}]=debug,info",
        ] {
            assert!(
                EnvFilter::try_new(scope_levels(filter)).is_ok(),
                "{filter}: {}",
                scope_levels(filter)
            );
        }
    }

    #[test]
    fn lines_begin_with_their_level() {
        let mut file = tempfile::tempfile().unwrap();
        let writer = file.try_clone().unwrap();

        let log = tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .map_event_format(LevelPrefixed);
        tracing::subscriber::with_default(
            log.with_writer(move || writer.try_clone().unwrap())
                .finish(),
            || {
                tracing::error!("no disk");
                tracing::warn!("a slow disk");
                tracing::info!("a disk");
            },
        );

        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        let prefixes: Vec<&str> = text.lines().filter_map(|line| line.get(..3)).collect();
        assert_eq!(prefixes, ["<3>", "<4>", "<6>"], "{text}");
    }
}
