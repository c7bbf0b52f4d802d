//! Flags of `lease`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::connection::ConnectionArguments;
use super::values::parse_duration;

/// The help heading of flags about a lease, in other commands.
pub(super) const LEASE_HEADING: &str = "Lease";

/// Flags of `lease`.
#[derive(Args, Debug)]
pub struct LeaseArguments {
    /// The action on leases.
    #[command(subcommand)]
    pub action: LeaseAction,
}

/// An action on leases.
#[derive(Debug, Subcommand)]
pub enum LeaseAction {
    /// List all leases and the requests in the queue.
    List {
        /// Daemon and output.
        #[command(flatten)]
        connection: ConnectionArguments,
    },
    /// Renew a lease, so that it lasts longer.
    ///
    /// You cannot renew a lease that has ended.
    Renew {
        /// Id of the lease, as `lease list` prints it.
        id: String,
        /// Time from now until the lease ends, such as 2min [default: the lease's own time to
        /// live].
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        ttl: Option<Duration>,
        /// Daemon and output.
        #[command(flatten)]
        connection: ConnectionArguments,
    },
    /// Release a lease.
    Release {
        /// Id of the lease, as `lease list` prints it.
        id: String,
        /// Daemon and output.
        #[command(flatten)]
        connection: ConnectionArguments,
    },
}
