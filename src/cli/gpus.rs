//! `gpus`: what is free, and who holds it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::arguments::{ConnectionArguments, GpusArguments};
use super::output::{self, Output};
use super::{in_process, text};
use crate::api::client::{Client, ClientError, block_on};
use crate::api::problem::Reason;
use crate::api::status::GpusAnswer;
use crate::api::{Problem, SCHEMA_VERSION};
use crate::bytes::Bytes;

/// How many of the last events of leases are shown below the table.
const LAST_EVENTS: usize = 8;

/// One table, or with `--watch` one after another for as long as somebody reads.
pub(super) fn run(arguments: &GpusArguments) -> u8 {
    let output = Output { json: arguments.connection.json };
    let done = if arguments.watch {
        watch(arguments)
    } else {
        once(&arguments.connection, arguments.gpus.as_deref()).map(|answer| show(&answer, arguments))
    };
    match done {
        Ok(()) => Reason::Fits.exit_code(),
        Err(problem) => output.problem(&problem),
    }
}

fn show(answer: &GpusAnswer, arguments: &GpusArguments) {
    Output { json: arguments.connection.json }.data(answer, |answer| {
        let leased = answer.leased_bytes.iter().map(|(uuid, bytes)| (uuid.clone(), Bytes::new(*bytes))).collect();
        let mut table = text::gpus::gpus(&answer.snapshot, &leased);
        if arguments.topology {
            table.push('\n');
            table.push_str(&text::gpus::topology(&answer.snapshot));
        }
        table
    });
}

/// The devices as the daemon sees them, or this process where there is no daemon; or `declared` ones.
pub(super) fn once(connection: &ConnectionArguments, declared: Option<&str>) -> Result<GpusAnswer, Problem> {
    if let (false, None) = (connection.local, declared) {
        match runtime(Client::new(&connection.socket).gpus())? {
            Ok(answer) => return Ok(answer),
            Err(ClientError::Unreachable { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let snapshot = match declared {
        Some(spec) => crate::devices::declared::resolve(spec, SystemTime::now())?,
        None => in_process::snapshot(connection)?,
    };
    Ok(GpusAnswer { schema_version: SCHEMA_VERSION, snapshot, leased_bytes: BTreeMap::new() })
}

/// Follows the daemon's stream: a fresh screen each time in a terminal, one JSON object a line when piped.
fn watch(arguments: &GpusArguments) -> Result<(), Problem> {
    use std::io::IsTerminal as _;
    let terminal = std::io::stdout().is_terminal() && !arguments.connection.json;
    let follow = async {
        let mut happened = Vec::new();
        let mut lines = Client::new(&arguments.connection.socket).watch_gpus().await?;
        while let Some(line) = lines.next().await? {
            let line = line?;
            if terminal {
                output::text("\x1b[2J\x1b[H");
                show(&line.gpus, arguments);
                happened.extend(line.lease_events.iter().map(text::event::dated));
                happened.drain(..happened.len().saturating_sub(LAST_EVENTS));
                output::text(&happened.concat());
            } else {
                let line = serde_json::to_string(&line).unwrap_or_else(|_| "{}".to_owned());
                output::text(&(line + "\n"));
            }
        }
        Ok(())
    };
    runtime(follow)?
}

fn runtime<T>(call: impl Future<Output = T>) -> Result<T, Problem> {
    block_on(call).map_err(|error| Problem::new(Reason::Internal, format!("no runtime: {error}")))
}
