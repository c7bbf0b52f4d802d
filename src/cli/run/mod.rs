//! `run`: waits for room, holds it, and runs a command there.
//!
//! Two processes of this program take part. The first stays: it passes signals on, renews the lease
//! and ends as the command ended. The second asks for the lease, so that it holds it itself, and
//! then *becomes* the command: whatever happens to the first, the lease ends with the command and
//! never before. Should the first be killed, the command gets SIGTERM.

mod carried_options;
mod command;
mod flag_lookup;
mod flag_value;
mod handover;
mod lease_basis;
mod loaded_model;
mod renewal;
mod server_flags;
mod server_line;
mod server_variables;
#[expect(clippy::disallowed_methods, reason = "one file of /proc")]
mod supervise;
mod wrapper;

use std::os::unix::process::CommandExt as _;

use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::{Answer, Problem};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use self::lease_basis::Start;
use self::wrapper::Variables;
use super::arguments::{QuestionArguments, RunArguments};
use super::fits::{Asking, ask};
use super::output::{self, Output};
use super::reserve::{Terms, lease};
use super::{exit, question, text};
use crate::leases::ADVISORY;

/// The command was found and could not be run; and was not found: what shells exit with.
const NOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;
/// The supervisor ended before it could be told of: nobody sees this code. As if by the signal that
/// it then sends.
const ORPHANED: u8 = 143;

/// Runs the command to its end. What is printed on standard output is the command's own, unless it
/// never started.
pub(super) fn run(arguments: RunArguments) -> u8 {
    let output = Output {
        json: arguments.connection.json,
    };

    if let Some(supervisor) = arguments.becomes_command {
        return become_command(supervisor, arguments, output);
    }

    supervise::supervise(&arguments).unwrap_or_else(|problem| output.problem(&problem))
}

/// Comes back only where the command did not start.
fn become_command(supervisor: i32, arguments: RunArguments, output: Output) -> u8 {
    // Who is killed can pass nothing on: then the kernel ends the command, so that nobody's server
    // stays on the card.
    if let Err(error) = set_parent_process_death_signal(Some(Signal::TERM)) {
        output::remark(&format!(
            "the command would outlive its supervisor: {error}"
        ));
    }

    if getppid().is_none_or(|parent| parent.as_raw_nonzero().get() != supervisor) {
        return ORPHANED;
    }

    let RunArguments {
        model,
        mut options,
        wait,
        ttl,
        flags,
        lease: asked_basis,
        no_lease,
        tell,
        here,
        connection,
        command,
        ..
    } = arguments;

    let mut asked = question::question(&model, &options);
    let start = Start {
        command: &command,
        flags,
        asked: asked_basis,
        leased: !no_lease,
    };

    let basis = match lease_basis::settle(&mut asked, start, variables()) {
        Ok(basis) => basis,
        Err(problem) => return output.problem(&problem),
    };

    for note in &basis.notes {
        output::remark(note);
    }
    // A model on this host is read by these.
    options.file.clone_from(&asked.model.file);

    let arguments = QuestionArguments { model, options };
    let answered = if no_lease {
        ask(Asking::Fits, asked, &arguments, &here, &connection).map(|asked| asked.answer)
    } else {
        lease(
            asked,
            &arguments,
            Terms {
                ttl: Some(ttl),
                wait,
                ..Terms::default()
            },
            &connection,
        )
    };

    let answer = match answered {
        Ok(answer) => answer,
        Err(problem) => return output.problem(&problem),
    };

    let code = exit::of_answer(&answer, false);
    if code != Reason::Fits.exit_code() {
        output.data(&answer, text::answer::answer);
        if let Some(hint) = &basis.hint {
            output::remark(hint);
        }
        return code;
    }

    let mut start = match prepared(&answer, &command, flags, no_lease) {
        Ok(start) => start,
        Err(problem) => return output.problem(&problem),
    };

    // Before anything of it runs: a lease that nobody renews would end under the command.
    if let (Some(name), Some(lease)) = (tell, lease_id(&answer))
        && let Err(error) = handover::tell(&name, &lease)
    {
        let detail = format!("the supervisor cannot be told of the lease: {error}");
        return output.problem(&Problem::new(Reason::Internal, detail));
    }
    // Only a failure comes back.
    let error = start.exec();

    output::failure(&format!(
        "error: {} cannot be run: {error}\n",
        start.get_program().display()
    ));

    if error.kind() == std::io::ErrorKind::NotFound {
        NOT_FOUND
    } else {
        NOT_RUN
    }
}

/// The variables that the command will find, those that are text.
fn variables() -> Variables {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn lease_id(answer: &Answer) -> Option<String> {
    answer.lease.as_ref().map(|lease| lease.id.clone())
}

fn prepared(
    answer: &Answer,
    words: &[std::ffi::OsString],
    flags: bool,
    no_lease: bool,
) -> Result<std::process::Command, Problem> {
    let lease = lease_id(answer);
    let said = |answer: &str, of_lease: &str| {
        output::remark(answer);
        output::remark(of_lease);
    };

    match &lease {
        Some(lease) => said(&answer.message, &format!("lease {lease}. {ADVISORY}")),
        None if no_lease => said(&answer.message, "no lease is held"),
        None => {
            return Err(Problem::new(
                Reason::Internal,
                "the daemon answered yes and gave no lease",
            ));
        }
    }

    let launch = answer
        .placement
        .as_ref()
        .and_then(|placement| placement.launch.as_ref());
    let line = command::words(words, launch.map(|launch| launch.args.as_slice()), flags)?;
    let mut start = std::process::Command::new(&line.program);
    start.args(&line.arguments);

    if let Some(placement) = &answer.placement {
        // By UUID, whatever order the driver counts in; the engine's own environment may say more.
        let devices: Vec<&str> = placement
            .devices
            .iter()
            .map(|device| device.uuid.as_str())
            .collect();
        start
            .env("CUDA_VISIBLE_DEVICES", devices.join(","))
            .env("CUDA_DEVICE_ORDER", "PCI_BUS_ID");
    }

    start.envs(launch.map(|launch| &launch.env).into_iter().flatten());
    if let Some(lease) = lease {
        start.env("HF_MEM_PROBE_LEASE", lease);
    }

    Ok(start)
}
