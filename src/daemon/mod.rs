//! The daemon: from a socket and a [`Service`](crate::server::service::Service) to a process that an operator can trust.
//!
//! The order of a boot is log, configuration, sources, socket, READY; the order of an end is
//! STOPPING, drain with a deadline, and a line that says which way it ended. READY waits for no GPU
//! and no Hub: the daemon answers first and says in its health what is missing.

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
