//! Does this Hugging Face model fit on this host's GPUs right now, and how?
//!
//! The folders are the path that a question takes:
//!
//! 1. [`api`] holds the words of a question and of its answer, as they stand on the socket and in
//!    `--json`;
//! 2. [`model`] reads what a repository holds, from headers alone;
//! 3. [`engines`] say what an inference engine makes of it: bytes by component for any split;
//! 4. [`devices`] says what is free now;
//! 5. [`placement`] finds how the one fits on the other;
//! 6. [`leases`] remembers who has been promised what.
//!
//! `probe` is that path in one function. [`cli`] and the daemon are two ways to walk it.

#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod admission;
pub mod api;
pub mod cli;
pub mod config;
pub mod daemon;
#[expect(
    clippy::disallowed_methods,
    reason = "files of /proc, /sys and the driver, on the sampler's own thread"
)]
pub mod devices;
mod files;
#[expect(
    clippy::disallowed_methods,
    reason = "the ledger's folder, on the ledger's own thread; and /proc"
)]
pub mod leases;
pub mod metrics;
pub mod repository;
pub mod server;
pub mod service;
mod transition_log;
