//! The daemon's process around a [`Service`](crate::server::service::Service).
//!
//! It starts in this order: configuration, handed-over socket, log, service, own socket, READY. It
//! stops in this order: STOPPING, drain with a deadline, a log line that says how it ended. READY
//! waits for no GPU and no Hub: the daemon answers first, and its health says what is missing.

mod boot;
pub mod log;
pub mod notify;
mod run;
pub mod signals;
#[expect(
    clippy::disallowed_methods,
    reason = "its own socket, before READY and after the last answer"
)]
pub mod socket;
#[expect(
    clippy::disallowed_methods,
    reason = "the folders of its own socket, before READY"
)]
mod socket_folder;
mod watchdog;

pub use boot::{DEFAULT_CONFIG_FILE, Options, Parts, boot};
pub use notify::Notifier;
pub use run::{Daemon, Ended, RunError, run};
pub use signals::Signal;
pub use socket::{Listening, SocketError};
pub use socket_folder::FolderRisk;
