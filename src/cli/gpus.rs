//! `gpus`: what is free, and who holds it.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::Snapshot;
use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::{Problem, SCHEMA_VERSION};

use super::arguments::{ConnectionArguments, GpusArguments, HereArguments};
use super::connection::AnswerEffort;
use super::output::{self, Output};
use super::{in_process, offline_leases, terminal, text};
use crate::api::client::{ClientError, block_on};
use crate::api::status::{GpusAnswer, WatchLine};

/// Time between two readings of this process's own.
const INTERVAL: Duration = Duration::from_secs(1);

/// How many of the last events of leases are shown below the table.
const LAST_EVENTS: usize = 8;

/// One table, or with `--watch` one after another for as long as somebody reads.
pub(super) fn run(arguments: &GpusArguments) -> u8 {
    let output = Output {
        json: arguments.connection.json,
    };

    let done = if arguments.watch {
        watch(arguments)
    } else {
        once(
            &arguments.here,
            &arguments.connection,
            arguments.gpus.as_deref(),
        )
        .map(|answer| output.data(&answer, |answer| table(answer, arguments)))
    };

    match done {
        Ok(()) => Reason::Fits.exit_code(),
        Err(problem) => output.problem(&problem),
    }
}

/// The devices as the daemon last saw them, or this process where there is no daemon; or `declared`
/// ones.
fn once(
    own: &HereArguments,
    connection: &ConnectionArguments,
    declared: Option<&str>,
) -> Result<GpusAnswer, Problem> {
    if let Some(answer) = here(own, declared)? {
        return Ok(answer);
    }

    match runtime(connection.client(AnswerEffort::AtHand).gpus())? {
        Err(error @ ClientError::Unreachable { .. }) => {
            remark_on(&connection.socket, &error);
            Ok(alone(in_process::snapshot(own)?))
        }
        answer => Ok(answer?),
    }
}

/// The same as they are now: the daemon reads them anew. For figures that are relied on: a daemon
/// that is there and may not be asked, whose leases would be missed, is a failure.
pub(super) fn now(
    own: &HereArguments,
    connection: &ConnectionArguments,
    declared: Option<&str>,
) -> Result<GpusAnswer, Problem> {
    if let Some(answer) = here(own, declared)? {
        return Ok(answer);
    }

    match runtime(connection.client(AnswerEffort::ReadOrRecord).fresh_gpus())? {
        Err(error) if error.daemon_is_absent() => {
            remark_on(&connection.socket, &error);
            Ok(alone(in_process::snapshot(own)?))
        }
        answer => Ok(answer?),
    }
}

/// A daemon that is there and cannot be asked, or one that is stopped, may hold leases, of which
/// nothing is known here.
fn remark_on(socket: &Path, error: &ClientError) {
    if !error.daemon_is_absent() {
        output::remark(&format!(
            "{error}: what its leases promise to others is not counted"
        ));
    } else if let Some(unseen) = offline_leases::leases(socket, error) {
        output::remark(&format!("warning: {unseen}"));
    }
}

/// What can be said without a daemon: declared devices, or this host's where the daemon is not to
/// be asked.
fn here(own: &HereArguments, declared: Option<&str>) -> Result<Option<GpusAnswer>, Problem> {
    if let Some(spec) = declared {
        let declared = crate::devices::snapshot_file::resolve(spec, SystemTime::now())?;
        let leased_bytes = declared
            .leased
            .into_iter()
            .map(|(uuid, bytes)| (uuid, bytes.get()))
            .collect();

        return Ok(Some(GpusAnswer {
            leased_bytes,
            ..alone(declared.snapshot)
        }));
    }

    if own.local {
        return Ok(Some(alone(in_process::snapshot(own)?)));
    }

    Ok(None)
}

fn alone(snapshot: Snapshot) -> GpusAnswer {
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

/// Follows the daemon's stream, or where there is none this process's own readings.
fn watch(arguments: &GpusArguments) -> Result<(), Problem> {
    let mut screen = Screen::new(arguments);
    if let Some(spec) = &arguments.gpus {
        // Declared devices do not change: they are shown once. Nobody reading is no failure.
        let _read = screen.show(Ok(&line(once(
            &arguments.here,
            &arguments.connection,
            Some(spec),
        )?)));
        return Ok(());
    }

    let follow = async {
        if !arguments.here.local {
            match arguments
                .connection
                .client(AnswerEffort::AtHand)
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
                    remark_on(&arguments.connection.socket, &error);
                }
                Err(error) => return Err(error.into()),
            }
        }

        let mut readings = in_process::Readings::start(&arguments.here, INTERVAL)?;
        while screen
            .show(readings.next().await.map(alone).map(line).as_ref())
            .is_ok()
        {}
        Ok(())
    };

    runtime(follow)?
}

/// A reading of this process's own, which hears of no leases.
fn line(gpus: GpusAnswer) -> WatchLine {
    WatchLine {
        gpus,
        lease_events: Vec::new(),
        missed_lease_events: 0,
    }
}

/// What is shown, one reading after another.
struct Screen<'a> {
    arguments: &'a GpusArguments,
    terminal: bool,
    /// The last events of leases, as text.
    happened: Vec<String>,
}

impl<'a> Screen<'a> {
    fn new(arguments: &'a GpusArguments) -> Self {
        let terminal = std::io::stdout().is_terminal() && !arguments.connection.json;
        Self {
            arguments,
            terminal,
            happened: Vec::new(),
        }
    }

    /// A fresh screen each time in a terminal, one JSON object a line when piped. Fails when nobody
    /// reads any more.
    fn show(&mut self, line: Result<&WatchLine, &Problem>) -> std::io::Result<()> {
        if !self.terminal {
            return match line {
                Ok(line) => output::line(line),
                Err(problem) => output::line(problem),
            };
        }

        let text = match line {
            Ok(line) => {
                let shown = terminal::values(line);
                let line = shown.as_ref().unwrap_or(line);
                self.happened
                    .extend(line.lease_events.iter().map(text::event::dated));
                self.happened
                    .drain(..self.happened.len().saturating_sub(LAST_EVENTS));
                table(&line.gpus, self.arguments) + &self.happened.concat()
            }
            Err(problem) => text::problem::problem(problem),
        };

        output::screen(&text)
    }
}

fn runtime<T>(call: impl Future<Output = T>) -> Result<T, Problem> {
    block_on(call).map_err(|error| Problem::new(Reason::Internal, format!("no runtime: {error}")))
}
