//! What is free now: the places on this host (or on a declared one) where a process can allocate.
//!
//! A [`Snapshot`](hf_mem_core::device::Snapshot) is one consistent reading of all devices. It is
//! published by the sampler, written by `gpus --json` and read back by `--gpus FILE`. Nothing
//! general in here is named after a vendor; what is NVIDIA's lives in `nvml`.

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

pub use draining::Earlier;
