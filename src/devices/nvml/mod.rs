//! NVIDIA's devices through NVML.
//!
//! [`NvmlReader`] holds the one `Nvml` of a process and turns it into a
//! [`Snapshot`](hf_mem_core::device::Snapshot), again and again. Its rules: everything is keyed by
//! UUID and looked up anew on each pass; one bad GPU never voids the others; an error is never read
//! as zero; what cannot be told stays `None`.
//!
//! What is knowingly left out, and why, stands in `docs/devices.md`.

mod device;
mod events;
mod health;
mod library;
mod memory;
mod mig;
mod processes;
mod raw;
mod reader;
mod topology;
mod xid;

pub use events::EventWatch;
pub use library::Fingerprint;
pub use reader::{Margins, NvmlOptions, NvmlReader, all_asleep};
pub use xid::{Meaning, XidCount, XidEvent, XidLog};
