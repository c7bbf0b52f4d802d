//! The signals that steer the daemon, as values, so that tests can send them without a process.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// What someone outside wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT, by its name: answer what is in flight and end. A second one ends at once.
    Stop(&'static str),
    /// SIGHUP: read the configuration again.
    Reload,
}

/// The process's signals. From here on they no longer end it by themselves.
pub fn of_process() -> io::Result<mpsc::Receiver<Signal>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let (sender, receiver) = mpsc::channel(8);

    tokio::spawn(async move {
        loop {
            let wanted = tokio::select! {
                Some(()) = terminate.recv() => Signal::Stop("SIGTERM"),
                Some(()) = interrupt.recv() => Signal::Stop("SIGINT"),
                Some(()) = hang_up.recv() => Signal::Reload,
                else => return,
            };

            if sender.send(wanted).await.is_err() {
                return;
            }
        }
    });

    Ok(receiver)
}
