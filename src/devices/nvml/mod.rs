//! NVIDIA devices, read through NVML.
//!
//! [`NvmlReader`] holds the one `Nvml` of a process and takes a
//! [`Snapshot`](hf_mem_core::device::Snapshot) on each pass. It follows these rules:
//!
//! - The UUID is the key of everything, and each pass looks devices up again.
//! - A faulty GPU never invalidates the others.
//! - An error is never read as zero, and an unknown value stays `None`.
//!
//! `docs/devices.md` lists what this module leaves out on purpose, and why.

mod asleep;
mod device;
mod events;
mod health;
mod host_reading;
mod library;
mod link_cache;
mod memory;
mod mig;
mod options;
mod processes;
mod raw;
mod reader;
mod topology;
mod xid;

pub use asleep::sleeping_snapshot;
pub use events::EventWatch;
pub use library::Fingerprint;
pub use options::{Margins, NvmlOptions};
pub use reader::NvmlReader;
pub use xid::{XidCount, XidEvent, XidLog, XidMeaning};
