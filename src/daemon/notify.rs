//! What the service manager is told (sd_notify(3)).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

type Tell = dyn Fn(&str) + Send + Sync;

/// A line to the service manager. Under none, what is told goes nowhere.
#[derive(Clone)]
pub struct Notifier {
    send: Arc<Tell>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As the environment says: `NOTIFY_SOCKET`, `WATCHDOG_USEC`.
    pub fn from_environment() -> Self {
        let send = |state: &str| {
            if let Err(error) = sd_notify::notify(&[NotifyState::Custom(state)]) {
                warn!(%error, "cannot tell the service manager");
            }
        };

        Self {
            send: Arc::new(send),
            watchdog: sd_notify::watchdog_enabled(),
        }
    }

    /// To `send`, which gets whole messages of one or more `NAME=VALUE` lines.
    pub fn to(send: impl Fn(&str) + Send + Sync + 'static, watchdog: Option<Duration>) -> Self {
        Self {
            send: Arc::new(send),
            watchdog,
        }
    }

    /// How long the service manager waits for a sign of life, where it does.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The socket answers.
    pub fn ready(&self, status: &str) {
        (self.send)(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// The configuration is being read again. `Type=notify-reload` needs the time in the same
    /// message.
    pub fn reloading(&self) {
        let now = NotifyState::monotonic_usec_now()
            .map(|now| format!("\n{now}"))
            .unwrap_or_default();
        (self.send)(&format!("RELOADING=1{now}"));
    }

    /// The end has begun.
    pub fn stopping(&self) {
        (self.send)("STOPPING=1\nSTATUS=answering what is in flight");
    }

    /// A sign of life.
    pub fn alive(&self) {
        (self.send)("WATCHDOG=1");
    }
}

/// A line break in a status would begin another assignment.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifier")
            .field("watchdog", &self.watchdog)
            .finish_non_exhaustive()
    }
}
