//! Leases: memory that is reserved for a model until the model is loaded. Until then the memory
//! still looks free, so an answer "it fits" would not last.
//!
//! For each device, `available = free now − Σ max(0, granted − already visible) − margin`. One
//! owner decides and records each lease in one step. The modules, from the inside out:
//!
//! - [`clock`]: the boot clock, which counts, and the wall clock, which is only printed
//! - [`lease`]: a lease and its states; [`holder`]: who holds it, so that a reused pid inherits
//!   nothing
//! - [`attribution`]: which memory on a device belongs to which lease; no byte counts for two
//!   leases
//! - [`ledger`]: the decisions, a value without clock or disk; [`quota`]: how much one user can
//!   lease
//! - [`queue`]: the waiting requests and their order; [`event`]: events and their counts
//! - [`store`]: the ledger on disk; [`header`]: its first line; [`unreadable_ledger`]: leases on
//!   disk
//!   that cannot be read
//! - [`journal`]: the history of leases and memory, to read after an out-of-memory; [`account`]:
//!   the
//!   state at one time; [`memory_watch`] and [`observed`]: what the journal records of readings
//! - [`durable_ledger`]: the ledger and its storage as one, so that a lease is persisted before it
//!   is
//!   acknowledged
//! - [`broker`]: the thread that owns the ledger
//! - [`view`]: a lease in the API
//!
//! A lease is advisory: it binds only clients that ask the daemon.

pub mod account;
pub mod attribution;
pub mod broker;
pub mod clock;
pub mod durable_ledger;
pub mod event;
pub mod header;
pub mod holder;
pub mod journal;
pub mod lease;
pub mod ledger;
pub mod memory_watch;
pub mod observed;
pub mod queue;
pub mod quota;
pub mod store;
pub mod unreadable_ledger;
pub mod view;

#[cfg(test)]
pub(crate) mod testing;

/// The note in `--help`, the README and every answer with a lease.
pub const ADVISORY: &str = "A lease is advisory: it is honored by everyone who asks here, and \
    cannot stop a process that does not.";
