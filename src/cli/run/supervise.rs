//! The process that stays: signals on, exit code back, lease renewed.

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
use crate::cli::output;

/// Signals that mean the command, not us.
const FORWARDED: [(SignalKind, Signal); 7] = [
    (SignalKind::terminate(), Signal::TERM),
    (SignalKind::interrupt(), Signal::INT),
    (SignalKind::quit(), Signal::QUIT),
    (SignalKind::hangup(), Signal::HUP),
    (SignalKind::window_change(), Signal::WINCH),
    (SignalKind::user_defined1(), Signal::USR1),
    (SignalKind::user_defined2(), Signal::USR2),
];
/// Signals that may be under way to the command.
const SIGNALS: usize = 64;

/// Starts the process that becomes the command, and ends as it ends.
pub(super) fn supervise(arguments: &RunArguments) -> Result<u8, Problem> {
    let internal = |what: &str, error: std::io::Error| {
        Problem::new(Reason::Internal, format!("{what}: {error}"))
    };

    let supervised = async {
        // Before the start: a signal in between would end us, and not the command.
        let mut signals = signals().map_err(|error| internal("signals cannot be taken", error))?;
        let ear = LeaseIdListener::open()
            .map_err(|error| internal("the lease's id cannot be taken over", error))?;
        let mut child = start(ear.name())
            .map_err(|error| internal("this program cannot start itself", error))?;
        let told = ear.listen(child.id().unwrap_or_default());
        let mut renewal = Renewal::new(arguments, child.id(), told);

        loop {
            tokio::select! {
                ended = child.wait() => {
                    return ended.map(code).map_err(|error| internal("the command is lost", error));
                }
                Some(signal) = signals.recv() => forward(&child, signal),
                () = renewal.run() => {}
            }
        }
    };

    block_on(supervised).map_err(|error| internal("no runtime", error))?
}

/// The same command line again, for the process that becomes the command and says its lease to
/// `ear`.
fn start(ear: &str) -> std::io::Result<Child> {
    let mut line = std::env::args_os().skip(1);
    let own = std::env::current_exe()?;
    tokio::process::Command::new(own)
        .args(line.next())
        .arg("--become")
        .arg(std::process::id().to_string())
        .args(["--tell", ear])
        .args(line)
        .spawn()
}

fn signals() -> std::io::Result<mpsc::Receiver<Signal>> {
    let (sender, receiver) = mpsc::channel(SIGNALS);
    for (kind, meant) in FORWARDED {
        let mut taken = signal(kind)?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while taken.recv().await.is_some() && sender.send(meant).await.is_ok() {}
        });
    }

    Ok(receiver)
}

fn forward(child: &Child, signal: Signal) {
    // The terminal's own signals reach all of the foreground, the command too: twice would mean
    // something else.
    if matches!(signal, Signal::INT | Signal::QUIT | Signal::WINCH) && in_foreground() {
        return;
    }
    // While it is not waited for, its pid is its own.
    let pid = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .and_then(Pid::from_raw);

    if let Some(pid) = pid
        && let Err(error) = kill_process(pid, signal)
    {
        output::remark(&format!(
            "signal {signal:?} could not be passed on: {error}"
        ));
    }
}

/// Whether this process is in its terminal's foreground (proc(5) stat: field 5 is the process
/// group, field 8 that of the terminal's foreground).
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

fn code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;

    // As shells do: 128 and the signal's number.
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| signal.saturating_add(128)));
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(u8::MAX)
}
