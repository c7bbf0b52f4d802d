//! The supervisor: forwards signals, renews the lease, returns the command's exit code.

use std::ffi::OsString;
use std::process::ExitStatus;

use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::handover::LeaseIdListener;
use super::renewal::Renewal;
use crate::api::client::block_on;
use crate::cli::arguments::RunArguments;
use crate::cli::output::{self, runtime_problem};

/// The signals to forward to the command.
const FORWARDED: [(SignalKind, Signal); 7] = [
    (SignalKind::terminate(), Signal::TERM),
    (SignalKind::interrupt(), Signal::INT),
    (SignalKind::quit(), Signal::QUIT),
    (SignalKind::hangup(), Signal::HUP),
    (SignalKind::window_change(), Signal::WINCH),
    (SignalKind::user_defined1(), Signal::USR1),
    (SignalKind::user_defined2(), Signal::USR2),
];
/// The most signals that can wait for forwarding.
const MAX_PENDING_SIGNALS: usize = 64;

/// Starts the process that becomes the command, and returns its exit code.
pub(super) fn supervise(arguments: &RunArguments) -> Result<u8, Problem> {
    let supervised = async {
        // Handlers come first: a signal before them would end this process and not the command.
        let mut signals =
            receive_signals().map_err(|error| internal("cannot handle signals", &error))?;
        let listener = LeaseIdListener::open()
            .map_err(|error| internal("cannot open the socket for the lease's id", &error))?;
        let mut child = start(listener.name())
            .map_err(|error| internal("this program cannot start itself", &error))?;
        let lease_ids = listener.listen(child.id().unwrap_or_default());
        let mut renewal = Renewal::new(arguments, child.id(), lease_ids);

        loop {
            tokio::select! {
                ended = child.wait() => {
                    return ended
                        .map(exit_code)
                        .map_err(|error| internal("cannot wait for the command", &error));
                }
                Some(signal) = signals.recv() => forward(&child, signal),
                () = renewal.run() => {}
            }
        }
    };

    block_on(supervised).map_err(|error| runtime_problem(&error))?
}

fn internal(what: &str, error: &std::io::Error) -> Problem {
    Problem::new(Reason::Internal, format!("{what}: {error}"))
}

/// Starts this program again with the same command line, as the process that becomes the command.
///
/// It sends the id of its lease to the socket `lease_id_socket`.
fn start(lease_id_socket: &str) -> std::io::Result<Child> {
    // Flags of the whole program, such as --color, come before the subcommand.
    let line: Vec<OsString> = std::env::args_os().skip(1).collect();
    let subcommand = line.iter().position(|word| word == "run").unwrap_or(0);
    let (before, after) = line.split_at((subcommand + 1).min(line.len()));

    let own = std::env::current_exe()?;
    tokio::process::Command::new(own)
        .args(before)
        .arg("--become")
        .arg(std::process::id().to_string())
        .args(["--tell", lease_id_socket])
        .args(after)
        .spawn()
}

fn receive_signals() -> std::io::Result<mpsc::Receiver<Signal>> {
    let (sender, receiver) = mpsc::channel(MAX_PENDING_SIGNALS);
    for (kind, forwarded) in FORWARDED {
        let mut stream = signal(kind)?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() && sender.send(forwarded).await.is_ok() {}
        });
    }

    Ok(receiver)
}

fn forward(child: &Child, signal: Signal) {
    // The terminal itself sends these to its whole foreground group, so the command already got
    // them. A second one could have another meaning.
    if matches!(signal, Signal::INT | Signal::QUIT | Signal::WINCH) && in_foreground() {
        return;
    }

    // The pid cannot be reused before `wait` returns.
    let pid = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .and_then(Pid::from_raw);

    if let Some(pid) = pid
        && let Err(error) = kill_process(pid, signal)
    {
        output::remark(&format!(
            "warning: cannot forward signal {signal:?}: {error}"
        ));
    }
}

/// Whether this process is in its terminal's foreground.
///
/// In `/proc/self/stat` (proc(5)), field 5 is the process group and field 8 is the terminal's
/// foreground process group.
fn in_foreground() -> bool {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let mut fields = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_ascii_whitespace())
        .into_iter()
        .flatten()
        .skip(2);

    let group = fields.next();
    group.is_some() && group == fields.nth(2)
}

fn exit_code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;

    // As shells do: 128 plus the signal number.
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| signal.saturating_add(128)));
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(u8::MAX)
}
