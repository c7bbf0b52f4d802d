//! Messages to the service manager (sd_notify(3)).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

type SendState = dyn Fn(&str) + Send + Sync;

/// A connection to the service manager. Without one, messages are dropped.
#[derive(Clone)]
pub struct Notifier {
    send: Arc<SendState>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// Connects as the environment says: `NOTIFY_SOCKET`, `WATCHDOG_USEC`.
    pub fn from_environment() -> Self {
        let notify_manager = |state: &str| {
            if let Err(error) = sd_notify::notify(&[NotifyState::Custom(state)]) {
                warn!(%error, "cannot notify the service manager");
            }
        };

        Self {
            send: Arc::new(notify_manager),
            watchdog: sd_notify::watchdog_enabled(),
        }
    }

    /// Sends whole messages, one or more `NAME=VALUE` lines, to `send`.
    pub fn to(send: impl Fn(&str) + Send + Sync + 'static, watchdog: Option<Duration>) -> Self {
        Self {
            send: Arc::new(send),
            watchdog,
        }
    }

    /// The watchdog's timeout, if the service manager has one.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Reports that the socket answers.
    pub fn ready(&self, status: &str) {
        (self.send)(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// Reports that the configuration is being read again. `Type=notify-reload` needs the time in
    /// the same message.
    pub fn reloading(&self) {
        let now = NotifyState::monotonic_usec_now()
            .map(|now| format!("\n{now}"))
            .unwrap_or_default();
        (self.send)(&format!("RELOADING=1{now}"));
    }

    /// Reports that the daemon is stopping.
    pub fn stopping(&self) {
        (self.send)("STOPPING=1\nSTATUS=answering requests in flight");
    }

    /// Resets the watchdog.
    pub fn alive(&self) {
        (self.send)("WATCHDOG=1");
    }
}

/// Removes line breaks: in a status, one would begin another assignment.
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
