//! The daemon: from a socket and a [`Program`] to a process that an operator can trust.
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

use std::future::Future;

use hf_mem_core::report::Problem;

use crate::config::Config;
use crate::server::service::Service;

pub use boot::{DEFAULT_CONFIG_FILE, Options, Parts, boot};
pub use notify::Notifier;
pub use run::{Daemon, Ended, RunError, run};
pub use signals::Signal;
pub use socket::{Listening, SocketError};
pub use socket_folder::FolderRisk;

/// A [`Service`] that can be looked after: what the process needs of it beside answers.
pub trait Program: Service {
    /// Comes back when the sampler's thread and the ledger's owner both answer; or says which one
    /// is stuck. A reading that fails is no reason to be killed, a thread that hangs is: it must
    /// end with an error only for the latter.
    fn liveness(&self) -> impl Future<Output = Result<(), String>> + Send;

    /// Takes over a configuration that was read anew. Comes back with the keys that changed but
    /// need a restart.
    fn reload(&self, config: Config) -> impl Future<Output = Result<Vec<String>, Problem>> + Send;

    /// Writes down what must survive. Called once, after the last request was answered or cut.
    fn stop(&self) -> impl Future<Output = ()> + Send;
}
