//! Who has been promised what: between "it fits" and the model being loaded the memory still looks
//! free, so the answer itself can be held.
//!
//! `available = free now − Σ max(0, granted − already visible) − margin`, for each device, decided
//! and recorded in one step by one owner. The pieces, from the inside out:
//!
//! - [`clock`]: the clock that counts (since boot) and the one that is only printed;
//! - [`lease`]: one promise and its life; [`holder`]: who holds it, so that a reused pid inherits
//!   nothing;
//! - [`attribution`]: whose memory is whose on a device, no byte counted for two leases;
//! - [`ledger`]: the decisions, a value without clock or disk; [`quota`]: how much one user may
//!   hold;
//! - [`queue`]: who waits, in which order; [`event`]: what happened, and how often;
//! - [`store`]: the ledger on disk, [`header`]: its first line; [`unreadable_ledger`]: what follows
//!   where it cannot be read; [`journal`]: what happened, to be read after an out-of-memory, and
//!   [`observed`]: when devices were read;
//! - [`durable_ledger`]: the ledger and its store as one, so that no promise is given that would
//!   not survive;
//! - [`view`]: a lease as it is printed.
//!
//! A lease is advisory: it binds those who ask, and nobody else.

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
pub mod observed;
pub mod queue;
pub mod quota;
pub mod store;
pub mod unreadable_ledger;
pub mod view;

#[cfg(test)]
pub(crate) mod testing;

/// The line that `--help`, the README and every answer with a lease print.
pub const ADVISORY: &str = "A lease is advisory: it is honoured by everyone who asks here, and cannot stop a process that does not.";
