//! `gpus`: shows free memory, leases and processes of each GPU.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::Snapshot;
use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::{Problem, SCHEMA_VERSION};
use tokio::signal::unix::{SignalKind, signal};

use super::arguments::{ConnectionArguments, GpusArguments, HostArguments};
use super::connection::AnswerEffort;
use super::output::{self, AlternateScreen, Output, runtime_problem};
use super::{in_process, offline_leases, terminal, text};
use crate::api::client::{ClientError, block_on};
use crate::api::status::{GpusAnswer, WatchLine};

/// The interval between readings in this process.
const INTERVAL: Duration = Duration::from_secs(1);

/// The number of recent lease events below the table.
const MAX_EVENTS: usize = 8;

/// Runs `gpus`: prints one table, or with `--watch` a table after every change.
pub(super) fn run(arguments: &GpusArguments) -> u8 {
    let output = Output {
        json: arguments.connection.json,
    };

    let result = if arguments.watch {
        watch(arguments)
    } else {
        last_reading(
            &arguments.host,
            &arguments.connection,
            arguments.gpus.as_deref(),
        )
        .map(|answer| output.data(&answer, |answer| table(answer, arguments)))
    };

    match result {
        Ok(()) => Reason::Fits.exit_code(),
        Err(problem) => output.problem(&problem),
    }
}

/// Returns the daemon's last reading, a reading of this process if no daemon runs, or the
/// `declared` devices.
fn last_reading(
    host: &HostArguments,
    connection: &ConnectionArguments,
    declared: Option<&str>,
) -> Result<GpusAnswer, Problem> {
    if let Some(answer) = without_daemon(host, declared)? {
        return Ok(answer);
    }

    match run_async(connection.client(AnswerEffort::InMemory).gpus())? {
        Err(error @ ClientError::Unreachable { .. }) => {
            warn_of_uncounted_leases(&connection.socket, &error);
            Ok(without_leases(in_process::snapshot(host)?))
        }
        answer => Ok(answer?),
    }
}

/// Returns a reading that begins now, of the daemon or of this process.
///
/// Fails if a daemon runs but rejects this user, because its leases would not be counted.
pub(super) fn read_now(
    host: &HostArguments,
    connection: &ConnectionArguments,
    declared: Option<&str>,
) -> Result<GpusAnswer, Problem> {
    if let Some(answer) = without_daemon(host, declared)? {
        return Ok(answer);
    }

    match run_async(connection.client(AnswerEffort::ReadOrRecord).fresh_gpus())? {
        Err(error) if error.daemon_is_absent() => {
            warn_of_uncounted_leases(&connection.socket, &error);
            Ok(without_leases(in_process::snapshot(host)?))
        }
        answer => Ok(answer?),
    }
}

/// Warns if an unreachable or stopped daemon may hold leases that this process cannot see.
fn warn_of_uncounted_leases(socket: &Path, error: &ClientError) {
    if !error.daemon_is_absent() {
        output::remark(&format!("warning: {error}: its leases are not counted"));
    } else if let Some(warning) = offline_leases::warning(socket, error) {
        output::remark(&format!("warning: {warning}"));
    }
}

/// Returns the answer that needs no daemon: declared devices, or this host's with `--local`.
fn without_daemon(
    host: &HostArguments,
    declared: Option<&str>,
) -> Result<Option<GpusAnswer>, Problem> {
    if let Some(spec) = declared {
        let declared = crate::devices::snapshot_file::resolve(spec, SystemTime::now())?;
        let leased_bytes = declared
            .leased
            .into_iter()
            .map(|(uuid, bytes)| (uuid, bytes.get()))
            .collect();

        return Ok(Some(GpusAnswer {
            leased_bytes,
            ..without_leases(declared.snapshot)
        }));
    }

    if host.local {
        return Ok(Some(without_leases(in_process::snapshot(host)?)));
    }

    Ok(None)
}

fn without_leases(snapshot: Snapshot) -> GpusAnswer {
    GpusAnswer {
        schema_version: SCHEMA_VERSION,
        snapshot,
        leased_bytes: BTreeMap::new(),
    }
}

fn table(answer: &GpusAnswer, arguments: &GpusArguments) -> String {
    let leased = answer
        .leased_bytes
        .iter()
        .map(|(uuid, bytes)| (uuid.clone(), Bytes::new(*bytes)))
        .collect();
    let mut table = text::gpus::gpus(&answer.snapshot, &leased);
    if arguments.topology {
        table.push('\n');
        table.push_str(&text::topology::topology(&answer.snapshot));
    }

    table
}

/// Follows the daemon's stream, or this process's own readings if no daemon runs.
fn watch(arguments: &GpusArguments) -> Result<(), Problem> {
    let mut screen = Screen::new(arguments);
    let is_terminal = screen.is_terminal;
    if let Some(spec) = &arguments.gpus {
        // Declared devices do not change, so they are shown once. A closed pipe is no failure.
        let reading = last_reading(&arguments.host, &arguments.connection, Some(spec))?;
        if is_terminal {
            output::text(&table(
                terminal::values(&reading).as_ref().unwrap_or(&reading),
                arguments,
            ));
        } else {
            let _closed_pipe = screen.show(Ok(&own_line(reading)));
        }
        return Ok(());
    }

    let follow = async {
        if !arguments.host.local {
            match arguments
                .connection
                .client(AnswerEffort::InMemory)
                .watch_gpus()
                .await
            {
                Ok(mut lines) => {
                    while let Some(line) = lines.next().await? {
                        if screen.show(line.as_ref()).is_err() {
                            break;
                        }
                    }
                    return Ok(());
                }
                Err(error @ ClientError::Unreachable { .. }) => {
                    warn_of_uncounted_leases(&arguments.connection.socket, &error);
                }
                Err(error) => return Err(error.into()),
            }
        }

        let mut readings = in_process::ReadingStream::start(&arguments.host, INTERVAL)?;
        loop {
            let reading = readings.next().await.map(without_leases).map(own_line);
            if screen.show(reading.as_ref()).is_err() {
                return Ok(());
            }
        }
    };

    // The terminal's own screen must come back before the process ends.
    let until_stopped = async {
        tokio::select! {
            result = follow => result,
            () = stop_signal(), if is_terminal => Ok(()),
        }
    };

    run_async(until_stopped)?
}

/// Returns when the user or the system asks this process to end.
async fn stop_signal() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };

    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

/// Returns the line of a reading of this process, which sees no lease events.
fn own_line(gpus: GpusAnswer) -> WatchLine {
    WatchLine {
        gpus,
        lease_events: Vec::new(),
        missed_lease_events: 0,
    }
}

/// The output of `--watch`.
struct Screen<'a> {
    arguments: &'a GpusArguments,
    is_terminal: bool,
    /// The switched terminal, from the first reading on.
    switched: Option<AlternateScreen>,
    /// The last lease events, as text.
    event_lines: Vec<String>,
}

impl<'a> Screen<'a> {
    fn new(arguments: &'a GpusArguments) -> Self {
        let is_terminal = std::io::stdout().is_terminal() && !arguments.connection.json;
        Self {
            arguments,
            is_terminal,
            switched: None,
            event_lines: Vec::new(),
        }
    }

    /// Redraws the screen in a terminal; prints one JSON object per line to a pipe.
    ///
    /// Fails if the pipe is closed.
    fn show(&mut self, line: Result<&WatchLine, &Problem>) -> std::io::Result<()> {
        if !self.is_terminal {
            return match line {
                Ok(line) => output::line(line),
                Err(problem) => output::line(problem),
            };
        }

        let text = match line {
            Ok(line) => {
                let shown = terminal::values(line);
                let line = shown.as_ref().unwrap_or(line);
                self.event_lines
                    .extend(line.lease_events.iter().map(text::event::dated_line));
                self.event_lines
                    .drain(..self.event_lines.len().saturating_sub(MAX_EVENTS));
                table(&line.gpus, self.arguments) + &self.event_lines.concat()
            }
            Err(problem) => text::problem::problem(problem),
        };

        let screen = match &mut self.switched {
            Some(screen) => screen,
            empty => empty.insert(AlternateScreen::enter()?),
        };
        screen.draw(&text)
    }
}

fn run_async<T>(call: impl Future<Output = T>) -> Result<T, Problem> {
    block_on(call).map_err(|error| runtime_problem(&error))
}
