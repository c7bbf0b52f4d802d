//! The daemon's signals as values, so that tests can send them without a process.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// A request to the daemon's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT, with its name: answer the requests in flight and stop. A second one stops
    /// at once.
    Stop(&'static str),
    /// SIGHUP: read the configuration again.
    Reload,
}

/// Returns the process's signals. From this call on they no longer end the process by themselves.
pub fn of_process() -> io::Result<mpsc::Receiver<Signal>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let (sender, receiver) = mpsc::channel(8);

    tokio::spawn(async move {
        loop {
            let signal = tokio::select! {
                Some(()) = terminate.recv() => Signal::Stop("SIGTERM"),
                Some(()) = interrupt.recv() => Signal::Stop("SIGINT"),
                Some(()) = hang_up.recv() => Signal::Reload,
                else => return,
            };

            if sender.send(signal).await.is_err() {
                return;
            }
        }
    });

    Ok(receiver)
}
