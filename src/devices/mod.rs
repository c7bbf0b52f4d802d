//! The devices on this host, or on a declared one, and the memory that is free on them.
//!
//! A [`Snapshot`](hf_mem_core::device::Snapshot) is one consistent reading of all devices. The
//! sampler publishes it, `gpus --json` writes it, and `--gpus FILE` reads it back. General names in
//! this module are vendor-neutral; `nvml` holds what is specific to NVIDIA.

mod draining;
pub mod error;
pub mod holders;
pub mod host_memory;
pub mod nvml;
pub mod power;
mod problem;
pub mod sampler;
pub mod select;
pub mod snapshot_file;

pub use draining::RecentReadings;
