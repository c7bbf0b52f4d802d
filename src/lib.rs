//! Does this Hugging Face model fit on this host's GPUs right now, and how?
//!
//! The pure path (model, engine, devices, placement, answer) is the crate [`hf_mem_core`]. This
//! crate is the program around it: it reads repositories and devices, holds leases, and answers on
//! the command line and on a Unix socket.
//!
//! 1. [`repository`] reads a model's metadata, from headers alone;
//! 2. [`devices`] reads what is free now;
//! 3. [`leases`] records what has been granted; its broker is the one owner of the ledger;
//! 4. [`service`] answers a route's question, [`server`] carries it over HTTP, [`admission`] limits
//!    how much a caller may ask;
//! 5. [`accounts`] looks up users and groups, [`config`] is the configuration file, [`metrics`] the
//!    metrics page;
//! 6. [`daemon`] is the process, [`cli`] the command line.
//!
//! `ARCHITECTURE.md` has the map and the walk of a question and of a lease.

#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod accounts;
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
mod hex;
#[expect(
    clippy::disallowed_methods,
    reason = "the ledger's folder, on the ledger's own thread; and /proc"
)]
pub mod leases;
pub mod metrics;
mod poison_free_lock;
pub mod repository;
pub mod server;
pub mod service;
mod transition_log;
