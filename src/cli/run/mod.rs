//! `run`: waits for memory, leases it, and runs a command on it.
//!
//! Two processes of this program take part. The supervisor forwards signals, renews the lease, and
//! exits with the command's exit code. Its child requests the lease, so that the child is the
//! holder, and then *becomes* the command. The lease therefore ends with the command, never before,
//! whatever happens to the supervisor. If the supervisor is killed, the command gets SIGTERM.

mod carried_options;
mod command;
mod draft;
mod flag_lookup;
mod flag_value;
mod handover;
mod lease_basis;
mod loaded_model;
mod renewal;
mod server;
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

use self::lease_basis::CommandStart;
use self::wrapper::Variables;
use super::arguments::{QuestionArguments, RunArguments};
use super::fits::ask;
use super::output::{self, Output};
use super::question::QuestionKind;
use super::reserve::{LeaseTerms, request_lease};
use super::text::answer::Detail;
use super::{exit, question, text};
use crate::leases::ADVISORY;

/// The exit code if the command was found but cannot be run, as in shells.
const CANNOT_RUN: u8 = 126;
/// The exit code if the command was not found, as in shells.
const NOT_FOUND: u8 = 127;
/// The exit code if the supervisor ended first, as after SIGTERM. No process reads it.
const ORPHANED: u8 = 143;

/// Runs `run` until the command ends.
///
/// Standard output is the command's own, unless the command never started.
pub(super) fn run(arguments: RunArguments) -> u8 {
    let output = Output {
        json: arguments.connection.json,
    };

    if let Some(supervisor) = arguments.supervisor {
        return become_command(supervisor, arguments, output);
    }

    supervise::supervise(&arguments).unwrap_or_else(|problem| output.problem(&problem))
}

/// Becomes the command. Returns an exit code only if the command did not start.
fn become_command(supervisor: i32, arguments: RunArguments, output: Output) -> u8 {
    // A killed supervisor cannot forward signals. The kernel then ends the command, so that no
    // orphaned server keeps GPU memory.
    if let Err(error) = set_parent_process_death_signal(Some(Signal::TERM)) {
        output::remark(&format!(
            "warning: the command will outlive a killed supervisor: {error}"
        ));
    }

    if getppid().is_none_or(|parent| parent.as_raw_nonzero().get() != supervisor) {
        return ORPHANED;
    }

    let RunArguments {
        model,
        named_model,
        mut options,
        wait,
        ttl,
        flags,
        lease: asked_basis,
        no_lease,
        lease_id_socket,
        host,
        connection,
        command,
        ..
    } = arguments;

    let Some(model) = model.or(named_model) else {
        let detail = "name the model: hf-mem-probe run MODEL -- CMD";
        return output.problem(&Problem::new(Reason::Usage, detail));
    };

    let mut question = question::question(&model, &options);
    let start = CommandStart {
        command: &command,
        flags,
        asked: asked_basis,
        is_leased: !no_lease,
    };

    let findings = match lease_basis::settle(&mut question, start, variables()) {
        Ok(findings) => findings,
        Err(problem) => return output.problem(&problem),
    };

    for note in &findings.notes {
        output::remark(note);
    }

    // A local model is read with these options.
    options.file.clone_from(&question.model.file);
    options.draft = question.draft.as_ref().map(|draft| draft.repo.clone());
    options.draft_file = question.draft.as_ref().and_then(|draft| draft.file.clone());

    let arguments = QuestionArguments { model, options };
    let answered = if no_lease {
        ask(QuestionKind::Fits, question, &arguments, &host, &connection)
            .map(|outcome| outcome.answer)
    } else {
        let terms = LeaseTerms {
            ttl: Some(ttl),
            wait,
            ..LeaseTerms::default()
        };
        request_lease(question, &arguments, terms, &connection)
    };

    let answer = match answered {
        Ok(answer) => answer,
        Err(problem) => return output.problem(&problem),
    };

    let code = exit::of_answer(&answer, false);
    if code != Reason::Fits.exit_code() {
        output.page(&answer, |answer, layout| {
            text::answer::answer(answer, Detail::Summary, layout)
        });
        if let Some(hint) = &findings.hint {
            output::remark(hint);
        }
        return code;
    }

    let mut prepared = match prepare_command(&answer, &command, flags, no_lease) {
        Ok(prepared) => prepared,
        Err(problem) => return output.problem(&problem),
    };

    // The command must not start before the supervisor can renew its lease.
    if let (Some(name), Some(lease)) = (lease_id_socket, lease_id(&answer))
        && let Err(error) = handover::send_lease_id(&name, &lease)
    {
        let detail = format!("cannot send the lease's id to the supervisor: {error}");
        return output.problem(&Problem::new(Reason::Internal, detail));
    }

    replace_process(&mut prepared)
}

/// Replaces this process with the command. Returns an exit code only on failure.
fn replace_process(prepared: &mut std::process::Command) -> u8 {
    let error = prepared.exec();

    output::failure(&format!(
        "error: cannot run {}: {error}\n",
        prepared.get_program().display()
    ));

    if error.kind() == std::io::ErrorKind::NotFound {
        NOT_FOUND
    } else {
        CANNOT_RUN
    }
}

/// Returns the command's environment variables that are valid UTF-8.
fn variables() -> Variables {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn lease_id(answer: &Answer) -> Option<String> {
    answer.lease.as_ref().map(|lease| lease.id.clone())
}

/// Prints the answer and its lease, and returns the command with its arguments and environment.
fn prepare_command(
    answer: &Answer,
    words: &[std::ffi::OsString],
    flags: bool,
    no_lease: bool,
) -> Result<std::process::Command, Problem> {
    let lease = lease_id(answer);
    let lease_remark = match &lease {
        Some(lease) => format!("lease {lease}. {ADVISORY}"),
        None if no_lease => "running without a lease".to_owned(),
        None => {
            return Err(Problem::new(
                Reason::Internal,
                "the daemon's answer has no lease",
            ));
        }
    };

    output::remark(&answer.message);
    output::remark(&lease_remark);

    let launch = answer
        .placement
        .as_ref()
        .and_then(|placement| placement.launch.as_ref());
    let line =
        command::insert_arguments(words, launch.map(|launch| launch.args.as_slice()), flags)?;
    let mut prepared = std::process::Command::new(&line.program);
    prepared.args(&line.arguments);

    if let Some(placement) = &answer.placement {
        // UUIDs do not depend on the driver's device order. The engine's own variables can
        // override these below.
        let devices: Vec<&str> = placement
            .devices
            .iter()
            .map(|device| device.uuid.as_str())
            .collect();
        prepared
            .env("CUDA_VISIBLE_DEVICES", devices.join(","))
            .env("CUDA_DEVICE_ORDER", "PCI_BUS_ID");
    }

    prepared.envs(launch.map(|launch| &launch.env).into_iter().flatten());
    if let Some(lease) = lease {
        prepared.env("HF_MEM_PROBE_LEASE", lease);
    }

    Ok(prepared)
}
