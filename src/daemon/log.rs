//! The log on stderr, which the journal takes; its filter can be changed while the daemon runs.

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

/// Changes the filter of the log that [`start`] started.
pub struct LogControl {
    set: Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>,
}

impl LogControl {
    /// Takes over a new filter. The format needs a restart.
    pub fn set_filter(&self, filter: &str) -> Result<(), String> {
        let filter = EnvFilter::try_new(own(filter)).map_err(|error| error.to_string())?;
        (self.set)(filter)
    }
}

impl fmt::Debug for LogControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogControl")
    }
}

/// This program's own targets.
const OWN: &str = env!("CARGO_CRATE_NAME");

/// `filter` with a level that names no target as this program's own: of the libraries that it uses,
/// only what wants attention is logged then, unless they are named. `trace,hyper=debug` is
/// `warn,hf_mem_probe=trace,hyper=debug`.
fn own(filter: &str) -> String {
    let directives =
        filter
            .split(',')
            .map(|directive| match directive.trim().parse::<LevelFilter>() {
                Ok(level) if !directive.trim().is_empty() => {
                    format!("{},{OWN}={level}", level.min(LevelFilter::WARN))
                }
                _ => directive.to_owned(),
            });
    directives.collect::<Vec<_>>().join(",")
}

/// Lines that begin with their level as the journal wants it (sd-daemon(3)): it takes the mark off
/// and files the line by it, so that `journalctl -p warning` finds what it should.
struct Marked<F>(F);

impl<S, N, F> FormatEvent<S, N> for Marked<F>
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
        writer.write_str(mark(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

const fn mark(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// Whether `output` is the journal's `DEVICE:INODE` (systemd.exec(5)), and not a file that somebody
/// put in its place. The journal stamps each line itself.
fn is_stream(stream: &str, output: impl AsFd) -> bool {
    rustix::fs::fstat(output)
        .is_ok_and(|found| stream == format!("{}:{}", found.st_dev, found.st_ino))
}

/// Starts the log of the whole process; fails where one was started before. `RUST_LOG` stands
/// before the configuration, for one run under a magnifying glass.
pub fn start(config: &LogConfig) -> Result<LogControl, TryInitError> {
    use tracing_subscriber::util::SubscriberInitExt;

    let said = std::env::var(EnvFilter::DEFAULT_ENV)
        .ok()
        .filter(|said| !said.is_empty());
    let filter = said.and_then(|said| EnvFilter::try_new(own(&said)).ok());
    let filter = filter.map_or_else(|| EnvFilter::try_new(own(&config.filter)), Ok);
    let filter = filter.unwrap_or_else(|_| EnvFilter::new(own("info")));
    let under_journal =
        std::env::var("JOURNAL_STREAM").is_ok_and(|stream| is_stream(&stream, io::stderr()));

    let builder: SubscriberBuilder<_, _, EnvFilter, fn() -> io::Stderr> = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr as fn() -> io::Stderr)
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    macro_rules! go {
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
        (LogFormat::Text, true) => go!(builder.without_time().map_event_format(Marked)),
        (LogFormat::Text, false) => go!(builder),
        (LogFormat::Json, true) => go!(builder.json().flatten_event(true).map_event_format(Marked)),
        (LogFormat::Json, false) => go!(builder.json().flatten_event(true)),
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_journal_is_known_by_its_device_and_inode() {
        let file = tempfile::tempfile().unwrap();
        let found = file.metadata().unwrap();
        assert!(is_stream(
            &format!("{}:{}", found.dev(), found.ino()),
            &file
        ));

        assert!(!is_stream(
            &format!("{}:{}", found.dev(), found.ino() + 1),
            &file
        ));
        assert!(!is_stream("", &file));
    }

    #[test]
    fn a_level_alone_is_of_this_program() {
        assert_eq!(own("info"), "warn,hf_mem_probe=info");
        assert_eq!(
            own("debug, hyper=debug"),
            "warn,hf_mem_probe=debug, hyper=debug"
        );

        assert_eq!(
            own("hf_mem_probe::model=trace,info"),
            "hf_mem_probe::model=trace,warn,hf_mem_probe=info"
        );
        assert_eq!(own("error"), "error,hf_mem_probe=error");
        assert_eq!(own("off"), "off,hf_mem_probe=off");
        assert_eq!(own("hf_mem_probe::daemon"), "hf_mem_probe::daemon");

        for filter in [
            "5",
            "TRACE",
            "hyper",
            "",
            "debug,",
            "[request{uid=0}]=debug,info",
        ] {
            assert!(
                EnvFilter::try_new(own(filter)).is_ok(),
                "{filter}: {}",
                own(filter)
            );
        }
    }

    #[test]
    fn each_line_begins_with_its_level() {
        let mut file = tempfile::tempfile().unwrap();
        let writer = file.try_clone().unwrap();

        let log = tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .map_event_format(Marked);
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
        let marks: Vec<&str> = text.lines().filter_map(|line| line.get(..3)).collect();
        assert_eq!(marks, ["<3>", "<4>", "<6>"], "{text}");
    }
}
