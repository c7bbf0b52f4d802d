//! `gpus`: what is free, and who holds it.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::{Duration, SystemTime};

use super::arguments::GpusArguments;
use super::output::{self, Output};
use super::{in_process, text};
use crate::api::client::{Client, ClientError, block_on};
use crate::api::problem::Reason;
use crate::api::status::GpusAnswer;
use crate::api::{Problem, SCHEMA_VERSION};
use crate::bytes::Bytes;
use crate::devices::{Snapshot, declared};

/// Time between two readings of this process's own.
const INTERVAL: Duration = Duration::from_secs(1);

/// One table, or with `--watch` one after another for as long as somebody reads.
pub(super) fn run(arguments: &GpusArguments) -> u8 {
    let output = Output { json: arguments.connection.json };
    let done = if arguments.watch { watch(arguments) } else { once(arguments) };
    match done {
        Ok(()) => Reason::Fits.exit_code(),
        Err(problem) => output.problem(&problem),
    }
}

fn once(arguments: &GpusArguments) -> Result<(), Problem> {
    let answer = match here(arguments)? {
        Some(answer) => answer,
        None => match runtime(Client::new(&arguments.connection.socket).gpus())? {
            Ok(answer) => answer,
            Err(ClientError::Unreachable { .. }) => alone(in_process::snapshot(&arguments.connection)?),
            Err(error) => return Err(error.into()),
        },
    };
    Output { json: arguments.connection.json }.data(&answer, |answer| table(answer, arguments));
    Ok(())
}

/// What can be said without a daemon: declared devices, or this host's where the daemon is not to be asked.
fn here(arguments: &GpusArguments) -> Result<Option<GpusAnswer>, Problem> {
    if let Some(spec) = &arguments.gpus {
        let declared = declared::resolve(spec, SystemTime::now())?;
        let leased_bytes = declared.leased.into_iter().map(|(uuid, bytes)| (uuid, bytes.get())).collect();
        return Ok(Some(GpusAnswer { leased_bytes, ..alone(declared.snapshot) }));
    }
    if arguments.connection.local {
        return Ok(Some(alone(in_process::snapshot(&arguments.connection)?)));
    }
    Ok(None)
}

fn alone(snapshot: Snapshot) -> GpusAnswer {
    GpusAnswer { schema_version: SCHEMA_VERSION, snapshot, leased_bytes: BTreeMap::new() }
}

fn table(answer: &GpusAnswer, arguments: &GpusArguments) -> String {
    let leased = answer.leased_bytes.iter().map(|(uuid, bytes)| (uuid.clone(), Bytes::new(*bytes))).collect();
    let mut table = text::gpus::gpus(&answer.snapshot, &leased);
    if arguments.topology {
        table.push('\n');
        table.push_str(&text::topology::topology(&answer.snapshot));
    }
    table
}

/// Follows the daemon's stream, or where there is none this process's own readings.
fn watch(arguments: &GpusArguments) -> Result<(), Problem> {
    if arguments.gpus.is_some() {
        // Declared devices do not change: they are shown once.
        here(arguments)?.iter().for_each(|answer| drop(show(Ok(answer), arguments)));
        return Ok(());
    }
    let follow = async {
        if !arguments.connection.local {
            match Client::new(&arguments.connection.socket).watch_gpus().await {
                Ok(mut lines) => {
                    while let Some(line) = lines.next().await? {
                        if show(line.as_ref(), arguments).is_err() {
                            break;
                        }
                    }
                    return Ok(());
                }
                Err(ClientError::Unreachable { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut readings = in_process::Readings::start(&arguments.connection, INTERVAL)?;
        while show(readings.next().await.map(alone).as_ref(), arguments).is_ok() {}
        Ok(())
    };
    runtime(follow)?
}

/// A fresh screen each time in a terminal, one JSON object a line when piped. Fails when nobody reads any more.
fn show(answer: Result<&GpusAnswer, &Problem>, arguments: &GpusArguments) -> std::io::Result<()> {
    let terminal = std::io::stdout().is_terminal() && !arguments.connection.json;
    let text = match answer {
        Ok(answer) if terminal => table(answer, arguments),
        Err(problem) if terminal => text::problem::problem(problem),
        Ok(answer) => serde_json::to_string(answer).unwrap_or_else(|_| "{}".to_owned()),
        Err(problem) => serde_json::to_string(problem).unwrap_or_else(|_| "{}".to_owned()),
    };
    // In a terminal line by line over the last screen, so that nothing flickers.
    output::line(&if terminal { format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")) } else { text + "\n" })
}

fn runtime<T>(call: impl Future<Output = T>) -> Result<T, Problem> {
    block_on(call).map_err(|error| Problem::new(Reason::Internal, format!("no runtime: {error}")))
}
