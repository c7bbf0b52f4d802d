//! Checks whether a Hugging Face model fits on this host's GPUs right now, and how to start it.
//!
//! The crate [`hf_mem_core`] computes answers without I/O: model, engine, devices, placement. This
//! crate is the program around it. It reads repositories and devices, grants leases, and answers on
//! the command line and on a Unix socket.
//!
//! 1. [`repository`] reads a model's metadata, from file headers only.
//! 2. [`devices`] reads free memory through NVML.
//! 3. [`leases`] grants leases; its broker is the only owner of the ledger.
//! 4. [`service`] answers requests, [`server`] serves them over HTTP, and [`admission`] limits what
//!    one caller or user can ask.
//! 5. [`accounts`] looks up users and groups, [`config`] reads the configuration file, and
//!    [`metrics`] is the metrics page.
//! 6. [`daemon`] is the daemon's process, [`cli`] the command line.
//!
//! `ARCHITECTURE.md` has the map, and follows one question and one lease through the code.

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
mod lock_ignoring_poison;
pub mod metrics;
pub mod repository;
pub mod server;
pub mod service;
mod transition_log;
